"""Every verb of a call: what the switch really did comes back, or a typed error. On virtual time, in memory."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.call.doing import VERBS, Doing, outcome_of, presses, scene, verb
from tests.call.test_transfers import loudness, virtually

from dueto.call import Call
from dueto.call.events import Bridged, Dtmf, Held, HungUp, Resumed
from dueto.call.gather import Gathered
from dueto.call.keys import parse_keys
from dueto.errors import CallEnded, CommandRefused, LocalProtocolError, NotCapable
from dueto.sim import Caller, Line, SimCall, Switch, tone

# -- answering


def test_answer_answers_and_an_answered_call_is_success() -> None:
    states: list[str] = []

    async def twice(call: Call) -> None:
        await call.ring_ready()
        await call.pre_answer()
        for _ in range(2):
            await call.answer()

    async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
        await agent.began.wait()
        states.append(call.channel.answer_state)
        await agent.done.wait()
        states.append(call.channel.answer_state)

    agent = verb(twice, then=look, answer=False)
    assert agent.error is None
    assert states == ["early", "answered"]


# -- playing


def test_play_tells_how_much_was_played() -> None:
    agent = verb(lambda call: call.play("tone_stream://%(700,0,440)"))
    assert agent.result == 700


def test_play_of_a_file_that_is_not_there_is_refused() -> None:
    agent = verb(lambda call: call.play("/no/such.wav"))
    assert isinstance(agent.error, CommandRefused)
    assert "FILE NOT FOUND" in str(agent.error)


def test_a_cancelled_play_is_silence() -> None:
    @virtually
    async def run() -> None:
        async def cancelled(call: Call) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await call.play("tone_stream://%(30000,0,440)")
            await asyncio.sleep(2.0)

        async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
            await agent.done.wait()
            assert loudness(call.heard, 440) > 0.5
            assert not any(call.heard[-8000:]), "a second later nothing is heard any more"

        await scene(cancelled, look)

    run()


# -- digits


@pytest.mark.parametrize(
    ("pressed", "how", "expected"),
    [
        ("1234", {"max_digits": 4}, Gathered("1234", "max")),
        ("12#", {"max_digits": 4}, Gathered("12", "terminator", "#")),
        ("#12#", {"min_digits": 2, "max_digits": 4}, Gathered("12", "terminator", "#")),
        ("12", {"max_digits": 4}, Gathered("12", "timeout")),
        ("", {"max_digits": 4, "first_timeout_s": 2.0}, Gathered("", "timeout")),
        ("5*", {"max_digits": 4, "terminators": "*#"}, Gathered("5", "terminator", "*")),
    ],
)
def test_gather_collects_digits(pressed: str, how: dict[str, Any], expected: Gathered) -> None:
    agent = verb(lambda call: call.gather(**how), caller=presses(pressed))
    assert agent.result == expected
    assert not [event for event in agent.events if isinstance(event, Dtmf)], "they were not told twice"


def test_a_digit_cuts_the_prompt() -> None:
    @virtually
    async def run() -> None:
        prompt = tone(8000, 10.0, 600)

        async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
            await agent.done.wait()
            assert agent.result == Gathered("7", "max")
            await asyncio.sleep(1.0)
            assert 0.5 < len(call.heard.rstrip(b"\0")) / 16000 < 2.5, "the prompt stopped when the key was pressed"

        await scene(lambda call: call.gather(prompt=prompt), look, caller=presses("7"))

    run()


def test_a_prompt_that_may_not_be_cut_is_heard_to_its_end() -> None:
    @virtually
    async def run() -> None:
        async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
            await agent.done.wait()
            assert agent.result == Gathered("7", "max")
            assert len(call.heard.strip(b"\0")) / 16000 == pytest.approx(3.0, abs=0.1)

        prompt = tone(8000, 3.0, 600)
        await scene(lambda call: call.gather(prompt=prompt, barge_in=False), look, caller=presses("7"))

    run()


def test_two_can_not_gather_at_once() -> None:
    async def both(call: Call) -> list[Any]:
        return await asyncio.gather(call.gather(first_timeout_s=1.0), call.gather(), return_exceptions=True)

    first, second = verb(both).result
    assert first == Gathered("", "timeout")
    assert isinstance(second, NotCapable)


def test_gather_refuses_what_can_not_be() -> None:
    for how in ({"max_digits": 0}, {"min_digits": 3, "max_digits": 2}, {"terminators": "x"}):
        assert isinstance(verb(lambda call, how=how: call.gather(**how)).error, LocalProtocolError)


def test_digits_are_sent_and_checked() -> None:
    async def send(call: Call) -> None:
        await call.send_dtmf("12w34#")
        for forged in ("1\n\napi status", "1 2", "x", "1;2"):
            with pytest.raises(LocalProtocolError):
                await call.send_dtmf(forged)

    @virtually
    async def run() -> None:
        async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
            await agent.done.wait()
            assert [one.fields["digits"] for one in call.events if one.name == "heard_dtmf"] == ["12w34#"]

        await scene(send, look)

    run()


# -- hold


def test_our_hold_is_told_from_the_callers() -> None:
    async def ours(call: Call) -> None:
        await call.hold()
        await asyncio.sleep(1.0)
        await call.unhold()
        await asyncio.sleep(5.0)

    async def script(line: Line) -> None:
        await line.wait(3.0)
        line.hold()
        await line.wait(1.0)
        line.unhold()
        await line.until_hangup()

    agent = verb(ours, caller=Caller(script=script))
    assert [event for event in agent.events if isinstance(event, Held | Resumed)] == [
        Held("us"),
        Resumed(),
        Held("caller"),
        Resumed(),
    ]


# -- recording, jobs, waiting


def test_recording_is_the_switchs_and_its_path_is_checked() -> None:
    async def record(call: Call) -> None:
        await call.record("/var/rec/a.wav", limit_s=60)
        await call.stop_recording("/var/rec/a.wav")
        for forged in ("/a b", "/a\n\n", "/a'b", "${x}"):
            with pytest.raises(LocalProtocolError):
                await call.record(forged)

    @virtually
    async def run() -> None:
        async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
            await agent.done.wait()
            noted = [(one.fields["what"], one.fields["path"]) for one in call.events if one.name == "record"]
            assert noted == [("start", "/var/rec/a.wav"), ("stop", "/var/rec/a.wav")]

        assert (await scene(record, look)).error is None

    run()


def test_a_job_returns_its_result_and_holds_up_nothing() -> None:
    async def job(call: Call) -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        slow = asyncio.ensure_future(call.bgapi("msleep", "2000"))
        await asyncio.sleep(0.1)
        before = loop.time()
        await call.api("uuid_getvar", f"{call.unique_id} x")
        waited_s = loop.time() - before
        return await slow, waited_s

    output, waited_s = verb(job).result
    assert output == "+OK"
    assert waited_s < 0.1


def test_a_refused_job_is_typed() -> None:
    assert isinstance(verb(lambda call: call.bgapi("no_such_command")).error, CommandRefused)


def test_wait_for_an_event_steals_it_from_nobody() -> None:
    agent = verb(lambda call: call.wait_for(Dtmf, where=lambda event: event.digit == "9"), caller=presses("89"))
    assert agent.result.digit == "9"
    assert [event.digit for event in agent.events if isinstance(event, Dtmf)] == ["8", "9"]


def test_waiting_for_an_event_ends_with_the_call() -> None:
    async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
        await asyncio.sleep(1.0)
        call.hang_up()
        await agent.done.wait()

    agent = verb(lambda call: call.wait_for(Dtmf), then=look)
    assert isinstance(agent.error, CallEnded)
    agent = verb(lambda call: call.wait_for(HungUp), then=look)
    assert isinstance(agent.result, HungUp)


# -- leaving


def test_park_leaves_the_channel_alive_and_silent() -> None:
    @virtually
    async def run() -> None:
        async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
            await asyncio.sleep(3.0)
            assert not call.hangup_cause
            assert not call.channel.controls

        await scene(lambda call: call.park(), look)

    run()


def test_a_transfer_by_the_switch_lets_go() -> None:
    async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
        await asyncio.sleep(3.0)
        assert call.channel.destination == "2000"

    agent = verb(
        lambda call: call.transfer("away"),
        then=look,
        extensions={"2000": [("answer", ""), ("playback", "tone_stream://%(9000,0,440)")]},
    )
    assert agent.error is None
    assert agent.result.outcome == "let_go"
    assert agent.result.ok


def test_a_destination_that_is_closed_is_not_called() -> None:
    agent = verb(lambda call: call.transfer("closed"))
    assert (agent.result.outcome, agent.result.hangup_cause) == ("unreachable", "closed")


# -- the DTMF map


def test_the_map_is_asked_before_the_agent() -> None:
    async def wait(call: Call) -> None:
        await asyncio.sleep(20.0)

    keys = parse_keys({"0": "transfer operator", "#": "hangup"})
    agent = verb(wait, caller=presses("05"), keys=keys, then=_sleep(6.0))
    assert [event.digit for event in agent.events if isinstance(event, Dtmf)] == ["5"]
    assert [event for event in agent.events if isinstance(event, Bridged)]

    @virtually
    async def hung() -> None:
        async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
            await call.over()
            assert call.hangup_cause == "NORMAL_CLEARING"

        await scene(wait, look, caller=presses("#"), keys=keys)

    hung()


def _sleep(seconds: float) -> Callable[[Doing, SimCall, Switch], Awaitable[None]]:
    async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
        await asyncio.sleep(seconds)

    return look


def test_repeat_says_the_last_sentence_again() -> None:
    @virtually
    async def run() -> None:
        async def once(call: Call) -> None:
            await call.say(tone(8000, 0.5, 600))
            await asyncio.sleep(10.0)

        async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
            await asyncio.sleep(1.2)
            first = len(call.heard)
            await asyncio.sleep(3.0)
            assert loudness(call.heard[first:], 600) > 0.5

        await scene(once, look, caller=presses("*", after_s=1.5), keys=parse_keys({"*": "repeat"}))

    run()


def test_keys_mean_nothing_while_digits_are_gathered() -> None:
    agent = verb(lambda call: call.gather(max_digits=2), caller=presses("#0"[::-1]), keys=parse_keys({"0": "hangup"}))
    assert agent.result == Gathered("0", "terminator", "#")


# -- in the middle of a hangup, and under every trouble


@pytest.mark.parametrize("name", sorted(VERBS))
def test_after_the_hangup_every_verb_says_that_the_call_is_over(name: str) -> None:
    async def after(call: Call) -> Any:
        await call.wait_for(HungUp)
        return await asyncio.wait_for(outcome_of(VERBS[name](call)), 1.0)

    async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
        await asyncio.sleep(0.5)
        call.hang_up()
        await agent.done.wait()

    agent = verb(after, then=look)
    expected = "NoneType" if name in ("hangup", "park", "return") else "int" if name == "stop" else "CallEnded"
    assert agent.result == expected
