"""A call as pipecat's transport: what the pipeline is told of its own speech is what the simulated caller heard."""

import asyncio
import contextlib
import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.virtual import virtual_desk

from dueto.call import Agent, Call, CallRules, Destination
from dueto.call.events import Held, HungUp, Resumed
from dueto.errors import ProviderFailed
from dueto.sim import Caller, Endpoint, Line, SimCall, run_virtual, tone

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(
        not importlib.util.find_spec("pipecat"), reason="the vendors group is not installed: ./test does"
    ),
]
DESTINATIONS = {"operator": Destination("operator", "user/1002"), "nobody": Destination("nobody", "user/1003")}
ENDPOINTS = {"user/1002": Endpoint(hangs_up_after_s=0.5), "user/1003": Endpoint("busy")}


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """Its import takes seconds, in which no call would be served."""
    import examples.pipecat_pipeline  # noqa: F401


class Pipe:
    """A pipeline of one processor, and what went through it, with times."""

    def __init__(self, on_key: Callable[[Any, str], Awaitable[None]]) -> None:
        self.on_key = on_key
        self.frames: list[tuple[float, Any]] = []
        self.pressed = ""
        self.heard = bytearray()
        self.cancelled: list[Any] = []

    def at(self, name: str) -> list[float]:
        """When frames of that name came."""
        return [at for at, frame in self.frames if type(frame).__name__ == name]

    async def __call__(self, call: Call) -> None:
        from pipecat.frames.frames import CancelFrame, Frame, InputAudioRawFrame, InputDTMFFrame
        from pipecat.pipeline.worker import PipelineParams
        from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

        from dueto.agents.pipecat import CallTransport

        pipe = self

        class Middle(FrameProcessor):
            async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
                await super().process_frame(frame, direction)
                if isinstance(frame, InputAudioRawFrame):
                    pipe.heard += frame.audio
                    return
                pipe.frames.append((asyncio.get_running_loop().time(), frame))
                if isinstance(frame, InputDTMFFrame):
                    pipe.pressed += frame.button.value
                    await pipe.on_key(self, frame.button.value)
                elif isinstance(frame, CancelFrame):
                    pipe.cancelled.append(frame.reason)
                await self.push_frame(frame, direction)

        transport = CallTransport(call)
        params = PipelineParams(audio_in_sample_rate=16000, audio_out_sample_rate=24000)
        await transport.run(transport.input(), Middle(), transport.output(), params=params)


async def speak(processor: Any, seconds: float) -> None:
    from pipecat.frames.frames import TTSAudioRawFrame, TTSStartedFrame, TTSStoppedFrame

    await processor.push_frame(TTSStartedFrame())
    await processor.push_frame(TTSAudioRawFrame(tone(24000, seconds, 440.0), 24000, 1))
    await processor.push_frame(TTSStoppedFrame())


def loud(call: SimCall) -> np.ndarray:
    heard = np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50)
    return np.flatnonzero(np.abs(heard).max(axis=1) > 500)


def one_call(agent: Agent, script: Callable[[Line], Awaitable[None]]) -> SimCall:
    """One call on virtual time, pipecat's included."""

    async def whole() -> SimCall:
        async with (
            virtual_desk(agent, rules=CallRules(rate_hz=8000), destinations=DESTINATIONS) as here,
            here.switch(endpoints=ENDPOINTS, record=True) as switch,
        ):
            call = await switch.place(Caller(script=script))
            await call.done()
            await here.desk.empty()
        assert "agent_failed" not in here.names()
        return call

    return run_virtual(whole(), start_s=1000.0)


def test_the_bot_stops_speaking_when_the_caller_has_heard_it_and_hangs_up_then() -> None:
    async def key(processor: Any, digit: str) -> None:
        from dueto.agents.pipecat import HangupFrame

        await speak(processor, 1.5)
        await processor.push_frame(HangupFrame())

    async def caller(line: Line) -> None:
        await line.say(tone(8000, 0.4, 700.0))
        await line.press("5")
        await line.until_hangup()

    pipe = Pipe(key)
    call = one_call(pipe, caller)
    assert len(loud(call)) * 20 == pytest.approx(1500, abs=60)
    assert np.abs(np.frombuffer(pipe.heard, np.int16)).max() > 3000
    (started,), (stopped,) = pipe.at("BotStartedSpeakingFrame"), pipe.at("BotStoppedSpeakingFrame")
    assert stopped - started == pytest.approx(1.5, abs=0.06)
    assert call.hangup_cause == "NORMAL_CLEARING"
    assert pipe.cancelled == ["NORMAL_CLEARING"]


def test_a_pipeline_that_ends_ends_when_its_last_word_was_heard() -> None:
    async def key(processor: Any, digit: str) -> None:
        from pipecat.frames.frames import EndWorkerFrame

        await speak(processor, 1.0)
        await processor.push_frame(EndWorkerFrame())

    async def caller(line: Line) -> None:
        await line.press("5")
        await line.until_hangup()

    call = one_call(Pipe(key), caller)
    assert len(loud(call)) * 20 == pytest.approx(1000, abs=40)
    assert call.hangup_cause == "NORMAL_CLEARING"


def test_an_interruption_is_silence_and_the_bot_has_stopped_speaking() -> None:
    interrupted_at: list[float] = []

    async def key(processor: Any, digit: str) -> None:
        if digit == "1":
            await speak(processor, 8.0)
        else:
            interrupted_at.append(asyncio.get_running_loop().time())
            await processor.broadcast_interruption()

    async def caller(line: Line) -> None:
        await line.press("1")
        await line.hears_speech()
        await line.wait(0.5)
        await line.press("2")
        await line.hears_silence(300, timeout=3)

    pipe = Pipe(key)
    call = one_call(pipe, caller)
    assert len(loud(call)) * 20 < 2000
    (stopped,) = pipe.at("BotStoppedSpeakingFrame")
    assert stopped - interrupted_at[0] < 0.3, "what the switch had already is heard"


def test_transfers_and_what_became_of_them() -> None:
    async def key(processor: Any, digit: str) -> None:
        from dueto.agents.pipecat import TransferFrame

        await speak(processor, 0.3)
        await processor.push_frame(TransferFrame("nobody"))
        await processor.push_frame(TransferFrame("anybody"))
        await processor.push_frame(TransferFrame("operator"))

    async def caller(line: Line) -> None:
        await line.press("0")
        await line.bridged()
        await line.wait(0.8)

    pipe = Pipe(key)
    call = one_call(pipe, caller)
    results = [frame.result for _, frame in pipe.frames if type(frame).__name__ == "TransferResultFrame"]
    assert [result.outcome for result in results] == ["busy", "failed", "bridged"]
    assert "anybody" in results[1].hangup_cause
    told = [type(frame.event).__name__ for _, frame in pipe.frames if type(frame).__name__ == "CallEventFrame"]
    assert told[-3:] == ["Bridged", "Unbridged", "HungUp"]
    assert len(loud(call)) * 20 >= 280


def test_a_hold_longer_than_pipecat_waits_for_a_write_does_not_end_the_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dueto.agents import pipecat

    monkeypatch.setattr(pipecat, "LONGEST_WAIT_S", 0.1)

    async def key(processor: Any, digit: str) -> None:
        await speak(processor, 1.0)

    async def caller(line: Line) -> None:
        await line.wait(0.3)
        line.hold()
        await line.wait(0.2)
        await line.press("1")
        await line.wait(0.7)
        line.unhold()
        await line.hears_speech()
        await line.hears_silence(300)

    pipe = Pipe(key)
    call = one_call(pipe, caller)
    events = [frame.event for _, frame in pipe.frames if type(frame).__name__ == "CallEventFrame"]
    assert [type(event) for event in events[-3:-1]] == [Held, Resumed]
    assert len(loud(call)) * 20 == pytest.approx(1000, abs=100)


def test_a_processor_that_can_do_no_more_gives_the_call_to_the_next_agent() -> None:
    from pipecat.utils.errors import ErrorCategory

    async def key(processor: Any, digit: str) -> None:
        lasting = digit == "2"
        category = ErrorCategory.AUTHENTICATION if lasting else ErrorCategory.SERVER
        await processor.push_error("the key sk-123 is wrong", category=category)

    async def caller(line: Line) -> None:
        await line.press("1")
        await line.wait(0.5)
        await line.press("2")
        await line.hears_speech()
        await line.hears_silence(300)

    pipe = Pipe(key)
    failed: list[ProviderFailed] = []

    async def agent(call: Call) -> None:
        try:
            await pipe(call)
        except ProviderFailed as failure:
            failed.append(failure)
        await call.say(tone(8000, 0.4, 440.0))

    one_call(agent, caller)
    assert pipe.pressed == "12", "an error that may pass ends nothing"
    assert [failure.fault for failure in failed] == ["auth"]
    assert "is wrong" in str(failed[0])


def test_a_pipeline_whose_agent_is_cancelled_is_over_at_once() -> None:
    async def key(processor: Any, digit: str) -> None:
        await speak(processor, 8.0)

    async def caller(line: Line) -> None:
        await line.press("1")
        await line.hears_speech()
        await line.hears_silence(500, timeout=3)

    pipe = Pipe(key)

    async def agent(call: Call) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await pipe(call)
        await call.wait_for(HungUp)

    call = one_call(agent, caller)
    assert len(loud(call)) * 20 < 1500


def test_the_example_says_back_what_it_hears() -> None:
    from examples.pipecat_pipeline import parrot

    async def caller(line: Line) -> None:
        await line.wait(0.3)
        await line.say(tone(8000, 0.6, 440.0))
        await line.hears_speech()
        await line.hears_silence(300)
        await line.press("#")
        await line.until_hangup()

    call = one_call(parrot, caller)
    assert len(loud(call)) * 20 == pytest.approx(600, abs=80)


def test_the_example_as_a_configuration_is_a_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from dueto.app.overview import check_overview
    from dueto.app.settings import load_settings

    example = Path(__file__).parents[2] / "examples" / "pipecat_pipeline.toml"
    monkeypatch.syspath_prepend(str(example.parent))  # as the command line does
    text = check_overview(load_settings(example, {}, {"DUETO_MEDIA__SECRET": "0123456789abcdef0123456789abcdef"}))
    assert text.startswith("The configuration is good.")
    assert "parrot (pipecat_pipeline:parrot), then destination operator" in text
