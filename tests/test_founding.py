"""The founding tests of the dual mode, under the names they were given: real sockets, every control engine."""

from dataclasses import replace

import pytest
from tests.contract.engines import ENGINES
from tests.support.running import Listening, running

from dueto.call import Call, CallRules
from dueto.call.events import Bridged, ControlJoined, Custom, Dtmf, Held, HungUp, Resumed, Unbridged
from dueto.sim import Caller, Endpoint, Faults, Line

RULES = CallRules()


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def until_hangup(line: Line) -> None:
    await line.until_hangup()


async def test_register_event_handlers(engine: str) -> None:
    """Every event of the founding list is subscribed and reaches the call in order. (Bytes: the contract suite.)"""
    agent = Listening()
    opening = (
        ControlJoined(),
        Custom("mod_audio_stream::connect", '{"status":"connected"}'),
    )  # a race: they may not come

    async def script(line: Line) -> None:
        await line.wait(0.1)
        await line.press("7", ms=160)
        await agent.saw(Dtmf)
        line.hold()
        line.unhold()
        await line.until_hangup()

    async with (
        running(agent, engine=engine) as here,
        here.switch(endpoints={"user/1001": Endpoint(hangs_up_after_s=0.2, answer_after_s=0.0)}) as switch,
    ):
        call = await switch.place(Caller(script=script))
        await agent.saw(Resumed)
        media = here.desk.find(call.unique_id)
        assert media is not None
        assert media.media is not None
        media.media.send_text("told by the server")
        await agent.saw(Custom, where=lambda event: event not in opening)
        await agent.calls[0].execute("bridge", "user/1001")
        await agent.saw(Unbridged)
        call.hang_up()
        await agent.ended.wait()
        await call.done()
    kinds = [type(event) for event in agent.events if event not in opening]
    assert kinds == [Dtmf, Held, Resumed, Custom, Bridged, Unbridged, HungUp]
    assert Custom("mod_audio_stream::json", "told by the server") in agent.events


async def test_correlate_session_success(engine: str) -> None:
    """Both legs are there: they are one call at once, and the agent runs once."""
    agent = Listening()
    async with running(agent, engine=engine) as here, here.switch() as switch:
        call = await switch.place(Caller(number="1001", name="Alice", script=until_hangup))
        await here.until_noted("paired")
        await agent.started.wait()
        assert len(here.desk) == 1
        session = here.desk.find(call.unique_id)
        assert session is not None
        assert session.control is not None
        assert session.media is not None
        assert session.control.unique_id == session.media.request.unique_id == call.unique_id
        assert (agent.calls[0].caller_number, agent.calls[0].caller_name) == ("1001", "Alice")
        call.hang_up()
        await call.done()
        await here.desk.empty()
    assert here.names(call.unique_id).count("paired") == 1
    assert len(agent.calls) == 1


async def test_correlate_session_late(engine: str) -> None:
    """The media leg comes after the warning: it pairs all the same, and what happened before is kept in order."""
    agent = Listening()

    async with (
        running(agent, engine=engine, rules=replace(RULES, warn_after_s=0.2)) as here,
        here.switch(faults=Faults(media_never=True)) as switch,
    ):
        call = await switch.place(Caller(script=None))
        await here.until_noted("control_connected")
        call.channel.press("4", 1280, "RTP")
        call.channel.press("2", 1280, "RTP")
        await here.until_noted("pairing_late")
        assert not agent.started.is_set()
        late = here.switch(control="", dialplan=[("park", "")])
        async with late:
            again = await late.place(Caller(unique_id=call.unique_id, script=until_hangup))
            await agent.started.wait()
            await agent.saw(Dtmf, times=2)
            call.hang_up()
            again.hang_up()
            await agent.ended.wait()
    assert [event.digit for event in agent.events if isinstance(event, Dtmf)] == ["4", "2"]
    names = here.names(call.unique_id)
    assert names.index("pairing_late") < names.index("paired")


async def test_on_hangup_dispatch(engine: str) -> None:
    """The hangup cause arrives typed, once, as the last event."""
    agent = Listening()
    async with running(agent, engine=engine) as here, here.switch() as switch:
        call = await switch.place(Caller(script=until_hangup))
        await agent.started.wait()
        await here.until_noted("paired")
        call.hang_up("USER_BUSY")
        await agent.ended.wait()
        await call.done()
    assert [event for event in agent.events if isinstance(event, HungUp)] == [agent.events[-1]]
    assert agent.events[-1].cause == "USER_BUSY"


async def test_on_dtmf_dispatch(engine: str) -> None:
    """Digit and duration arrive typed: `%23` is #, `*` is bare, 1280 samples at 8 kHz are 160 ms."""
    agent = Listening()

    async def script(line: Line) -> None:
        await line.press("5#*", ms=160)
        await line.until_hangup()

    async with running(agent, engine=engine) as here, here.switch(faults=Faults(first="control")) as switch:
        call = await switch.place(Caller(script=script))
        await agent.saw(Dtmf, times=3)
        call.hang_up()
        await call.done()
    assert [event for event in agent.events if isinstance(event, Dtmf)] == [
        Dtmf("5", 160),
        Dtmf("#", 160),
        Dtmf("*", 160),
    ]


async def echoing(call: Call) -> None:
    call.audio_to(call.write_now)
    async for _ in call.events():
        pass


async def test_dual_mode_full_call(engine: str) -> None:
    """A caller talks, hears the agent, presses a digit and hangs up; nothing is left of the call."""
    agent = Listening()

    async def both(call: Call) -> None:
        call.audio_to(call.write_now)
        await agent(call)

    async def script(line: Line) -> None:
        await line.say(b"\x00\x20\x00\xe0" * 8000)
        await line.hears_speech(5)
        await line.press("1")
        await agent.saw(Dtmf)

    async with running(both, engine=engine) as here, here.switch() as switch:
        call = await switch.place(Caller(script=script))
        await call.done()
        await agent.ended.wait()
        await here.desk.empty()
        await call.released()
        assert call.counters.frames_down > 40
    assert isinstance(agent.events[-1], HungUp)
    assert agent.events[-1].cause == "NORMAL_CLEARING"


@pytest.mark.parametrize("first", ["media"])
async def test_websocket_before_esl(engine: str, first: str) -> None:
    """Media first: the agent starts at once, without a control leg; control joins and is told of."""
    agent = Listening()
    async with (
        running(agent, engine=engine) as here,
        here.switch(faults=Faults(first="media", control_late_s=0.2)) as switch,
    ):
        call = await switch.place(Caller(script=until_hangup))
        await agent.started.wait()
        assert here.desk.find(call.unique_id).control is None  # type: ignore[union-attr]
        await agent.saw(ControlJoined)
        call.hang_up()
        await agent.ended.wait()
        await call.done()
    names = here.names(call.unique_id)
    assert names.index("agent_started") < names.index("control_connected")
    assert here.fields("paired")["order"] == "media_first"


async def test_esl_before_websocket(engine: str) -> None:
    """Control first: the call waits, and its agent starts when the media leg is there."""
    agent = Listening()
    async with (
        running(agent, engine=engine) as here,
        here.switch(faults=Faults(first="control", media_late_s=0.2)) as switch,
    ):
        call = await switch.place(Caller(script=until_hangup))
        await here.until_noted("control_connected")
        assert not agent.started.is_set()
        await agent.started.wait()
        call.hang_up()
        await agent.ended.wait()
        await call.done()
    names = here.names(call.unique_id)
    assert names.index("control_connected") < names.index("media_connected") <= names.index("agent_started")
    assert here.fields("paired")["order"] == "control_first"


@pytest.mark.parametrize(
    ("faults", "witnesses"),
    [
        (Faults(), {"CHANNEL_HANGUP", "linger"}),
        (Faults(lost_events={"CHANNEL_HANGUP"}), {"linger", "CHANNEL_HANGUP_COMPLETE"}),
        (Faults(control_never=True), {"media_close"}),
    ],
    ids=["both legs", "CHANNEL_HANGUP lost", "media only"],
)
async def test_hangup_detection(engine: str, faults: Faults, witnesses: set[str]) -> None:
    """Whoever tells of the hangup first, the agent learns of it once, and both legs are let go."""
    agent = Listening()
    async with running(agent, engine=engine) as here, here.switch(faults=faults, dialplan=[("park", "")]) as switch:
        call = await switch.place(Caller(script=until_hangup))
        await agent.started.wait()
        if not faults.control_never:
            await here.until_noted("paired")
        call.hang_up()
        await agent.ended.wait()
        await call.done()
        await here.desk.empty()
    told = [event for event in agent.events if isinstance(event, HungUp)]
    assert len(told) == 1
    assert told[0].witness in witnesses
