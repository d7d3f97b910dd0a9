"""The dual-leg contract, row by row. Every sleep here is on the virtual clock: no real second passes."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import wraps
from typing import Any

import pytest
from tests.support.virtual import virtual_desk

from dueto.call import Call, CallRules, Destination
from dueto.call.events import (
    Bridged,
    CallEvent,
    ControlJoined,
    ControlLost,
    Dtmf,
    HungUp,
    MediaLost,
    MediaResumed,
    Unbridged,
)
from dueto.errors import CallEnded, Interrupted, NotCapable
from dueto.sim import Caller, Endpoint, Faults, Line, run_virtual
from dueto.wire.esl import Event

RULES = CallRules()
PARK = [("park", "")]
TONE = b"\x00\x20\x00\xe0" * 4000


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on the virtual loop."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(test(*args, **kwargs), start_s=1000.0)

    return run


class Told(list[CallEvent]):
    """An agent that keeps what it was told, and runs `then` once."""

    def __init__(self, then: Callable[[Call], Coroutine[Any, Any, None]] | None = None) -> None:
        super().__init__()
        self.then = then
        self.runs = 0
        self.call: Call | None = None

    async def __call__(self, call: Call) -> None:
        self.runs += 1
        self.call = call
        listening = asyncio.ensure_future(self._listen(call))
        try:
            if self.then is not None:
                await self.then(call)
            else:
                await listening
        finally:
            await asyncio.wait([listening], timeout=5)
            listening.cancel()

    async def _listen(self, call: Call) -> None:
        async for event in call.events():
            self.append(event)

    def kinds(self) -> list[type[CallEvent]]:
        """The events but for the module's own, which race with the subscription."""
        return [type(event) for event in self if type(event).__name__ != "Custom"]


def lasts(seconds: float) -> Callable[[Line], Coroutine[Any, Any, None]]:
    async def script(line: Line) -> None:
        await line.wait(seconds)

    return script


@virtually
async def test_control_alone_waits_warns_and_gives_the_caller_back_to_the_dialplan() -> None:
    agent = Told()
    async with (
        virtual_desk(agent) as here,
        here.switch(faults=Faults(media_never=True), dialplan=[("playback", "silence_stream://500")]) as switch,
    ):
        call = await switch.place(Caller())
        began = asyncio.get_running_loop().time()
        await call.done()
        took = asyncio.get_running_loop().time() - began
    assert agent.runs == 0
    assert call.ended_in == "playback"
    assert call.channel.variables["dueto_result"] == "no_media"
    assert 30 <= took < 32
    names = here.names(call.unique_id)
    assert names.index("pairing_late") < names.index("media_missing") < names.index("returned_to_dialplan")


@virtually
async def test_control_alone_is_hung_up_where_the_rules_say_so() -> None:
    rules = replace(RULES, give_up_after_s=3.0, on_missing_media="hangup")
    async with virtual_desk(Told(), rules=rules) as here, here.switch(faults=Faults(media_never=True)) as switch:
        call = await switch.place(Caller())
        await call.done()
    assert call.hangup_cause == "NORMAL_CLEARING"
    assert call.channel.variables.get("dueto_result") != "no_media"


@virtually
async def test_media_pairs_at_any_time_while_the_channel_lives() -> None:
    agent = Told()
    rules = replace(RULES, give_up_after_s=0.0)
    async with virtual_desk(agent, rules=rules) as here, here.switch(faults=Faults(media_late_s=100.0)) as switch:
        call = await switch.place(Caller(script=lasts(102)))
        await call.done()
    assert agent.runs == 1
    assert here.names(call.unique_id).count("pairing_late") == 1
    assert call.paired


@virtually
async def test_media_after_giving_up_is_refused_and_starts_no_agent() -> None:
    agent = Told()
    rules = replace(RULES, give_up_after_s=3.0)
    async with (
        virtual_desk(agent, rules=rules) as here,
        here.switch(faults=Faults(media_late_s=3.5), dialplan=[("playback", "silence_stream://2000")]) as switch,
    ):
        call = await switch.place(Caller())
        await call.done()
    assert agent.runs == 0
    assert ("media", "call_over") in [
        (fields["leg"], fields["reason"]) for _, name, fields in here.journal if name == "refused"
    ]


@virtually
async def test_while_waiting_the_caller_hears_the_tone_and_then_the_agent() -> None:
    async def speak(call: Call) -> None:
        await call.say(TONE)
        await call.hangup()

    rules = replace(RULES, while_waiting="tone_stream://%(1000,0,440);loops=-1")
    async with (
        virtual_desk(Told(speak), rules=rules) as here,
        here.switch(faults=Faults(media_late_s=2.0), record=True) as switch,
    ):
        call = await switch.place(Caller(script=lasts(30)))
        await call.done()
    names = [(h.name, h.fields.get("Application")) for h in call.events]
    assert ("CHANNEL_EXECUTE", "playback") in names
    assert ("CHANNEL_EXECUTE_COMPLETE", "playback") in names
    assert call.hangup_cause == "NORMAL_CLEARING"


@virtually
async def test_media_first_starts_the_agent_at_once_and_control_joins_later() -> None:
    agent = Told()
    async with virtual_desk(agent) as here, here.switch(faults=Faults(first="media", control_late_s=3.0)) as switch:
        call = await switch.place(Caller(script=lasts(5)))
        await call.done()
    assert agent.kinds() == [ControlJoined, HungUp]
    names = here.names(call.unique_id)
    assert names.index("agent_started") < names.index("control_connected")


@virtually
async def test_media_only_is_a_whole_conversation_and_its_end_is_the_hangup() -> None:
    heard: list[int] = []

    async def speak(call: Call) -> None:
        await call.say(TONE)
        heard.append(1)
        with pytest.raises(NotCapable):
            await call.transfer("sales")

    agent = Told(speak)
    rules = replace(RULES, control_expected=False)
    async with (
        virtual_desk(agent, rules=rules) as here,
        here.switch(faults=Faults(control_never=True), dialplan=PARK) as switch,
    ):
        call = await switch.place(Caller(script=lasts(1.5)))
        await call.done()
    assert heard
    assert call.counters.frames_down >= 50


@virtually
async def test_media_only_an_agent_that_is_done_closes_the_stream() -> None:
    async def speak(call: Call) -> None:
        await call.say(TONE)

    async with (
        virtual_desk(Told(speak)) as here,
        here.switch(faults=Faults(control_never=True), dialplan=[("playback", "silence_stream://20000")]) as switch,
    ):
        call = await switch.place(Caller(script=lasts(15)))
        await here.until_noted("call_ended")
        assert asyncio.get_running_loop().time() < 1010
        call.hang_up()
        await call.done()


@virtually
@pytest.mark.parametrize("lost", [set(), {"CHANNEL_HANGUP"}, {"CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE"}])
async def test_whatever_proof_of_hangup_comes_first_the_agent_is_told_once_with_the_cause_if_any(
    lost: set[str],
) -> None:
    agent = Told()
    async with virtual_desk(agent) as here, here.switch(faults=Faults(lost_events=lost)) as switch:
        call = await switch.place(Caller(script=lasts(2)))
        await call.done()
        await call.released()
    assert agent.kinds().count(HungUp) == 1
    assert isinstance(agent[-1], HungUp)
    assert agent[-1].cause == (None if "CHANNEL_HANGUP_COMPLETE" in lost else "NORMAL_CLEARING")


@virtually
async def test_what_the_channel_says_after_its_hangup_reaches_nobody() -> None:
    agent = Told()
    async with virtual_desk(agent) as here, here.switch() as switch:
        call = await switch.place(Caller(script=lasts(5)))
        await here.until_noted("paired")
        (session,) = here.desk
        assert session.control is not None
        for name, header in (("CHANNEL_HANGUP", ("Hangup-Cause", "USER_BUSY")), ("DTMF", ("DTMF-Digit", "1"))):
            session.control_event(session.control, Event.from_items([("Event-Name", name), header]))
        await call.done()
        await call.released()
    assert agent.kinds() == [ControlJoined, HungUp]
    assert "dtmf" not in here.names()


@virtually
async def test_after_the_hangup_the_socket_is_let_go_long_before_linger_is_over() -> None:
    async with virtual_desk(Told()) as here, here.switch() as switch:
        call = await switch.place(Caller(script=lasts(1)))
        await call.done()
        hung_up_at = call.hung_up_at
        await call.released()
        assert asyncio.get_running_loop().time() - hung_up_at < 2.0


@virtually
async def test_a_lost_stream_is_started_again_and_the_agent_keeps_its_memory() -> None:
    agent = Told()
    rules = replace(RULES, public_url="ws://127.0.0.1:8085")
    async with virtual_desk(agent, rules=rules) as here, here.switch(faults=Faults(media_reset_after_s=1.0)) as switch:
        call = await switch.place(Caller(script=lasts(4)))
        await call.done()
    assert agent.runs == 1
    assert agent.kinds()[:2] == [MediaLost, MediaResumed] or agent.kinds()[:3] == [
        ControlJoined,
        MediaLost,
        MediaResumed,
    ]
    assert agent.kinds().count(MediaLost) >= 1
    assert isinstance(agent[-1], HungUp)


@virtually
async def test_a_stream_that_can_not_be_started_again_gives_the_caller_back_to_the_dialplan() -> None:
    agent = Told()
    async with (
        virtual_desk(agent) as here,
        here.switch(faults=Faults(media_reset_after_s=1.0), dialplan=[("playback", "silence_stream://500")]) as switch,
    ):
        call = await switch.place(Caller(script=lasts(60)))
        await call.done()
    assert call.ended_in == "playback"
    assert call.channel.variables["dueto_result"] == "no_media"
    assert agent.kinds()[-2:] == [MediaLost, HungUp]


@virtually
async def test_a_lost_control_leg_leaves_a_media_only_call() -> None:
    agent = Told()
    async with (
        virtual_desk(agent) as here,
        here.switch(faults=Faults(control_reset_after_s=1.0), dialplan=PARK) as switch,
    ):
        call = await switch.place(Caller(script=lasts(4)))
        await call.done()
    assert ControlLost in agent.kinds()
    assert agent[-1] == HungUp(None, "both_legs_gone")


@virtually
async def test_a_second_control_leg_wins_and_the_first_is_let_go() -> None:
    agent = Told()
    async with virtual_desk(agent) as here, here.switch(faults=Faults(control_twice_after_s=1.0)) as switch:

        async def script(line: Line) -> None:
            await line.wait(2.0)
            await line.press("5")
            await line.wait(0.5)

        call = await switch.place(Caller(script=script))
        await call.done()
    assert agent.runs == 1
    assert [event for event in agent if isinstance(event, Dtmf)] == [Dtmf("5", 160)]
    assert here.names(call.unique_id).count("control_connected") == 2
    assert agent.kinds().count(HungUp) == 1


@virtually
async def test_a_second_stream_is_refused_while_the_first_lives() -> None:
    agent = Told()
    async with virtual_desk(agent) as here, here.switch(faults=Faults(media_twice_after_s=1.0)) as switch:
        call = await switch.place(Caller(script=lasts(3)))
        await call.done()
    assert agent.runs == 1
    assert "second_stream" in [fields.get("reason") for _, _, fields in here.journal]


@virtually
async def test_a_wrong_token_is_refused_and_no_other_call_notices() -> None:
    agent = Told()
    async with (
        virtual_desk(agent) as here,
        here.switch() as switch,
        here.switch(secret="guessed", control="", dialplan=PARK) as thief,
    ):
        call = await switch.place(Caller(script=lasts(2)))
        await here.until_noted("paired")
        stolen = await thief.place(Caller(unique_id=call.unique_id, script=lasts(1)))
        await call.done()
        await stolen.over()
    assert agent.runs == 1
    assert stolen.counters.frames_up == 0
    assert "bad_token" in [fields.get("reason") for _, _, fields in here.journal]


@virtually
async def test_the_gateway_starts_the_stream_where_that_is_its_part() -> None:
    agent = Told()
    rules = replace(RULES, stream_start="gateway", public_url="ws://127.0.0.1:8085", secret="")
    async with virtual_desk(agent, rules=rules) as here, here.switch(start="gateway") as switch:
        call = await switch.place(Caller(script=lasts(2)))
        await call.done()
    assert agent.runs == 1
    assert call.paired


@virtually
async def test_transfer_tells_busy_and_the_caller_is_the_agents_again() -> None:
    results = []

    async def transfer(call: Call) -> None:
        results.append(await call.transfer("sales"))
        await call.say(TONE)
        results.append(await call.transfer("support"))

    agent = Told(transfer)
    destinations = {name: Destination(name, f"user/{name}") for name in ("sales", "support")}
    endpoints = {"user/sales": Endpoint("busy"), "user/support": Endpoint(hangs_up_after_s=2.0)}
    async with virtual_desk(agent, destinations=destinations) as here, here.switch(endpoints=endpoints) as switch:
        call = await switch.place(Caller(script=lasts(60)))
        await call.done()
    assert [(result.outcome, result.hangup_cause, result.sip_code) for result in results] == [
        ("busy", "USER_BUSY", 486),
        ("bridged", "SUCCESS", None),
    ]
    assert call.bridged_to == results[1].b_leg
    assert [kind for kind in agent.kinds() if kind in (Bridged, Unbridged)] == [Bridged, Unbridged]
    assert call.hangup_cause == "NORMAL_CLEARING"


@virtually
async def test_no_frame_reaches_the_agent_while_the_caller_is_bridged() -> None:
    during: list[bytes] = []

    async def transfer(call: Call) -> None:
        bridged = False

        def sink(frame: bytes) -> None:
            if bridged:
                during.append(frame)

        call.audio_to(sink)
        result = await call.transfer("sales")
        bridged = result.ok
        await asyncio.sleep(2)
        bridged = False
        await asyncio.sleep(3)

    destinations = {"sales": Destination("sales", "user/sales")}
    endpoints = {"user/sales": Endpoint(hangs_up_after_s=2.5)}
    agent = Told(transfer)
    async with virtual_desk(agent, destinations=destinations) as here, here.switch(endpoints=endpoints) as switch:
        call = await switch.place(Caller(script=lasts(60)))
        await call.done()
    assert Bridged in agent.kinds()
    assert not during


@virtually
async def test_say_returns_when_heard_and_a_stop_tells_how_much_was() -> None:
    took: list[float] = []
    cut: list[int] = []

    async def speak(call: Call) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await call.say(TONE * 2)  # 2 s at 8 kHz
        took.append(loop.time() - began)
        saying = asyncio.ensure_future(call.say(TONE * 4))
        await asyncio.sleep(1.0)
        await call.stop()
        with pytest.raises(Interrupted) as interrupted:
            await saying
        cut.append(interrupted.value.heard_ms)

    async with virtual_desk(Told(speak)) as here, here.switch() as switch:
        call = await switch.place(Caller(script=lasts(60)))
        await call.done()
    assert took[0] == pytest.approx(2.0, abs=0.1)
    assert 1000 <= cut[0] <= 1250


@virtually
async def test_the_hangup_wakes_whoever_waits_in_a_verb() -> None:
    outcome: list[str] = []

    async def speak(call: Call) -> None:
        try:
            await call.say(TONE * 10)
        except CallEnded:
            outcome.append("ended")
        try:
            await call.transfer("sales")
        except CallEnded:
            outcome.append("ended")

    async with virtual_desk(Told(speak)) as here, here.switch() as switch:
        call = await switch.place(Caller(script=lasts(2)))
        await call.done()
    assert outcome == ["ended", "ended"]


@virtually
async def test_an_agent_that_raises_never_leaves_the_caller_in_silence() -> None:
    async def broken(call: Call) -> None:
        raise RuntimeError("a bug in the agent")

    async with (
        virtual_desk(broken) as here,
        here.switch(dialplan=[("playback", "silence_stream://500")]) as switch,
    ):
        call = await switch.place(Caller(script=lasts(60)))
        await call.done()
    assert call.ended_in == "playback"
    assert call.channel.variables["dueto_result"] == "agent_failed"
    assert "agent_failed" in here.names()


@virtually
async def test_an_agent_that_fails_hands_the_caller_to_the_destination_of_the_rules() -> None:
    async def broken(call: Call) -> None:
        raise RuntimeError("a bug in the agent")

    rules = replace(RULES, when_failed="person")
    destinations = {"person": Destination("person", "user/person")}
    async with (
        virtual_desk(broken, rules=rules, destinations=destinations) as here,
        here.switch(endpoints={"user/person": Endpoint(hangs_up_after_s=1.0)}) as switch,
    ):
        call = await switch.place(Caller(script=lasts(60)))
        await call.done()
    assert call.bridged_to


@virtually
async def test_an_agent_that_reads_no_events_is_too_slow_and_the_hangup_arrives_all_the_same() -> None:
    async def deaf(call: Call) -> None:
        await asyncio.sleep(3600)

    async with (
        virtual_desk(deaf) as here,
        here.switch(dialplan=[("playback", "silence_stream://500")]) as switch,
    ):
        call = await switch.place(Caller(script=lasts(200)))
        await here.until_noted("paired")
        for _ in range(1100):
            call.channel.press("1", 800, "RTP")
        await call.done()
    assert "AgentTooSlow" in str(next(fields for _, name, fields in here.journal if name == "agent_failed"))
    assert call.channel.variables["dueto_result"] == "agent_failed"


@virtually
async def test_an_agent_that_ignores_the_hangup_is_cancelled_after_closing_s() -> None:
    cancelled: list[float] = []

    async def stubborn(call: Call) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(asyncio.get_running_loop().time())
            raise

    async with virtual_desk(stubborn) as here, here.switch() as switch:
        call = await switch.place(Caller(script=lasts(1)))
        await call.done()
        hung_up_at = call.hung_up_at
        await here.desk.empty()
    assert cancelled[0] - hung_up_at == pytest.approx(5.0, abs=0.2)


@virtually
async def test_full_and_draining_tell_the_dialplan_why() -> None:
    agent = Told()
    rules = replace(RULES, max_calls=1)
    after = [("playback", "silence_stream://100")]
    async with virtual_desk(agent, rules=rules) as here, here.switch(dialplan=after) as switch:
        first = await switch.place(Caller(script=lasts(3)))
        await here.until_noted("paired")
        second = await switch.place(Caller(script=lasts(60)))
        await second.done()
        assert second.channel.variables["dueto_result"] == "full"
        assert second.ended_in == "playback"
        await first.done()
        here.desk.draining = True
        third = await switch.place(Caller(script=lasts(60)))
        await third.done()
        assert third.channel.variables["dueto_result"] == "draining"
    assert agent.runs == 1


@virtually
async def test_drain_lets_calls_finish_and_returns_the_rest() -> None:
    agent = Told()
    after = [("playback", "silence_stream://100")]
    async with virtual_desk(agent) as here, here.switch(dialplan=after) as switch:
        short = await switch.place(Caller(script=lasts(3)))
        long = await switch.place(Caller(script=lasts(600)))
        await here.until_noted("paired", times=2)
        await here.desk.drain(10.0)
        await short.done()
        await long.done()
    assert short.ended_in != "playback"
    assert long.ended_in == "playback"
    assert long.channel.variables["dueto_result"] == "draining"
    assert 1010 < asyncio.get_running_loop().time() < 1015


@virtually
async def test_return_to_dialplan_stops_the_stream_first_and_sets_what_it_was_given() -> None:
    async def leave(call: Call) -> None:
        await call.return_to_dialplan(dueto_result="done", mood="good enough")
        assert call.ended

    async with (
        virtual_desk(Told(leave)) as here,
        here.switch(dialplan=[("playback", "silence_stream://500")], record=True) as switch,
    ):
        call = await switch.place(Caller(script=lasts(60)))
        await call.done()
    assert call.channel.variables["mood"] == "good enough"
    names = here.names(call.unique_id)
    assert names.index("media_closed") < names.index("returned_to_dialplan") < names.index("control_closed")
    assert call.ended_in == "playback"


@virtually
async def test_an_agent_that_does_not_even_heed_its_cancellation_keeps_no_call_alive() -> None:
    async def deaf(call: Call) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if asyncio.get_running_loop().time() > 1030:
                    raise

    async with virtual_desk(deaf) as here, here.switch() as switch:
        call = await switch.place(Caller(script=lasts(1)))
        await call.done()
        await here.desk.empty()
        assert "agent_stuck" in here.names()
        assert asyncio.get_running_loop().time() < 1012
        await asyncio.sleep(30)


@virtually
@pytest.mark.parametrize("leg", ["control", "both"])
async def test_a_switch_that_goes_dead_without_a_word_keeps_no_leaving_call_alive(leg: str) -> None:
    async def leave(call: Call) -> None:
        await asyncio.sleep(2.0)

    faults = Faults(half_open=leg, half_open_after_s=1.0)  # type: ignore[arg-type]
    async with virtual_desk(Told(leave)) as here, here.switch(faults=faults) as switch:
        await switch.place(Caller(script=lasts(600)))
        await here.until_noted("call_ended")
        assert asyncio.get_running_loop().time() < 1020


@virtually
async def test_a_hangup_by_the_agent_carries_its_cause_and_returns_when_the_channel_is_gone() -> None:
    gone: list[bool] = []

    async def refuse(call: Call) -> None:
        await call.hangup("CALL_REJECTED")
        gone.append(call.ended)
        await call.hangup()  # gone already is success

    agent = Told(refuse)
    async with virtual_desk(agent) as here, here.switch() as switch:
        call = await switch.place(Caller(script=lasts(60)))
        await call.done()
    assert gone == [True]
    assert call.hangup_cause == "CALL_REJECTED"
    assert agent[-1] == HungUp("CALL_REJECTED", "CHANNEL_HANGUP")
