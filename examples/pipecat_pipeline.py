"""A pipecat pipeline on a call, offline: it says back what you say, until you interrupt it. `0`: a person.

pip install 'dueto[pipecat]'; dueto serve --config dueto.toml --agent pipecat_pipeline:parrot
"""

from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from dueto import Call
from dueto.agents.pipecat import CallTransport, HangupFrame, TransferFrame
from dueto.audio.pcm import rms_dbfs


class Parrot(FrameProcessor):
    """Where your speech recognition, your model and your synthesiser would stand."""

    said = b""
    quiet_ms = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case InputAudioRawFrame():
                await self.hear(frame)
            case InputDTMFFrame(button=button):
                await self.push_frame(TransferFrame("operator") if button.value == "0" else HangupFrame())
            case _:
                await self.push_frame(frame, direction)

    async def hear(self, frame: InputAudioRawFrame) -> None:
        if rms_dbfs(frame.audio) > -40:
            if not self.said:
                await self.broadcast_interruption()
            self.said, self.quiet_ms = self.said + frame.audio, 0
        elif self.said:
            self.quiet_ms += 20
            if self.quiet_ms >= 500:
                await self.push_frame(TTSStartedFrame())
                await self.push_frame(TTSAudioRawFrame(self.said, frame.sample_rate, 1))
                await self.push_frame(TTSStoppedFrame())
                self.said = b""


async def parrot(call: Call) -> None:
    transport = CallTransport(call)
    params = PipelineParams(audio_in_sample_rate=16000, audio_out_sample_rate=16000)
    worker = PipelineWorker(Pipeline([transport.input(), Parrot(), transport.output()]), params=params)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
