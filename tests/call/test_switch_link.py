"""What the switch's own event socket is for: lost control legs, calls of an earlier life, and calls we place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.call.test_transfers import DESTINATIONS, RULES, SAID_TO_B, WELCOME, loudness, virtually
from tests.support.virtual import Virtual, virtual_desk

from dueto.call import Call
from dueto.call.events import CallEvent, ControlJoined, ControlLost, Dtmf, Held, HungUp, Resumed
from dueto.call.house import Whereabouts
from dueto.call.placing import mint, place
from dueto.call.ports import Accept, TransferResult
from dueto.errors import LegClosed
from dueto.legs.esl_inbound import InboundLink
from dueto.sim import Caller, Endpoint, Faults, Line, Switch, pipe, tone
from dueto.sim.inbound import InboundConnection

ADDRESS = "127.0.0.1:8022"


class Listening:
    """An agent that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[CallEvent] = []
        self.runs = 0

    async def __call__(self, call: Call) -> None:
        self.runs += 1
        await call.say(WELCOME)
        async for event in call.events():
            self.events.append(event)

    def kinds(self) -> list[type]:
        return [type(event) for event in self.events]


class Bent(InboundLink):
    """A link whose switch is named after the desk was built."""

    switch: Switch

    def __init__(self, **more: Any) -> None:
        super().__init__("switch", 8021, "ClueCon", connect=self._to, **more)

    async def _to(self, protocol: asyncio.Protocol) -> None:
        end: InboundConnection = self.switch.inbound()
        pipe(protocol, end)


@contextlib.asynccontextmanager
async def linked_desk(agent: Any, *, link: Bent | None = None, **more: Any) -> AsyncIterator[tuple[Virtual, Bent]]:
    link = link or Bent()
    given = {"rules": RULES, "destinations": DESTINATIONS, "whereabouts": Whereabouts(ADDRESS), "switch": link} | more
    async with virtual_desk(agent, **given) as virtual:
        try:
            yield virtual, link
        finally:
            await link.aclose()


async def up(link: Bent, switch: Switch) -> None:
    link.switch = switch
    link.start()
    async with asyncio.timeout(10):
        await link.wait_up()


@virtually
async def test_a_lost_control_leg_is_had_again_over_the_inbound_socket() -> None:
    agent = Listening()
    async with linked_desk(agent) as (virtual, link):
        dialplan = [("sleep", "60000")]  # the channel lives on, and nothing says that it is no longer ours
        async with virtual.switch(faults=Faults(control_reset_after_s=3.0), dialplan=dialplan) as switch:
            await up(link, switch)
            a = await switch.place(Caller())
            await asyncio.sleep(4.0)
            assert agent.kinds()[-2:] == [ControlLost, ControlJoined]
            assert virtual.desk.find(a.unique_id) is not None
            a.hang_up()
            await a.done()
    assert agent.kinds()[-1] is HungUp
    assert agent.runs == 1


@virtually
async def test_a_channel_that_went_with_its_control_leg_is_known_to_be_gone() -> None:
    agent = Listening()
    async with linked_desk(agent) as (virtual, link):
        async with virtual.switch(faults=Faults(half_open="both", half_open_after_s=2.0)) as switch:
            await up(link, switch)
            a = await switch.place(Caller())
            await asyncio.sleep(3.0)
            a.hang_up()
            await a.over()
            session = virtual.desk.find(a.unique_id)
            assert session is not None
            assert session.control is not None
            session.control.abort()  # the kernel's keep-alive, in the end
            await asyncio.sleep(1.0)
            assert agent.kinds()[-1] is HungUp


@virtually
async def test_a_call_in_the_dialplans_fall_back_is_left_alone() -> None:
    agent = Listening()
    async with linked_desk(agent) as (virtual, link):
        fallback = [("set", "dueto_state=fallback"), ("playback", "tone_stream://%(60000,0,440)")]
        async with virtual.switch(faults=Faults(control_reset_after_s=2.0), dialplan=fallback, record=True) as switch:
            await up(link, switch)
            a = await switch.place(Caller())
            await asyncio.sleep(4.0)
            assert virtual.desk.find(a.unique_id) is None, "the agent has let go"
            assert not a.hangup_cause
            assert loudness(a.heard[-8000:], 440) > 0.9, "the caller hears the fall-back"
            a.hang_up()
            await a.done()


@virtually
async def test_a_gateway_that_comes_back_takes_its_calls_back_and_only_those() -> None:
    first, second = Listening(), Listening()
    async with contextlib.AsyncExitStack() as stack:
        virtual, link = await stack.enter_async_context(linked_desk(first))
        switch = await stack.enter_async_context(virtual.switch(dialplan=[("sleep", "600000")]))
        await up(link, switch)
        ours = [await switch.place(Caller(f"200{number}")) for number in range(3)]
        fallen = await switch.place(Caller("2009"))
        foreign = await switch.place(Caller("3000", destination="elsewhere"))
        await asyncio.sleep(2.0)
        assert first.runs == 5
        foreign.channel.set_variable("dueto_owner", "10.0.0.9:8022")
        fallen.channel.set_variable("dueto_state", "fallback")
        await link.aclose()
        for session in virtual.desk:  # the gateway dies: both connections of every call break off
            session.abort()
            assert session.media is not None
        again, new_link = await stack.enter_async_context(linked_desk(second))
        virtual.doors._control, virtual.doors._media = again.doors._control, again.doors._media  # who listens now
        await asyncio.sleep(1.0)
        new_link.on_up(again.desk.switch_up)
        await up(new_link, switch)
        await asyncio.sleep(5.0)
        assert sorted(session.unique_id for session in again.desk) == sorted(call.unique_id for call in ours)
        assert second.runs == 3
        for call in (*ours, fallen, foreign):
            call.hang_up()
        for call in (*ours, fallen, foreign):
            await call.done()


@pytest.mark.parametrize(
    ("endpoint", "outcome"),
    [
        (Endpoint("busy"), "busy"),
        (Endpoint("no_answer"), "no_answer"),
        (Endpoint("rejects"), "rejected"),
        (Endpoint("unreachable"), "unreachable"),
    ],
)
def test_a_placed_call_that_is_not_answered_says_why(endpoint: Endpoint, outcome: str) -> None:
    @virtually
    async def scene() -> None:
        agent = Listening()
        async with linked_desk(agent) as (virtual, link):
            async with virtual.switch(endpoints={"user/1": endpoint}) as switch:
                await up(link, switch)
                dialled = await dial(virtual, link, agent, timeout_s=4.0)
                assert dialled.outcome == outcome
                assert dialled.call is None
                assert not switch.calls or all(call.hangup_cause for call in switch.calls.values())
        assert agent.runs == 0

    scene()


async def dial(virtual: Virtual, link: Bent, agent: Any, **more: Any) -> Any:
    async def job(command: str, argument: str, timeout_s: float) -> str:
        return await link.job(command, argument, timeout_s=timeout_s)

    given = {"unique_id": mint(), "variables": {}, "timeout_s": 20.0} | more
    return await place(virtual.desk, virtual.desk.house, job, "user/1", agent, **given)


@virtually
async def test_a_placed_call_that_is_answered_is_an_ordinary_call() -> None:
    agent = Listening()

    async def called(line: Line) -> None:
        await line.hears_speech()
        await line.press("7")
        await line.wait(1.0)

    async with linked_desk(agent) as (virtual, link):
        endpoints = {"user/1": Endpoint("answers", script=called)}
        async with virtual.switch(endpoints=endpoints, record=True) as switch:
            await up(link, switch)
            dialled = await dial(virtual, link, agent)
            assert dialled.ok
            b = switch.calls[dialled.unique_id]
            await b.done()
            assert loudness(b.heard, 500) > 0.3
    assert agent.runs == 1
    assert agent.kinds()[-1] is HungUp


@pytest.mark.parametrize(
    ("says", "answered_by"),
    [(tone(8000, 0.5, 300, 470, 910), "person"), (tone(8000, 5.0, 300, 470, 910), "machine"), (b"", "unknown")],
)
def test_person_and_machine_are_told_apart_before_the_agent_begins(says: bytes, answered_by: str) -> None:
    @virtually
    async def scene() -> None:
        async with linked_desk(Listening()) as (virtual, link):
            endpoints = {"user/1": Endpoint("answers", says=says, hangs_up_after_s=8.0)}
            async with virtual.switch(endpoints=endpoints) as switch:
                await up(link, switch)
                dialled = await dial(virtual, link, Listening(), detect_s=4.0)
                assert dialled.answered_by == answered_by

    scene()


@virtually
async def test_placing_a_call_while_the_link_is_down_is_an_error_and_leaves_nothing() -> None:
    agent = Listening()
    async with linked_desk(agent) as (virtual, link), virtual.switch() as switch:
        link.switch = switch
        with pytest.raises(LegClosed):
            await dial(virtual, link, agent)


@virtually
async def test_a_cancelled_dial_kills_the_ringing_channel() -> None:
    agent = Listening()
    async with linked_desk(agent) as (virtual, link):
        async with virtual.switch(endpoints={"user/1": Endpoint("no_answer")}) as switch:
            await up(link, switch)
            dialling = asyncio.ensure_future(dial(virtual, link, agent))
            await asyncio.sleep(1.0)
            (b,) = switch.calls.values()
            dialling.cancel()
            await asyncio.gather(dialling, return_exceptions=True)
            await b.done()
            assert b.hangup_cause == "ORIGINATOR_CANCEL"


@virtually
async def test_a_transfer_goes_over_the_link_and_learns_the_sip_status() -> None:
    results: list[TransferResult] = []

    async def agent(call: Call) -> None:
        await call.say(WELCOME)
        results.append(await call.transfer("operator", mode="announced", announce=SAID_TO_B, accept=Accept(prompt="")))
        await call.hangup()

    async with linked_desk(agent) as (virtual, link):
        async with virtual.switch(endpoints={"user/1001": Endpoint("busy")}) as switch:
            await up(link, switch)
            a = await switch.place(Caller())
            await a.done()
    assert [(result.outcome, result.sip_code) for result in results] == [("busy", 486)]


@virtually
async def test_a_b_leg_is_not_taken_back_by_a_gateway_that_comes_back() -> None:
    async def agent(call: Call) -> None:
        await call.transfer("operator", mode="announced", announce=tone(8000, 30.0, 700), accept=Accept(prompt=""))

    async with linked_desk(agent) as (virtual, link):
        async with virtual.switch(endpoints={"user/1001": Endpoint("answers")}) as switch:
            await up(link, switch)
            a = await switch.place(Caller())
            await asyncio.sleep(3.0)
            (b,) = [call for call in switch.calls.values() if call is not a]
            assert a.channel.variables["dueto_owner"] == ADDRESS
            assert "dueto_owner" not in b.channel.variables
            a.hang_up()
            await a.done()


@virtually
async def test_a_call_without_a_control_leg_is_told_of_over_the_inbound_socket() -> None:
    async def agent(call: Call) -> None:
        await call.say(WELCOME)
        await call.hold("silence")
        await call.unhold()
        await listening(call)

    async def script(line: Line) -> None:
        await line.wait(2.0)
        await line.press("7")
        await line.wait(0.5)
        line.hold()
        await line.wait(1.0)
        line.unhold()
        await line.wait(1.0)

    listening = Listening()
    rules = replace(RULES, control_expected=False)
    async with linked_desk(agent, rules=rules) as (virtual, link):
        async with virtual.switch(faults=Faults(control_never=True)) as switch:
            await up(link, switch)
            a = await switch.place(Caller(script=script))
            await a.done()
            await asyncio.sleep(1.0)
            assert not link._watchers, "nothing of it is kept"
    told = listening.events
    assert told[:2] == [Held("us"), Resumed()]
    assert [type(event) for event in told[2:]] == [Dtmf, Held, Resumed, HungUp]
    assert told[3] == Held("caller")


@virtually
async def test_what_both_sockets_tell_counts_once() -> None:
    agent = Listening()

    async def script(line: Line) -> None:
        for digit in "12345":
            await line.wait(1.0)
            await line.press(digit)
        await line.until_hangup()

    async with linked_desk(agent) as (virtual, link):
        # the control leg is lost just before the third digit, and had again after it
        async with virtual.switch(faults=Faults(control_reset_after_s=3.4), dialplan=[("sleep", "60000")]) as switch:
            await up(link, switch)
            a = await switch.place(Caller(script=script))
            await asyncio.sleep(6.5)
            a.hang_up()
            await a.done()
    digits = [event.digit for event in agent.events if isinstance(event, Dtmf)]
    assert digits == ["1", "2", "3", "4", "5"], "none twice, and none lost with the leg"
    kinds = agent.kinds()
    assert kinds[kinds.index(ControlLost) :][:3] in (
        [ControlLost, Dtmf, ControlJoined],
        [ControlLost, ControlJoined, Dtmf],
    )


@virtually
async def test_no_frame_reaches_an_agent_without_a_control_leg_once_somebody_else_bridges_its_caller() -> None:
    frames: list[float] = []
    clock = asyncio.get_running_loop().time

    async def agent(call: Call) -> None:
        call.audio_to(lambda frame: frames.append(clock()))
        async for _ in call.events():
            pass

    async with linked_desk(agent, rules=replace(RULES, control_expected=False)) as (virtual, link):
        async with virtual.switch(faults=Faults(control_never=True)) as switch:
            await up(link, switch)
            a, b = await switch.place(Caller("1001")), await switch.place(Caller("1002"))
            await asyncio.sleep(1.0)
            assert virtual.desk.find(a.unique_id) is not None
            await link.api("uuid_bridge", f"{a.unique_id} {b.unique_id}")
            await asyncio.sleep(0.2)
            bridged = clock()
            await asyncio.sleep(2.0)
            assert frames
            assert max(frames) < bridged
            a.hang_up()
            await a.done()
            b.hang_up()
            await b.done()


@virtually
async def test_a_call_that_is_being_placed_holds_up_no_command_of_another() -> None:
    """Nor a hangup: an `api originate` would hold both back for as long as it rings."""
    agent = Listening()
    clock = asyncio.get_running_loop().time
    async with linked_desk(agent) as (virtual, link):
        async with virtual.switch(endpoints={"user/1": Endpoint("no_answer")}) as switch:
            await up(link, switch)
            a = await switch.place(Caller())
            dialling = asyncio.ensure_future(dial(virtual, link, agent, timeout_s=20.0))
            await asyncio.sleep(1.0)
            asked_at = clock()
            assert await link.exists(a.unique_id)
            gone = asyncio.Event()
            link.watch(a.unique_id, lambda event: gone.set())
            a.hang_up()
            await gone.wait()
            assert clock() - asked_at < 0.5
            assert not dialling.done()
            assert (await dialling).outcome == "no_answer"
