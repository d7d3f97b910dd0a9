"""Verb by verb: what it comes to, how it fails, and the caller's hangup at any moment of it."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.call.doing import VERBS, Doing, outcome_of, presses, scene, verb
from tests.call.test_transfers import loudness, virtually

from dueto.call import Call, TransferResult
from dueto.call.events import Dtmf, Held, HungUp, Speech
from dueto.call.ports import Accept
from dueto.errors import (
    CallEnded,
    CommandRefused,
    Dropped,
    Interrupted,
    LocalProtocolError,
    NotCapable,
    ReplyTimeout,
)
from dueto.sim import Endpoint, Faults, SimCall, Switch, tone

Do = Callable[[Call], Awaitable[Any]]
LONG = tone(8000, 30.0, 600)
MUSIC = "tone_stream://%(2000,0,850);loops=-1"
WORKS = {
    "announced": "TransferResult",
    "answer": "NoneType",
    "api": "str",
    "attended": "TransferResult",
    "bgapi": "str",
    "bridge": "TransferResult",
    "execute": "Event",
    "gather": "Gathered",
    "hangup": "NoneType",
    "hold": "NoneType",
    "park": "NoneType",
    "play": "int",
    "play_missing": "CommandRefused",
    "pre_answer": "NoneType",
    "record": "NoneType",
    "return": "NoneType",
    "ring_ready": "NoneType",
    "say": "NoneType",
    "send_dtmf": "NoneType",
    "set": "NoneType",
    "stop": "int",
    "stop_playing": "NoneType",
    "stop_recording": "NoneType",
    "transfer": "TransferResult",
    "unhold": "NoneType",
    "wait_for": "TimeoutError",
}
"What each verb comes to where nothing goes wrong."
ENDS = ("hangup", "park", "return")
"Verbs after which the call is over for the agent: the caller's own hangup is success to them."
# `api` runs `msleep`, which on a real switch too holds back every event of its socket, the hangup's as well.


def test_the_table_knows_every_verb() -> None:
    assert set(WORKS) == set(VERBS)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_verb_comes_to_what_it_should(name: str) -> None:
    agent = verb(lambda call: outcome_of(VERBS[name](call)))
    assert agent.result == WORKS[name], agent.error


# -- failures


@dataclass
class Failure:
    """A verb that can't succeed."""

    name: str
    do: Do
    error: type[BaseException]
    words: str = ""
    switch: dict[str, Any] = field(default_factory=dict)


def lost(event: str) -> dict[str, Any]:
    """A switch that never tells of `event`."""
    return {"faults": Faults(lost_events={event})}


async def _dropped(call: Call) -> None:
    first, second = (asyncio.ensure_future(call.play("tone_stream://%(9000,0,440)")) for _ in range(2))
    await asyncio.sleep(1.0)
    await call.stop_playing()
    assert await first < 2000
    await second


async def _cut(call: Call) -> None:
    saying = asyncio.ensure_future(call.say(LONG))
    await asyncio.sleep(1.0)
    await call.stop()
    await saying


async def _hold_and_unhold(call: Call) -> None:
    await call.hold()
    await call.unhold()


async def _twice(call: Call, one: Do) -> None:
    first = asyncio.ensure_future(one(call))
    await asyncio.sleep(0.1)
    try:
        await one(call)
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


FAILURES = [
    Failure("an api command that is none", lambda call: call.api("no_such"), CommandRefused, "Command not found"),
    Failure("an api command that takes too long", lambda call: call.api("msleep", "900", timeout_s=0.2), ReplyTimeout),
    Failure("a job that fails", lambda call: call.bgapi("uuid_kill", "nobody"), CommandRefused, "No such channel"),
    Failure("a job that takes too long", lambda call: call.bgapi("msleep", "900", timeout_s=0.2), ReplyTimeout),
    Failure("an application that is slow", lambda call: call.execute("sleep", "900", timeout_s=0.2), ReplyTimeout),
    Failure("an application that is none: the switch hangs up", lambda call: call.execute("no_such"), CallEnded),
    Failure("a file that is not there", lambda call: call.play("/no/such.wav"), CommandRefused, "FILE NOT FOUND"),
    Failure("no sound at all", lambda call: call.play(""), LocalProtocolError),
    Failure("a playback that is dropped", _dropped, Dropped),
    Failure("an utterance that is cut", _cut, Interrupted),
    Failure("a text without a mouth", lambda call: call.say("Hello."), NotCapable, "mouth"),
    Failure("a hold that is never told", lambda call: call.hold(), ReplyTimeout, "held", lost("CHANNEL_HOLD")),
    Failure("an end of it that is never told", _hold_and_unhold, ReplyTimeout, "resumed", lost("CHANNEL_UNHOLD")),
    Failure("a recording that is none", lambda call: call.stop_recording("/x.wav"), CommandRefused, "stop record"),
    Failure("a path that forges", lambda call: call.record("/x.wav\n\napi status"), LocalProtocolError),
    Failure("digits that forge", lambda call: call.send_dtmf("1\n\napi status"), LocalProtocolError),
    Failure("a variable that forges", lambda call: call.set_variables(x="1\n\napi status"), LocalProtocolError),
    Failure("a cause that forges", lambda call: call.hangup("USER_BUSY\n\napi status"), LocalProtocolError),
    Failure("a result that forges", lambda call: call.return_to_dialplan(x="1\n\n"), LocalProtocolError),
    Failure("music that forges", lambda call: call.hold("x\n\napi status"), LocalProtocolError),
    Failure("digits that make no sense", lambda call: call.gather(min_digits=2, max_digits=1), LocalProtocolError),
    Failure("digits for two", lambda call: _twice(call, lambda call: call.gather(first_timeout_s=9)), NotCapable),
    Failure("a destination that is none", lambda call: call.transfer("nobody"), NotCapable, "operator"),
    Failure("a transfer within one", lambda call: _twice(call, VERBS["announced"]), NotCapable, "already"),
    Failure("an announcement without a mouth", lambda call: call.transfer("operator", mode="announced"), NotCapable),
    Failure("an event that never comes", lambda call: call.wait_for(Held, timeout_s=1.0), TimeoutError),
    Failure("presence without a link", lambda call: call.extension("1001"), NotCapable, r"\[switch\]"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_a_failure_is_typed_and_says_why(failure: Failure) -> None:
    agent = verb(failure.do, **failure.switch)
    assert type(agent.error) is failure.error, repr(agent.error)
    assert re.search(failure.words, str(agent.error)), agent.error


BY_EXECUTE = {"answer", "execute", "pre_answer", "ring_ready"}
"What needs no api."
BY_AUDIO = {"gather", "say", "stop", "unhold", "wait_for"}
"What needs no command at all (nobody is on hold here)."


@pytest.mark.parametrize("name", sorted(set(VERBS) - {"hangup", "return"}))
def test_without_full_in_the_dialplan_what_needs_the_api_says_so(name: str) -> None:
    agent = verb(lambda call: outcome_of(VERBS[name](call)), full=False)
    assert agent.result == (WORKS[name] if name in BY_EXECUTE | BY_AUDIO else "NotCapable"), name


@pytest.mark.parametrize("name", sorted(set(VERBS) - {"hangup", "return"}))
def test_without_a_control_leg_what_needs_one_says_so(name: str) -> None:
    agent = verb(lambda call: outcome_of(VERBS[name](call)), faults=Faults(control_never=True))
    assert agent.result == (WORKS[name] if name in BY_AUDIO else "NotCapable"), name


# -- the hangup in the middle


def hung_up_after(name: str, after_s: float) -> str:
    """What the verb comes to when the caller hangs up so soon after its beginning; it has to know at once."""
    ended_at = 0.0

    async def do(call: Call) -> str:
        nonlocal ended_at
        outcome = await outcome_of(VERBS[name](call))
        ended_at = asyncio.get_running_loop().time()
        return outcome

    async def hang_up(agent: Doing, call: SimCall, switch: Switch) -> None:
        await agent.began.wait()
        await asyncio.sleep(after_s)
        call.hang_up()
        at = asyncio.get_running_loop().time()
        await agent.done.wait()
        await call.over()
        assert ended_at - at < 0.5, "it did not wait for anything any more"
        await asyncio.sleep(0.2)
        assert all(one.hangup_cause for one in switch.calls.values()), "nobody else's telephone rings on"

    result: str = verb(do, then=hang_up, faults=Faults(reply_delay_s=0.02)).result
    return result


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_hangup_at_any_moment_of_a_verb_ends_it_at_once_as_itself_or_as_the_end_of_the_call(name: str) -> None:
    outcomes = [hung_up_after(name, after_s) for after_s in (0.0, 0.01, 0.05, 0.15, 0.4)]
    assert set(outcomes) <= {WORKS[name], "CallEnded"}, outcomes
    assert ("CallEnded" in outcomes) == (name not in (*ENDS, "api", "stop", "unhold")), outcomes


# -- hold


@pytest.mark.parametrize(("music", "loud"), [(MUSIC, True), ("silence", False)])
def test_who_is_on_hold_hears_the_music_until_he_is_taken_back_and_only_then_the_agent(music: str, loud: bool) -> None:
    @virtually
    async def run() -> None:
        async def hold(call: Call) -> None:
            await call.hold(music)
            saying = asyncio.ensure_future(call.say(tone(8000, 0.5, 600)))
            await asyncio.sleep(2.0)
            await call.unhold()
            await saying

        async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
            await agent.began.wait()
            began = len(call.heard)
            await agent.done.wait()
            on_hold, after = call.heard[began + 3200 : began + 28800], call.heard[-9600:]
            assert (loudness(on_hold, 850) > 0.9) == loud
            assert loudness(on_hold, 600) < 0.01, "nobody speaks to him"
            assert loudness(after, 600) > 0.8, "the music has stopped, the agent is heard"

        await scene(hold, look)

    run()


def test_music_that_the_switch_has_not_is_silence_and_the_hold_stands() -> None:
    agent = verb(lambda call: call.hold("/no/such.wav"))
    assert agent.error is None
    assert Held("us") in agent.events


def test_a_hold_that_failed_is_not_taken_for_ours_when_the_telephone_holds_later() -> None:
    async def hold(call: Call) -> Any:
        kind = await outcome_of(call.hold())
        return kind, await call.wait_for(Held, timeout_s=20)

    async def look(agent: Doing, call: SimCall, switch: Switch) -> None:
        await asyncio.sleep(6.0)
        call.channel.hold(False, by_caller=False)  # the one of ours that nobody heard of
        call.channel.faults = Faults()
        call.line.hold()
        await agent.done.wait()

    kind, held = verb(hold, then=look, **lost("CHANNEL_HOLD")).result
    assert kind == "ReplyTimeout"
    assert held == Held("caller")


# -- transfers: more ways to decline


@pytest.mark.parametrize(
    ("accept", "outcome"),
    [
        (Accept(prompt="", silence="accept", within_s=2.0), "bridged"),
        (Accept(prompt="", silence="decline", within_s=2.0), "declined"),
        (Accept(prompt="", digit="5", within_s=2.0), "declined"),
        (Accept(prompt="", digit="3", within_s=2.0), "bridged"),
        (Accept(prompt="", digit="", decline_digit="3", silence="accept", within_s=2.0), "declined"),
    ],
)
def test_the_other_side_takes_the_call_as_it_was_asked_to(accept: Accept, outcome: str) -> None:
    agent = verb(
        lambda call: call.transfer("operator", mode="announced", announce=tone(8000, 0.2, 700), accept=accept),
        endpoints={"user/1001": Endpoint("answers", presses="3", presses_after_s=0.8)},
    )
    assert agent.result.outcome == outcome


class Understands:
    """An ear that understands one thing, whatever is said."""

    rate_hz = 8000

    def __init__(self, text: str) -> None:
        self._text = text
        self._emit: Callable[[Any], None] | None = None

    def attach(self, emit: Callable[[Any], None]) -> None:
        self._emit = emit

    def hear(self, frame: bytes) -> None:
        if self._emit is not None and any(frame):
            emit, self._emit = self._emit, None
            emit(Speech(self._text, 0.9, 0, 500))

    async def aclose(self) -> None:
        self._emit = None


@pytest.mark.parametrize(
    ("said", "outcome"),
    [("Yes please", "bridged"), ("not now", "declined"), ("yesterday", "declined"), ("what", "declined")],
)
def test_the_other_side_takes_the_call_by_word_or_declines_it(said: str, outcome: str) -> None:
    accept = Accept(
        prompt="", words=("yes", "go ahead"), decline_words=("not now",), ear=lambda: Understands(said), within_s=3.0
    )
    agent = verb(
        lambda call: call.transfer("operator", mode="announced", announce=tone(8000, 0.2, 700), accept=accept),
        endpoints={"user/1001": Endpoint("answers", says=tone(8000, 1.0, 300))},
    )
    assert agent.result.outcome == outcome


@pytest.mark.parametrize("mode", ["blind", "announced"])
def test_once_they_are_connected_no_frame_of_either_reaches_an_agent(mode: Any) -> None:
    frames: list[tuple[str, float]] = []
    bridged_at: list[float] = []

    async def do(call: Call) -> None:
        clock = asyncio.get_running_loop().time

        async def announce(other: Call) -> bool:
            other.audio_to(lambda frame: frames.append(("B", clock())))
            await other.say(tone(8000, 0.5, 700))
            return True

        call.audio_to(lambda frame: frames.append(("A", clock())))
        await asyncio.sleep(0.5)
        await call.transfer("operator", mode=mode, announce=announce)
        bridged_at.append(clock())
        await asyncio.sleep(3.0)

    agent = verb(do, endpoints={"user/1001": Endpoint("answers", answer_after_s=0.5)})
    assert agent.error is None
    assert {who for who, _ in frames} == ({"A"} if mode == "blind" else {"A", "B"})
    assert max(at for _, at in frames) < bridged_at[0]


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (Endpoint("answers"), TransferResult("let_go", "BLIND_TRANSFER")),
        (Endpoint("busy"), TransferResult("busy", sip_code=486)),
        (Endpoint("rejects"), TransferResult("rejected", sip_code=603)),
        (Endpoint("unreachable"), TransferResult("unreachable", sip_code=503)),
    ],
)
def test_a_refer_comes_to_what_the_telephone_tells_of_it(endpoint: Endpoint, expected: TransferResult) -> None:
    agent = verb(lambda call: call.transfer("mobile"), endpoints={"sip:5511@example.org": endpoint})
    assert agent.result == expected


def test_a_digit_for_the_agent_waits_in_the_order_it_came() -> None:
    async def late(call: Call) -> list[str]:
        await call.play("tone_stream://%(2500,0,440)")
        return []

    agent = verb(late, caller=presses("159"))
    assert [event.digit for event in agent.events if isinstance(event, Dtmf)] == ["1", "5", "9"]
    assert isinstance(agent.events[-1], HungUp)
