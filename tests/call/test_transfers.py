"""Transfers as transactions: whatever the other side does, the caller is connected, or the agent's again.

Every second here is on the virtual clock; the switch is the simulated one, both legs in memory.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import numpy as np
import pytest
from tests.support.virtual import Virtual, virtual_desk

from dueto.audio import pcm
from dueto.call import Call, CallRules, Destination, TransferResult
from dueto.call.events import Bridged, CallEvent, ControlJoined, HungUp, Unbridged
from dueto.call.house import Whereabouts
from dueto.call.ports import Accept
from dueto.call.transfer import failed_bridge, referred
from dueto.errors import CallEnded, NotCapable
from dueto.sim import Caller, Endpoint, Line, SimCall, Switch, run_virtual, tone
from dueto.wire.esl import Event, quote

RULES = CallRules(public_url="ws://127.0.0.1:8085", rate_hz=8000)
WELCOME = tone(8000, 0.4, 500)
SAID_TO_B = tone(8000, 0.6, 700)
DESTINATIONS = {"operator": Destination("operator", "user/1001")}


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on the virtual loop."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(test(*args, **kwargs), start_s=1000.0)

    return run


class Transferring:
    """An agent that transfers the caller once, and keeps what came of it."""

    def __init__(self, then: Callable[[Call], Coroutine[Any, Any, None]] | None = None, **how: Any) -> None:
        self.how = {"mode": "announced", "announce": SAID_TO_B, "accept": Accept(prompt="")} | how
        self.then = then
        self.result: TransferResult | None = None
        self.error: BaseException | None = None
        self.events: list[CallEvent] = []
        self.runs = 0

    async def __call__(self, call: Call) -> None:
        self.runs += 1
        await call.say(WELCOME)
        try:
            self.result = await call.transfer("operator", **self.how)
        except BaseException as error:
            self.error = error
            raise
        if self.then is not None:
            await self.then(call)
        async for event in call.events():
            self.events.append(event)


def desk(agent: Any, **more: Any) -> Any:
    given = {"rules": RULES, "destinations": DESTINATIONS, "whereabouts": Whereabouts("127.0.0.1:8022")} | more
    return virtual_desk(agent, **given)


def loudness(audio: bytes, hz: float, rate_hz: int = 8000) -> float:
    """How much of `hz` there is in `audio`, 0 to 1 of its energy."""
    samples = np.frombuffer(audio, "<i2").astype(float)
    power = np.abs(np.fft.rfft(samples)) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / rate_hz) - hz) < 15
    return float(power[near].sum() / max(power.sum(), 1.0))


async def the_b_leg(switch: Switch, a: SimCall) -> SimCall:
    """Wait for the channel that was placed for `a`."""
    while True:
        for call in switch.calls.values():
            if call is not a:
                return call
        await asyncio.sleep(0.05)


async def until(virtual: Virtual, name: str) -> None:
    async with asyncio.timeout(60):
        await virtual.until_noted(name)


@virtually
async def test_an_announced_transfer_accepted_by_digit_connects_the_two() -> None:
    agent = Transferring()
    async with desk(agent) as virtual:
        operator = Endpoint("answers", answer_after_s=1.0, presses="1", presses_after_s=1.0, says=b"")
        async with virtual.switch(record=True, endpoints={"user/1001": operator}) as switch:
            caller = tone(8000, 3.0, 1100)

            async def script(line: Line) -> None:
                await line.bridged(30)
                await line.say(caller)

            a = await switch.place(Caller(script=script))
            b = await the_b_leg(switch, a)
            await a.done()
            await b.done()
            assert agent.result == TransferResult("bridged", "SUCCESS", b_leg=b.unique_id)
            assert a.bridged_to == b.unique_id
            assert b.bridged_to == a.unique_id
            assert loudness(b.heard, 700) > 0.1, "B heard the announcement"
            assert loudness(a.heard, 700) < 0.001, "A did not"
            assert loudness(b.heard, 1100) > 0.3, "B hears A once they are connected"
            assert b.hangup_cause, "A hung up, and B is gone too"
    assert agent.runs == 1, "B's own control leg is no new call for the agent"


@virtually
async def test_the_caller_hears_music_while_the_other_side_is_spoken_to() -> None:
    agent = Transferring(ringback="tone_stream://%(2000,0,850);loops=-1")
    async with desk(agent) as virtual:
        operator = Endpoint("answers", answer_after_s=1.0, presses="2", presses_after_s=1.0)
        async with virtual.switch(record=True, endpoints={"user/1001": operator}) as switch:
            a = await switch.place(Caller())
            await until(virtual, "transfer_answered")
            heard = len(a.heard)
            assert loudness(a.heard, 850) > 0.5
            await asyncio.sleep(0.3)
            silent = a.heard[heard + 1600 :]
            assert loudness(silent, 850) < 0.5, "the music stopped with the consultation"
            a.hang_up()


@pytest.mark.parametrize(
    ("endpoint", "outcome", "cause"),
    [
        (Endpoint("busy", answer_after_s=0.5), "busy", "USER_BUSY"),
        (Endpoint("no_answer"), "no_answer", "NO_ANSWER"),
        (Endpoint("rejects", answer_after_s=0.5), "rejected", "CALL_REJECTED"),
        (Endpoint("unreachable"), "unreachable", "NORMAL_TEMPORARY_FAILURE"),
    ],
)
def test_whoever_is_not_reached_brings_the_caller_back_to_the_agent(
    endpoint: Endpoint, outcome: str, cause: str
) -> None:
    @virtually
    async def scene() -> None:
        sorry = tone(8000, 0.5, 900)

        async def then(call: Call) -> None:
            await call.say(sorry)
            await call.hangup()

        agent = Transferring(then, timeout_s=5.0)
        async with desk(agent) as virtual, virtual.switch(record=True, endpoints={"user/1001": endpoint}) as switch:
            a = await switch.place(Caller())
            await a.done()
            assert agent.result is not None
            assert (agent.result.outcome, agent.result.hangup_cause) == (outcome, cause)
            assert loudness(a.heard[-8000:], 900) > 0.5, "the agent goes on talking"

    scene()


@virtually
async def test_a_declined_call_comes_back_and_the_other_side_is_let_go() -> None:
    agent = Transferring(lambda call: call.hangup())
    async with desk(agent) as virtual:
        operator = Endpoint("answers", answer_after_s=0.5, presses="2", presses_after_s=1.0)
        async with virtual.switch(record=True, endpoints={"user/1001": operator}) as switch:
            a = await switch.place(Caller())
            b = await the_b_leg(switch, a)
            await a.done()
            await b.done()
            assert agent.result is not None
            assert agent.result.outcome == "declined"
            assert not agent.result.ok
            assert a.bridged_to == ""


@virtually
async def test_silence_declines_unless_it_is_to_accept() -> None:
    for silence, outcome in (("decline", "declined"), ("accept", "bridged")):
        agent = Transferring(accept=Accept(prompt="", silence=silence, within_s=2.0))  # type: ignore[arg-type]
        async with (
            desk(agent) as virtual,
            virtual.switch(record=True, endpoints={"user/1001": Endpoint("answers")}) as switch,
        ):
            a = await switch.place(Caller())
            await until(virtual, "transfer")
            assert agent.result is not None
            assert agent.result.outcome == outcome
            a.hang_up()


@virtually
async def test_an_announcement_of_ones_own_decides_by_itself() -> None:
    heard: list[str] = []

    async def announce(other: Call) -> bool:
        heard.append(other.unique_id)
        await other.say(SAID_TO_B)
        return True

    agent = Transferring(announce=announce)
    async with (
        desk(agent) as virtual,
        virtual.switch(record=True, endpoints={"user/1001": Endpoint("answers")}) as switch,
    ):
        a = await switch.place(Caller())
        await until(virtual, "transfer")
        assert agent.result is not None
        assert agent.result.ok
        assert heard == [agent.result.b_leg]
        a.hang_up()


@virtually
async def test_the_other_side_hangs_up_during_the_announcement() -> None:
    agent = Transferring()
    async with desk(agent) as virtual:
        operator = Endpoint("answers", answer_after_s=0.5, hangs_up_after_s=0.3)
        async with virtual.switch(record=True, endpoints={"user/1001": operator}) as switch:
            a = await switch.place(Caller())
            await until(virtual, "transfer")
            assert agent.result is not None
            assert agent.result.outcome == "declined"
            assert not a.hangup_cause
            a.hang_up()


@pytest.mark.parametrize("when", ["ringing", "announcing"])
def test_the_callers_hangup_kills_the_other_side_at_once(when: str) -> None:
    @virtually
    async def scene() -> None:
        agent = Transferring()
        endpoint = Endpoint("no_answer") if when == "ringing" else Endpoint("answers", answer_after_s=0.5)
        async with desk(agent) as virtual, virtual.switch(record=True, endpoints={"user/1001": endpoint}) as switch:
            a = await switch.place(Caller())
            b = await the_b_leg(switch, a)
            if when == "announcing":
                await until(virtual, "announcing")
            a.hang_up()
            await a.done()
            await b.done()
            assert b.hung_up_at - a.hung_up_at < 0.1
            assert b.hangup_cause == "ORIGINATOR_CANCEL"
            assert isinstance(agent.error, CallEnded)

    scene()


@virtually
async def test_a_cancelled_transfer_kills_the_other_side_and_the_agent_goes_on() -> None:
    done: list[str] = []

    async def agent(call: Call) -> None:
        transfer = asyncio.ensure_future(
            call.transfer("operator", mode="announced", announce=SAID_TO_B, accept=Accept(prompt=""))
        )
        await asyncio.sleep(2.0)
        transfer.cancel()
        await asyncio.gather(transfer, return_exceptions=True)
        await call.say(WELCOME)
        done.append("said")
        await call.hangup()

    async with (
        desk(agent) as virtual,
        virtual.switch(record=True, endpoints={"user/1001": Endpoint("no_answer")}) as switch,
    ):
        a = await switch.place(Caller())
        b = await the_b_leg(switch, a)
        await a.done()
        await b.done()
        assert done == ["said"]
        assert b.hung_up_at < a.hung_up_at


@virtually
async def test_when_the_other_side_hangs_up_after_the_bridge_the_caller_is_the_agents_again() -> None:
    again = tone(8000, 0.6, 900)
    heard: list[CallEvent] = []

    async def agent(call: Call) -> None:
        result = await call.transfer("operator", mode="announced", announce=SAID_TO_B, accept=Accept(prompt=""))
        assert result.ok
        async for event in call.events():
            heard.append(event)
            if isinstance(event, Unbridged):
                await call.say(again)
                await call.hangup()

    async def operator(line: Line) -> None:
        await line.press("1")
        await line.bridged(20)
        await line.wait(2.0)

    endpoints = {"user/1001": Endpoint("answers", script=operator)}
    async with desk(agent) as virtual, virtual.switch(record=True, endpoints=endpoints) as switch:
        a = await switch.place(Caller())
        await a.done()
        assert [type(event) for event in heard if not isinstance(event, ControlJoined)] == [Bridged, Unbridged, HungUp]
        assert loudness(a.heard[-9600:], 900) > 0.5


@pytest.mark.parametrize("mode", ["blind", "announced"])
def test_the_callers_channel_ends_with_the_other_one_where_the_destination_says_so(mode: str) -> None:
    @virtually
    async def scene() -> None:
        agent = Transferring(mode=mode)
        table = {"operator": Destination("operator", "user/1001", after="hangup")}
        how = {"presses": "1", "presses_after_s": 1.0} if mode == "announced" else {}
        operator = Endpoint("answers", answer_after_s=0.3, hangs_up_after_s=3.0, **how)  # type: ignore[arg-type]
        async with desk(agent, destinations=table) as virtual:
            async with virtual.switch(record=True, endpoints={"user/1001": operator}) as switch:
                a = await switch.place(Caller())
                async with asyncio.timeout(20):
                    await a.done()
                assert a.hangup_cause == "NORMAL_CLEARING"
        assert agent.result is not None
        assert agent.result.ok

    scene()


@virtually
async def test_no_frame_reaches_the_agent_once_the_two_are_connected() -> None:
    frames: list[float] = []
    clock = asyncio.get_running_loop().time

    async def agent(call: Call) -> None:
        call.audio_to(lambda frame: frames.append(clock()))
        await call.say(WELCOME)
        result = await call.transfer("operator", mode="announced", announce=SAID_TO_B, accept=Accept(prompt=""))
        assert result.ok
        async for _ in call.events():
            pass

    async with desk(agent) as virtual:
        operator = Endpoint("answers", presses="1", presses_after_s=1.0)
        async with virtual.switch(record=True, endpoints={"user/1001": operator}) as switch:
            a = await switch.place(Caller())
            await until(virtual, "transfer")
            connected = clock()
            await asyncio.sleep(3.0)
            a.hang_up()
            await a.done()
            assert frames
            assert max(frames) < connected


@virtually
async def test_attended_all_three_talk_before_the_agent_leaves() -> None:
    to_both = tone(8000, 1.0, 1300)
    agent = Transferring(
        mode="attended", accept=Accept(prompt="", silence="accept", within_s=0.2), introduce=None, announce=SAID_TO_B
    )
    heard_by_agent: list[bytes] = []

    async def introduce(call: Call) -> None:
        stop = call.audio_to(heard_by_agent.append)
        await call.say(to_both)
        await asyncio.sleep(0.5)
        stop()

    agent.how["introduce"] = introduce
    caller, other = tone(8000, 12.0, 1100), tone(8000, 12.0, 1700)

    async def a_talks(line: Line) -> None:
        await line.say(caller)
        await line.until_hangup()

    async def b_talks(line: Line) -> None:
        await line.say(other)
        await line.until_hangup()

    endpoints = {"user/1001": Endpoint("answers", script=b_talks)}
    async with desk(agent) as virtual, virtual.switch(record=True, endpoints=endpoints) as switch:
        a = await switch.place(Caller(script=a_talks))
        b = await the_b_leg(switch, a)
        await until(virtual, "transfer")
        assert agent.result == TransferResult("bridged", "SUCCESS", b_leg=b.unique_id)
        conference = b"".join(heard_by_agent)
        rate = 8000
        assert loudness(conference, 1100, rate) > 0.2, "the agent hears A"
        assert loudness(conference, 1700, rate) > 0.2, "and B"
        assert loudness(a.heard, 1300) > 0.02, "A hears the agent"
        assert loudness(b.heard, 1300) > 0.02, "and B does"
        await asyncio.sleep(1.0)
        assert loudness(a.heard[-8000:], 1700) > 0.5, "the two go on without the agent"
        assert len(switch.calls) == 2, "the agent's leg is gone"
        a.hang_up()
        await b.done()
    assert agent.runs == 1


@virtually
async def test_an_attended_transfer_whose_agent_fails_brings_the_caller_out_of_the_conference() -> None:
    async def introduce(call: Call) -> None:
        raise LookupError("nothing to say")

    async def agent(call: Call) -> None:
        await call.say(WELCOME)
        with contextlib.suppress(LookupError):
            accept = Accept(prompt="", silence="accept", within_s=0.2)
            await call.transfer("operator", mode="attended", accept=accept, introduce=introduce)
        await call.say(tone(8000, 0.6, 900))
        await call.hangup()

    endpoints = {"user/1001": Endpoint("answers")}
    async with desk(agent) as virtual, virtual.switch(record=True, endpoints=endpoints) as switch:
        a = await switch.place(Caller())
        b = await the_b_leg(switch, a)
        await a.done()
        await b.done()
        assert loudness(a.heard[-9600:], 900) > 0.5, "the agent has its caller back"


@virtually
async def test_what_can_not_be_said_is_found_before_anybodys_telephone_rings() -> None:
    agent = Transferring(announce="A caller for you.")
    async with desk(agent) as virtual, virtual.switch(record=True, endpoints={}) as switch:
        a = await switch.place(Caller())
        await until(virtual, "agent_failed")
        assert isinstance(agent.error, NotCapable)
        assert list(switch.calls) == [a.unique_id]
        a.hang_up()


def test_levels() -> None:
    assert loudness(pcm.tone(8000, 500, 700, -12.0), 700) > 0.9


def completion(**variables: str) -> Event:
    lines = [f"variable_{name}: ".encode() + quote(value.encode()) for name, value in variables.items()]
    return Event.from_content(b"\n".join((b"Event-Name: CHANNEL_EXECUTE_COMPLETE", *lines, b"", b"")))


@pytest.mark.parametrize("said", ["", "SIP/2.0", "SIP/2.0 ² no", "SIP/2.0 " + "9" * 5000, "x 200 y", "SIP/2.0 \n500"])
def test_what_a_telephone_says_of_a_refer_may_be_anything(said: str) -> None:
    assert referred(completion(sip_refer_reply=said)) == TransferResult("let_go")
    assert referred(completion(sip_refer_reply="SIP/2.0 486 Busy Here\r\n")).outcome == "busy"


@pytest.mark.parametrize("said", ["", "sip:", "sip:²", "sip:" + "9" * 5000, "Q.850:16"])
def test_why_the_other_side_could_not_be_reached_may_be_anything(said: str) -> None:
    event = completion(originate_disposition="USER_BUSY", last_bridge_proto_specific_hangup_cause=said)
    assert failed_bridge(event) == TransferResult("busy", "USER_BUSY")
