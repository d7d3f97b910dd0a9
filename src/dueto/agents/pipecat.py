"""A call as a transport of pipecat: `pip install 'dueto[pipecat]'`. What the pipeline believes to be heard, was heard.

async def agent(call: Call) -> None:
    transport = CallTransport(call)
    await transport.run(transport.input(), stt, ..., tts, transport.output())
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    CancelWorkerFrame,
    ClientConnectedFrame,
    ControlFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputDTMFFrame,
    OutputDTMFUrgentFrame,
    StartFrame,
    SystemFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker, ProcessorUnusablePolicy
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.utils.errors import ErrorCategory
from pipecat.workers.runner import WorkerRunner

from dueto.agents.flow import SETTLE_S, Flow
from dueto.agents.link import plain
from dueto.call import Call, CallEvent, TransferResult
from dueto.call.events import Dtmf, HungUp
from dueto.call.ports import Mode
from dueto.call.utterance import Utterance
from dueto.errors import CallEnded, DuetoError, Fault, ProviderFailed

AHEAD_MS: Final = 200
"How far ahead of the caller's ear a pipeline may write before it has to wait."
LONGEST_WAIT_S: Final = 2.0
"On hold nothing is heard for minutes, and a write that takes 10 s is an error to pipecat."
_FAULTS: Final[Mapping[ErrorCategory | None, Fault]] = {
    ErrorCategory.AUTHENTICATION: "auth",
    ErrorCategory.AUTHORIZATION: "auth",
    ErrorCategory.INVALID_REQUEST: "model",
    ErrorCategory.QUOTA: "quota",
    ErrorCategory.RATE_LIMIT: "quota",
    ErrorCategory.CONNECTIVITY: "dropped",
}


@dataclass
class TransferFrame(ControlFrame):
    """Connect the caller with a destination, once he has heard what was said before. `TransferResultFrame` answers."""

    interruptible: bool = field(default=False, init=False)
    destination: str = ""
    "A name of the configuration."
    mode: Mode | None = None
    "Another one than the destination's own."


@dataclass
class TransferResultFrame(SystemFrame):
    """What became of a `TransferFrame`; pushed both ways."""

    result: TransferResult = field(default_factory=lambda: TransferResult("failed"))


@dataclass
class HangupFrame(ControlFrame):
    """End the call, once the caller has heard what was said before."""

    interruptible: bool = field(default=False, init=False)
    cause: str = "NORMAL_CLEARING"


@dataclass
class CallEventFrame(SystemFrame):
    """Something happened in the call: `Held`, `Bridged`, `Unbridged`, ... Keys come as `InputDTMFFrame`."""

    event: CallEvent | None = None


class CallTransport(BaseTransport):
    """Both ends of one call. The caller's hangup cancels the pipeline.

    Events: `on_client_connected(transport, call)`, and `on_client_disconnected(transport, call)` before the cancel.
    Rates: 8000, 16000, 24000, 32000 or 48000 Hz each way, by `params` or by the pipeline's own.
    """

    def __init__(
        self,
        call: Call,
        params: TransportParams | None = None,
        *,
        input_name: str | None = None,
        output_name: str | None = None,
    ) -> None:
        super().__init__(input_name=input_name, output_name=output_name)
        self.call = call
        params = params or TransportParams(audio_in_enabled=True, audio_out_enabled=True, audio_out_end_silence_secs=0)
        self._input = CallInput(self, params, name=input_name)
        self._output = CallOutput(call, params, name=output_name)
        self._register_event_handler("on_client_connected")
        self._register_event_handler("on_client_disconnected")

    def input(self) -> "CallInput":
        """Return the first processor of the pipeline."""
        return self._input

    def output(self) -> "CallOutput":
        """Return the last one, or nearly."""
        return self._output

    async def run(self, *processors: FrameProcessor, params: PipelineParams | None = None) -> None:
        """Run them as a pipeline, `input()` first and `output()` among them; return when it, or the call, is over.

        It has no idle timeout: on hold, or while the caller talks to somebody else, it waits. Cancelling it ends it.
        Raises: ProviderFailed: a processor can't do its job any more; the call's next agent takes over.
        """
        worker = PipelineWorker(
            Pipeline(list(processors)),
            params=params,
            enable_rtvi=False,
            idle_timeout_secs=None,
            processor_unusable_policy=ProcessorUnusablePolicy.CANCEL,
        )
        failure: ProviderFailed | None = None

        async def failed(worker: PipelineWorker, frame: ErrorFrame) -> None:
            nonlocal failure
            hopeless = frame.fatal or (frame.processor is not None and not frame.processor.is_usable)
            if hopeless and failure is None:
                failure = ProviderFailed(_FAULTS.get(frame.category, "refused"), plain(frame.error))

        worker.add_event_handler("on_pipeline_error", failed)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()
        if failure is not None and not self.call.ended:
            raise failure

    async def tell(self, event: str) -> None:
        """Call a handler of `event_handler(...)`."""
        await self._call_event_handler(event, self.call)


class CallInput(BaseInputTransport):
    """What the caller says and presses, and what happens in the call."""

    def __init__(self, transport: CallTransport, params: TransportParams, **more: Any) -> None:
        super().__init__(params, **more)
        self._transport = transport
        self._call = transport.call
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, frame: StartFrame) -> None:
        """Begin to listen."""
        await super().start(frame)
        if self._tasks:
            return
        await self._transport.tell("on_client_connected")
        await self.push_frame(ClientConnectedFrame())
        await self.set_transport_ready(frame)
        self._tasks = [self.create_task(self._listen()), self.create_task(self._watch())]

    async def stop(self, frame: EndFrame) -> None:
        """Nothing more is heard."""
        await super().stop(frame)
        await self._stop()

    async def cancel(self, frame: CancelFrame) -> None:
        """The same, at once."""
        await super().cancel(frame)
        await self._stop()

    async def cleanup(self) -> None:
        """Leave nothing behind."""
        await super().cleanup()
        await self._stop()

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if task is not asyncio.current_task():
                await self.cancel_task(task)

    async def _listen(self) -> None:
        """Its queue is the call's own: a pipeline that falls behind loses the oldest."""
        async for frame in self._call.audio(self.sample_rate):
            await self.push_audio_frame(InputAudioRawFrame(frame, self.sample_rate, 1))

    async def _watch(self) -> None:
        async for event in self._call.events():
            match event:
                case Dtmf(digit):
                    with contextlib.suppress(ValueError):  # A to D, which pipecat has no name for
                        await self.push_frame(InputDTMFFrame(KeypadEntry(digit)))
                case HungUp(cause):
                    await self.push_frame(CallEventFrame(event))
                    await self._transport.tell("on_client_disconnected")
                    await self.push_frame(CancelWorkerFrame(reason=cause), FrameDirection.UPSTREAM)
                case _:
                    await self.push_frame(CallEventFrame(event))


class CallOutput(BaseOutputTransport):
    """What the pipeline says and wants done. `BotStartedSpeakingFrame` and `BotStoppedSpeakingFrame` pass on when the
    caller hears the first sound, and has heard the last."""

    def __init__(self, call: Call, params: TransportParams, **more: Any) -> None:
        super().__init__(params, **more)
        self._call = call
        self._voice: Flow | None = None
        self._told: asyncio.Queue[tuple[Frame, FrameDirection, Utterance | None]] = asyncio.Queue()
        "Those two frames, both ways, until their time has come, and what they speak of."
        self._teller: asyncio.Task[None] | None = None
        self._settling: asyncio.TimerHandle | None = None

    async def start(self, frame: StartFrame) -> None:
        """Begin to speak."""
        await super().start(frame)
        self._voice = Flow(self._call, self.sample_rate)
        self._teller = self.create_task(self._tell())
        await self.set_transport_ready(frame)

    async def stop(self, frame: EndFrame) -> None:
        """Return when the caller has heard all of it."""
        await super().stop(frame)
        if self._voice is not None:
            await self._voice.heard()
        await self._told.join()

    async def cancel(self, frame: CancelFrame) -> None:
        """Silence."""
        await super().cancel(frame)
        if self._voice is not None:
            self._voice.cut("pipeline")

    async def cleanup(self) -> None:
        """Leave nothing behind."""
        await super().cleanup()
        if self._settling is not None:
            self._settling.cancel()
        if self._teller is not None:
            await self.cancel_task(self._teller)
            self._teller = None

    # -- what is said

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """An interruption is silence before anybody else is told of it."""
        if isinstance(frame, InterruptionFrame) and self._voice is not None:
            self._voice.cut("pipeline")
        await super().process_frame(frame, direction)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Say it; return when no more than `AHEAD_MS` stand before the caller's ear."""
        voice = self._voice
        if voice is None or self._call.ended:
            return False
        voice.add(frame.audio, interruptible=frame.interruptible)
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._settle)
        waited_s = 0.0
        while (too_far_ms := voice.ahead_ms - AHEAD_MS) > 0 and waited_s < LONGEST_WAIT_S:
            wait_s = max(too_far_ms, 5) / 1000
            await asyncio.sleep(wait_s)
            waited_s += wait_s
        return True

    def _settle(self) -> None:
        self._settling = None
        if self._voice is not None:
            self._voice.settle()
            if self._voice.open:
                self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._settle)

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Push a frame; those about the bot's speaking when they are true."""
        voice = self._voice
        if voice is None or not isinstance(frame, BotStartedSpeakingFrame | BotStoppedSpeakingFrame):
            await super().push_frame(frame, direction)
            return
        if isinstance(frame, BotStoppedSpeakingFrame):
            voice.finish()
        else:
            with contextlib.suppress(DuetoError):  # nobody hears it now: bridged, or over
                voice.begin()
        self._told.put_nowait((frame, direction, voice.utterance))

    async def _tell(self) -> None:
        while True:
            frame, direction, said = await self._told.get()
            if said is not None and isinstance(frame, BotStoppedSpeakingFrame):
                with contextlib.suppress(DuetoError):
                    await said.heard()
            elif said is not None:
                while said.began_at is None and not said.done:  # noqa: ASYNC110 - nobody tells; it begins within 0.5 s
                    await asyncio.sleep(0.02)
                if said.began_at is not None and not said.done:
                    await asyncio.sleep(said.began_at - self._call.clock())
            await super().push_frame(frame, direction)
            self._told.task_done()

    # -- what is done

    async def write_transport_frame(self, frame: Frame) -> None:
        """Our own frames, in their order among what is said."""
        if isinstance(frame, TransferFrame | HangupFrame) and self._voice is not None:
            await self._voice.heard()
        match frame:
            case TransferFrame(destination=destination, mode=mode):
                try:
                    result = await self._call.transfer(destination, mode=mode)
                except CallEnded:
                    result = TransferResult("caller_gone")
                except DuetoError as error:
                    result = TransferResult("failed", str(error))
                await self.broadcast_frame(TransferResultFrame, result=result)
            case HangupFrame(cause=cause):
                await self._call.hangup(cause)

    def _supports_native_dtmf(self) -> bool:
        return True

    async def _write_dtmf_native(self, frame: OutputDTMFFrame | OutputDTMFUrgentFrame) -> None:
        await self._call.send_dtmf("".join(button.value for button in frame.buttons or ()))
