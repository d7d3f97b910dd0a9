"""The verbs of a call on every engine, answered with the bytes of a real switch; and the hangup while one waits."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.call.doing import VERBS, Doing, outcome_of
from tests.contract.engines import ENGINES
from tests.support.running import running
from tests.support.switch_peer import CONNECT_ANSWER, RECORDED_ID, SwitchPeer, recorded_blocks, recorded_events
from tests.support.virtual import MediaTwin

from dueto.call import Call, CallRules, Destination, TransferResult
from dueto.call.events import Held, HungUp, Resumed
from dueto.call.gather import Gathered
from dueto.call.house import Whereabouts
from dueto.errors import CallEnded, CommandRefused, Dropped, NotCapable
from dueto.sim import MediaConnection, MediaListener
from dueto.wire.esl.switch_end import CommandBlock
from dueto.wire.media import AUDIO_STREAM_BINARY, StreamRequest

HANGUP = ("CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE")
DESTINATIONS = {
    "operator": Destination("operator", "user/1001"),
    "away": Destination("away", "2000 XML default", via="transfer"),
}


class _Module(MediaListener):
    """The audio module's end of the stream: takes everything, says nothing."""

    def on_open(self, connection: MediaConnection) -> None: ...
    def on_binary(self, data: bytes) -> None: ...
    def on_text(self, text: str) -> None: ...
    def on_close(self, code: int, reason: str) -> None: ...


@dataclass
class Stage:
    """A call whose agent does one thing, and the switch that answers it."""

    agent: Doing
    switch: SwitchPeer

    async def asked(self, what: str) -> CommandBlock:
        """Answer as a friendly switch until `what` is asked: an application, or the beginning of a command."""
        while True:
            command = await self.switch.command()
            if command.headers.get("execute-app-name") == what or command.line.startswith(what):
                return command
            self.switch.answer(command)

    async def outcome(self) -> Any:
        """What the verb came to; what it raised is raised. Commands are answered meanwhile."""
        answering = asyncio.ensure_future(self.asked("nothing, ever"))
        try:
            async with asyncio.timeout(10):
                await self.agent.done.wait()
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        if self.agent.error is not None:
            raise self.agent.error
        return self.agent.result

    def plays(self, folder: str, application: str, command: CommandBlock, *, at: int = 0, ending: bool = True) -> None:
        """Say what the recorded switch said of an application: what came between its EXECUTE and EXECUTE_COMPLETE.

        `at`: of which run of it, counted from 0; without `ending`: up to the end, and not that.
        """
        self.switch.answer(command)
        own = command.headers["event-uuid"].encode()
        runs: list[list[bytes]] = []
        running = b""
        for block in recorded_blocks(folder):
            uuid = re.search(rb"\nApplication-UUID: (\S+)", block)
            begins = b"\nEvent-Name: CHANNEL_EXECUTE\n" in block and f"\nApplication: {application}\n".encode() in block
            if begins and not running:
                assert uuid is not None
                running = uuid[1]
                runs.append([])
            if running:
                runs[-1].append(_named(block, running, own))
            if running and uuid is not None and uuid[1] == running and b"EXECUTE_COMPLETE" in block:
                running = b""
        blocks = [block for block in runs[at] if b"text/event-plain" in block]
        self.switch.send(*(blocks if ending else blocks[:-1]))

    def hangs_up(self, folder: str = "01-normal-linger", *names: str) -> None:
        """Say what the recorded switch said of the hangup."""
        for name in names or HANGUP:
            self.switch.send(recorded_events(folder, name)[-1])


def _named(block: bytes, then: bytes, now: bytes) -> bytes:
    """The block with another Application-UUID, and its length counted anew."""
    head, _, body = block.partition(b"\n\n")
    body = body.replace(b"Application-UUID: " + then, b"Application-UUID: " + now)
    return re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + b"\n\n" + body


@contextlib.asynccontextmanager
async def on_stage(
    engine: str, what: Callable[[Call], Awaitable[Any]], *, answer: bytes = CONNECT_ANSWER
) -> AsyncIterator[Stage]:
    agent = Doing(what)
    rules = CallRules(hangup_grace_s=2.0, rate_hz=8000, public_url="ws://127.0.0.1:1")
    house = {"destinations": DESTINATIONS, "whereabouts": Whereabouts("127.0.0.1:1")}
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(agent, engine=engine, rules=rules, **house))  # type: ignore[arg-type]
        switch = await SwitchPeer.dial(gateway.control_port)
        stage = Stage(agent, switch)
        try:
            await switch.open(answer)
            await gateway.until_noted("control_connected")
            request = StreamRequest(RECORDED_ID, "", "1001", 8000, "mono", "")
            gateway.desk.media_came(MediaTwin(request, AUDIO_STREAM_BINARY, _Module()))
            yield stage
        finally:
            answering = asyncio.ensure_future(stage.asked("nothing, ever"))  # the gateway lets go politely
            await stack.aclose()
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            await switch.aclose()


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- what the switch did


@pytest.mark.parametrize("verb", ["ring_ready", "pre_answer", "answer"])
async def test_answering_as_recorded(engine: str, verb: str) -> None:
    async with on_stage(engine, lambda call: getattr(call, verb)()) as stage:
        stage.plays("16a-socket-before-answer", verb, await stage.asked(verb))
        assert await stage.outcome() is None


async def test_answering_an_answered_call_as_recorded(engine: str) -> None:
    async with on_stage(engine, lambda call: call.answer()) as stage:
        stage.plays("16a-socket-before-answer", "answer", await stage.asked("answer"), at=1)
        assert await stage.outcome() is None


async def test_an_answer_that_left_the_channel_ringing_is_refused(engine: str) -> None:
    async with on_stage(engine, lambda call: call.answer()) as stage:
        stage.plays("16a-socket-before-answer", "ring_ready", await stage.asked("answer"))
        with pytest.raises(CommandRefused, match="ringing"):
            await stage.outcome()


async def test_a_playback_as_recorded(engine: str) -> None:
    async with on_stage(engine, lambda call: call.play("tone_stream://%(500,0,440)")) as stage:
        stage.plays("04-execute-playback-break", "playback", await stage.asked("playback"))
        played_ms = await stage.outcome()
        end = recorded_events("04-execute-playback-break", "CHANNEL_EXECUTE_COMPLETE")[0]
        assert f"variable_playback_ms: {played_ms}\n".encode() in end


async def test_a_missing_file_as_recorded(engine: str) -> None:
    async with on_stage(engine, lambda call: call.play("/no/such.wav")) as stage:
        stage.plays("04-execute-playback-break", "playback", await stage.asked("playback"), at=3)
        with pytest.raises(CommandRefused, match="FILE NOT FOUND"):
            await stage.outcome()


async def test_an_application_that_does_not_exist_ends_the_call_as_recorded(engine: str) -> None:
    async with on_stage(engine, lambda call: call.execute("nosuchapp")) as stage:
        stage.switch.answer(await stage.asked("nosuchapp"))
        stage.hangs_up("04-execute-playback-break")
        with pytest.raises(CallEnded):
            await stage.outcome()


async def test_what_a_break_drops_is_told_as_dropped(engine: str) -> None:
    """As in recording 04c: `uuid_break all` ends what runs, and no event tells of what waited."""

    async def two(call: Call) -> list[Any]:
        first, second = (asyncio.ensure_future(call.play("tone_stream://%(9000,0,440)")) for _ in range(2))
        await call.wait_for(Held, timeout_s=10)  # the test's sign that both are with the switch
        await call.stop_playing()
        return await asyncio.gather(first, second, return_exceptions=True)

    async with on_stage(engine, two) as stage:
        running = await stage.asked("playback")
        stage.switch.answer(running)
        stage.switch.send(stage.switch.started(running))
        stage.switch.answer(await stage.asked("playback"))
        stage.switch.send(recorded_events("07-hold-unhold", "CHANNEL_HOLD")[0])
        stage.switch.answer(await stage.asked("api uuid_break"))
        stage.switch.send(stage.switch.completed(running, "FILE PLAYED"))
        first, second = await stage.outcome()
        assert first == 0
        assert isinstance(second, Dropped)


@pytest.mark.parametrize(
    ("folder", "outcome", "cause", "sip_code"),
    [
        ("06a-bridge-busy", "busy", "USER_BUSY", 486),
        ("06b-bridge-noanswer", "no_answer", "NO_ANSWER", None),
        ("06d-bridge-unreachable", "unreachable", "NORMAL_TEMPORARY_FAILURE", 503),
        ("06e-bridge-busy-loopback", "busy", "USER_BUSY", None),
        ("06g-bridge-ringing-break", "cancelled", "ORIGINATOR_CANCEL", None),
    ],
)
async def test_a_bridge_that_came_to_nothing_as_recorded(
    engine: str, folder: str, outcome: str, cause: str, sip_code: int | None
) -> None:
    async with on_stage(engine, lambda call: call.transfer("operator")) as stage:
        stage.plays(folder, "bridge", await stage.asked("bridge"))
        result = await stage.outcome()
        assert result == TransferResult(outcome, cause, sip_code)  # type: ignore[arg-type]
        assert not result.ok


async def test_a_caller_who_gives_up_while_it_rings_as_recorded(engine: str) -> None:
    async with on_stage(engine, lambda call: call.transfer("operator")) as stage:
        stage.switch.answer(await stage.asked("bridge"))
        stage.switch.send(stage.switch.lingers())  # in 06f it came 20 ms before CHANNEL_HANGUP
        stage.hangs_up("06f-bridge-noanswer-caller-gives-up")
        with pytest.raises(CallEnded):
            await stage.outcome()


async def test_a_bridge_that_ends_the_call_as_recorded(engine: str) -> None:
    """06c: where `continue_on_fail` did not hold, CHANNEL_HANGUP comes before the end of the bridge."""
    async with on_stage(engine, lambda call: call.transfer("operator")) as stage:
        stage.plays("06c-bridge-busy-default-continue-on-fail", "bridge", await stage.asked("bridge"))
        stage.hangs_up("06c-bridge-busy-default-continue-on-fail", "CHANNEL_HANGUP_COMPLETE")
        with pytest.raises(CallEnded):
            await stage.outcome()


async def test_hold_and_its_end_as_recorded(engine: str) -> None:
    async def hold(call: Call) -> None:
        await call.hold("silence")
        await call.unhold()

    async with on_stage(engine, hold) as stage:
        held = recorded_events("07-hold-unhold", "CHANNEL_HOLD")
        resumed = recorded_events("07-hold-unhold", "CHANNEL_UNHOLD")
        for event in (held[0], resumed[0]):
            await stage.asked("api uuid_hold")
            stage.switch.api_response("+OK Success\n")
            stage.switch.send(event)
        assert await stage.outcome() is None
        stage.switch.send(held[1], resumed[1])  # those of the caller's own re-INVITE
        stage.hangs_up()
        async with asyncio.timeout(10):
            await stage.agent.over.wait()
        assert stage.agent.events[:-1] == [Held("us"), Resumed(), Held("caller"), Resumed()]


async def test_digits_as_recorded(engine: str) -> None:
    async with on_stage(engine, lambda call: call.gather(max_digits=8, first_timeout_s=10)) as stage:
        await stage.agent.began.wait()
        stage.switch.send(*recorded_events("03a-dtmf-rfc2833-sipp", "DTMF"))
        assert await stage.outcome() == Gathered("123", "terminator", "#")


async def test_a_transfer_away_as_recorded(engine: str) -> None:
    async with on_stage(engine, lambda call: call.transfer("away")) as stage:
        await stage.asked("api uuid_transfer")
        stage.switch.api_response("+OK\n")
        stage.switch.send(*recorded_events("08a-transfer-away", "CHANNEL_UNPARK"))
        assert (await stage.outcome()).outcome == "let_go"


async def test_a_hangup_of_ours_as_recorded(engine: str) -> None:
    async with on_stage(engine, lambda call: call.hangup("USER_BUSY")) as stage:
        command = await stage.asked("api uuid_kill")
        assert command.line == f"api uuid_kill {RECORDED_ID} USER_BUSY"
        stage.switch.api_response("+OK\n")
        stage.hangs_up()
        assert await stage.outcome() is None


async def test_a_hangup_of_what_is_gone_already_is_success(engine: str) -> None:
    async with on_stage(engine, lambda call: call.hangup()) as stage:
        await stage.asked("api uuid_kill")
        stage.switch.api_response("-ERR No such channel!\n")
        stage.hangs_up()
        assert await stage.outcome() is None


async def test_a_command_refused_because_the_channel_is_gone_says_that_the_call_is_over(engine: str) -> None:
    async with on_stage(engine, lambda call: call.send_dtmf("1")) as stage:
        await stage.asked("api uuid_send_dtmf")
        stage.switch.api_response("-ERR No such channel!\n")  # and the events of its end come a tick later
        stage.hangs_up()
        with pytest.raises(CallEnded):
            await stage.outcome()


async def test_without_full_as_recorded_there_is_no_api(engine: str) -> None:
    async with on_stage(
        engine, lambda call: call.api("status"), answer=recorded_blocks("09b-without-full")[0]
    ) as stage:
        with pytest.raises(NotCapable, match="full"):
            await stage.outcome()


@pytest.mark.parametrize(("recording", "warned"), [("18c-sync-full", True), ("01-normal-linger", False)])
async def test_a_dialplan_that_forgot_async_is_told_so(engine: str, recording: str, warned: bool) -> None:
    async with running(Doing(lambda call: call.hangup()), engine=engine) as gateway:
        switch = await SwitchPeer.dial(gateway.control_port)
        try:
            await switch.open(recorded_blocks(recording)[0])
            await gateway.until_noted("control_connected")
            assert ("control_not_async" in gateway.names()) is warned
        finally:
            await switch.aclose()


# -- the hangup in the middle

FIRST_ASKED = {
    "announced": "bgapi originate",
    "answer": "answer",
    "api": "api msleep",
    "attended": "bgapi originate",
    "bgapi": "bgapi msleep",
    "bridge": "bridge",
    "execute": "sleep",
    "hangup": "api uuid_kill",
    "hold": "api uuid_hold",
    "park": "api uuid_park",
    "play": "playback",
    "play_missing": "playback",
    "pre_answer": "pre_answer",
    "record": "api uuid_record",
    "return": "api uuid_setvar",
    "ring_ready": "ring_ready",
    "send_dtmf": "api uuid_send_dtmf",
    "set": "api uuid_setvar",
    "stop_playing": "api uuid_break",
    "stop_recording": "api uuid_record",
    "transfer": "bridge",
}
"What each verb waits for when the caller hangs up; the others ask the switch for nothing."
SUCCESS = ("hangup", "park", "return", "stop", "unhold")


@pytest.mark.parametrize("name", sorted(VERBS))
async def test_a_hangup_while_a_verb_waits_for_the_switch(engine: str, name: str) -> None:
    async def do(call: Call) -> str:
        return await outcome_of(VERBS[name](call))

    async with on_stage(engine, do) as stage:
        if name in FIRST_ASKED:
            await stage.asked(FIRST_ASKED[name])  # and it stays unanswered
        else:
            await stage.agent.began.wait()
        stage.hangs_up()
        async with asyncio.timeout(10):
            await stage.agent.done.wait()
            await stage.agent.over.wait()
        assert stage.agent.events[-1] == HungUp("NORMAL_CLEARING", "CHANNEL_HANGUP")
        expected = {"stop": "int"}.get(name, "NoneType" if name in SUCCESS else "CallEnded")
        assert stage.agent.result == expected
