"""What a bot takes for its Twilio account."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.agents.media_streams import Account, Exchange, NumberPolicy, call_sid
from dueto.agents.media_streams.account import MOST_OVER
from dueto.agents.media_streams.verbs import Verb
from dueto.errors import LocalProtocolError

NUMBERS = NumberPolicy(("+4930*", "110", "0*9"), "sofia/gateway/trunk/{number}")


def test_the_call_sid_of_a_channel_is_its_unique_id() -> None:
    assert call_sid("779bea1c-6dce-45dd-be52-dc01733920a2") == "CA779bea1c6dce45ddbe52dc01733920a2"


@given(st.text())
def test_any_unique_id_has_a_call_sid(unique_id: str) -> None:
    sid = call_sid(unique_id)
    assert sid.startswith("CA")
    assert len(sid) == 34
    assert int(sid[2:], 16) >= 0
    assert sid == call_sid(unique_id)


@pytest.mark.parametrize("number", ["+4930", "+49 30 12-34", "+49(30)1234", "110", "09", "0129"])
def test_a_number_that_is_allowed_becomes_a_dial_string(number: str) -> None:
    digits = "".join(char for char in number if char in "+0123456789")
    assert NUMBERS.dial_string(number) == f"sofia/gateway/trunk/{digits}"


@pytest.mark.parametrize(
    "number", ["", "+49", "1100", "+493a", "+4930;x", "110\n", "+4930,user/1", "{a=b}110", "٠9", "090"]
)
def test_a_number_that_is_not_allowed_is_refused(number: str) -> None:
    with pytest.raises(LocalProtocolError):
        NUMBERS.dial_string(number)


def test_without_a_policy_no_number_is_dialled() -> None:
    with pytest.raises(LocalProtocolError, match="allow"):
        NumberPolicy().dial_string("110")


@given(st.text(max_size=40))
def test_what_is_dialled_is_digits_whatever_was_asked_for(number: str) -> None:
    policy = NumberPolicy(("*", "+*"), "user/{number}")
    try:
        dial = policy.dial_string(number)
    except LocalProtocolError:
        return
    assert set(dial.removeprefix("user/")) <= set("+0123456789")


def test_without_a_token_nobody_is_admitted_and_nothing_is_signed() -> None:
    account = Account()
    assert not account.admits(account.sid, "")
    assert account.sign("https://bot/x") == {}


def test_credentials_are_whole_or_wrong() -> None:
    account = Account("AC" + "1" * 32, "a token of the tests")
    assert account.admits("AC" + "1" * 32, "a token of the tests")
    for user, password in (("", ""), ("AC" + "1" * 32, ""), ("AC" + "2" * 32, "a token of the tests"), ("é", "ü")):
        assert not account.admits(user, password)
    assert "a token of the tests" not in repr(account)


class Held:
    def form(self) -> dict[str, str]:
        return {}

    def end(self) -> None:
        pass

    def redirect(self, program: tuple[Verb, ...]) -> None:
        pass


def test_a_call_that_was_entered_anew_is_not_lost_by_the_end_of_the_first() -> None:
    exchange, first, second = Exchange(), Held(), Held()
    exchange.enter("CA1", first)
    exchange.enter("CA1", second)
    exchange.leave("CA1", first)
    assert exchange.find("CA1") is second
    exchange.leave("CA1", second)
    assert exchange.find("CA1") is None
    assert len(exchange) == 0


def test_only_so_many_calls_that_are_over_are_remembered() -> None:
    exchange = Exchange()
    sids = [f"CA{number:032x}" for number in range(MOST_OVER + 5)]
    for sid in sids:
        exchange.over({"CallSid": sid, "CallStatus": "completed"})
    assert not any(exchange.find(sid) for sid in sids[:5])
    assert all(exchange.find(sid) for sid in sids[5:])
    assert len(exchange) == 0
