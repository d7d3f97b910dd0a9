"""What a switch and this gateway do with each other, whichever switch it is. See conftest.py for how to name yours."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.contract.engines import ENGINES
from tests.support.running import Listening
from tests.switch.conftest import scene

from dueto.call import Call, TransferResult
from dueto.call.events import Bridged, Dtmf, Held, HungUp, Resumed, Unbridged
from dueto.call.ports import Accept
from dueto.errors import CallEnded, Interrupted
from dueto.sim import tone

pytestmark = pytest.mark.timeout(60)
HELLO = tone(8000, 0.4, 500)


class Doing:
    """An agent that does one thing with its caller, then listens; its outcome is waited for."""

    def __init__(self, what: Callable[[Call], Awaitable[Any]]) -> None:
        self._what = what
        self.outcome: asyncio.Future[Any] = asyncio.get_event_loop().create_future()
        self.listening = Listening()

    async def __call__(self, call: Call) -> None:
        reading = asyncio.ensure_future(self.listening(call))
        try:
            outcome = await self._what(call)
            if not self.outcome.done():
                self.outcome.set_result(outcome)
        except Exception as error:
            if not self.outcome.done():
                self.outcome.set_exception(error)
        await reading

    async def result(self) -> Any:
        return await asyncio.wait_for(asyncio.shield(self.outcome), 20)


async def test_both_legs_of_a_placed_call_are_paired(listening: Listening) -> None:
    async with scene(listening) as here:
        unique_id = await here.place()
        assert await here.gateway.until_noted("paired")
        await listening.started.wait()
        assert listening.calls[0].unique_id == unique_id


async def test_digits_reach_the_agent_in_order(listening: Listening) -> None:
    async with scene(listening) as here:
        unique_id = await here.place()
        await here.gateway.until_noted("paired")
        await here.link.api("uuid_recv_dtmf", f"{unique_id} 12#")
        await listening.saw(Dtmf, times=3)
        assert "".join(event.digit for event in listening.events if isinstance(event, Dtmf)) == "12#"


async def test_play_is_broken_off() -> None:
    async def play(call: Call) -> int:
        playing = asyncio.ensure_future(call.play("tone_stream://%(20000,0,440)"))
        await call.wait_for(Dtmf, timeout_s=10)
        await call.stop_playing()
        return await playing

    agent = Doing(play)
    async with scene(agent) as here:
        unique_id = await here.place()
        await here.gateway.until_noted("agent_started")
        await here.link.api("uuid_recv_dtmf", f"{unique_id} 1")
        assert 0 <= await agent.result() < 15_000


async def test_what_the_agent_says_is_heard_or_interrupted() -> None:
    async def say(call: Call) -> int:
        await call.say(HELLO)
        saying = asyncio.ensure_future(call.say(tone(8000, 20.0, 500)))
        await call.wait_for(Dtmf, timeout_s=10)
        await call.stop()
        with pytest.raises(Interrupted) as cut:
            await saying
        return cut.value.heard_ms

    agent = Doing(say)
    async with scene(agent) as here:
        unique_id = await here.place()
        await here.gateway.until_noted("said")
        await here.link.api("uuid_recv_dtmf", f"{unique_id} 1")
        assert 0 <= await agent.result() < 15_000


async def test_a_bridge_out_and_back() -> None:
    agent = Doing(lambda call: call.transfer("answers", timeout_s=10))
    async with scene(agent) as here:
        unique_id = await here.place()
        result: TransferResult = await agent.result()
        assert result.ok
        bridged = await agent.listening.saw(Bridged)
        await here.link.api("uuid_kill", bridged.other_id)
        await agent.listening.saw(Unbridged)
        assert await here.link.exists(unique_id)


@pytest.mark.parametrize("mode", ["blind", "announced"])
@pytest.mark.parametrize(("target", "outcome"), [("busy", "busy"), ("rings", "no_answer")])
async def test_who_is_not_reached_leaves_the_caller_with_the_agent(mode: Any, target: str, outcome: str) -> None:
    async def transfer(call: Call) -> TransferResult:
        result = await call.transfer(target, mode=mode, announce=HELLO, accept=Accept(prompt=""), timeout_s=2)
        await call.say(HELLO)
        return result

    agent = Doing(transfer)
    async with scene(agent) as here:
        unique_id = await here.place()
        result: TransferResult = await agent.result()
        assert result.outcome == outcome
        assert await here.link.exists(unique_id)


async def test_hold_and_unhold() -> None:
    async def hold(call: Call) -> None:
        await call.hold()
        await call.unhold()

    agent = Doing(hold)
    async with scene(agent) as here:
        await here.place()
        assert await agent.listening.saw(Held) == Held("us")
        await agent.listening.saw(Resumed)


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize(("digit", "outcome"), [("1", "bridged"), ("2", "declined")])
async def test_an_announced_transfer_is_accepted_or_declined_by_digit(digit: str, outcome: str, engine: str) -> None:
    agent = Doing(
        lambda call: call.transfer(
            "answers", mode="announced", announce=HELLO, accept=Accept(prompt=""), ringback="silence", timeout_s=10
        )
    )
    async with scene(agent, engine=engine) as here:
        unique_id = await here.place()
        b_leg = str((await here.gateway.until_noted("announcing"))["b_leg"])
        await here.link.api("uuid_recv_dtmf", f"{b_leg} {digit}")
        result: TransferResult = await agent.result()
        assert (result.outcome, result.b_leg) == (outcome, b_leg)
        if outcome == "bridged":
            assert (await agent.listening.saw(Bridged)).other_id == b_leg
        assert await here.link.exists(unique_id)


async def test_an_attended_transfer_ends_with_the_two_together() -> None:
    accept = Accept(prompt="", silence="accept", within_s=0.1)
    agent = Doing(
        lambda call: call.transfer(
            "answers", mode="attended", accept=accept, introduce=lambda call: call.say(HELLO), timeout_s=10
        )
    )
    async with scene(agent) as here:
        a_leg = await here.place()
        result: TransferResult = await agent.result()
        assert result.ok
        assert "conference" in here.gateway.names()
        assert (await agent.listening.saw(Bridged)).other_id == result.b_leg
        for unique_id in (a_leg, result.b_leg):
            assert await here.link.exists(unique_id)


async def test_the_callers_hangup_during_an_announcement_ends_the_other_side() -> None:
    accept = Accept(prompt="")
    agent = Doing(
        lambda call: call.transfer("answers", mode="announced", announce=tone(8000, 20.0, 700), accept=accept)
    )
    async with scene(agent) as here:
        unique_id = await here.place()
        b_leg = str((await here.gateway.until_noted("announcing"))["b_leg"])
        b_gone = here.gone(b_leg)
        await here.link.api("uuid_kill", unique_id)
        await b_gone
        with pytest.raises(CallEnded):
            await agent.result()


async def test_the_switchs_hangup_reaches_the_agent(listening: Listening) -> None:
    async with scene(listening) as here:
        unique_id = await here.place()
        await here.gateway.until_noted("paired")
        await here.link.api("uuid_kill", f"{unique_id} USER_BUSY")
        hung_up = await listening.saw(HungUp)
        assert hung_up == HungUp("USER_BUSY", hung_up.witness)


async def test_the_agents_hangup_reaches_the_switch() -> None:
    async def hang_up(call: Call) -> None:
        await call.wait_for(Dtmf, timeout_s=10)
        await call.hangup("CALL_REJECTED")

    agent = Doing(hang_up)
    async with scene(agent) as here:
        unique_id = await here.place()
        await here.gateway.until_noted("agent_started")
        gone = here.gone(unique_id)
        await here.link.api("uuid_recv_dtmf", f"{unique_id} 1")
        assert (await gone).get("Hangup-Cause") == "CALL_REJECTED"
        await agent.result()


async def test_what_fails_leaves_no_channel_behind() -> None:
    """The scene itself raises where a channel it caused is left, and here it does not."""
    accept = Accept(prompt="")
    agent = Doing(
        lambda call: call.transfer("answers", mode="announced", announce=tone(8000, 20.0, 700), accept=accept)
    )

    async def fails_in_mid_call() -> None:
        async with scene(agent) as here:
            await here.place()
            await here.gateway.until_noted("announcing")
            assert len(await here.channels()) >= 2
            raise LookupError

    with pytest.raises(LookupError):
        await fails_in_mid_call()
    with contextlib.suppress(CallEnded):
        await agent.result()


async def test_a_gateway_that_dies_leaves_the_call_to_its_dialplan(listening: Listening) -> None:
    """Nothing follows `socket` in these calls, so the switch ends them; a printed dialplan goes on to its fall-back."""
    async with scene(listening) as here:
        unique_id = await here.place()
        await here.gateway.until_noted("paired")
        gone = here.gone(unique_id)
        here.link._on_up.clear()
        here.gateway.desk.house.whereabouts.control = ""  # a dead gateway asks for nothing back
        for session in here.gateway.desk:
            session.abort()
        await gone
