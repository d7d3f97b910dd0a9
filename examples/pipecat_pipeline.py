"""A pipecat pipeline on a call, offline: it says back what you say, until you interrupt it. `0`: a person.

pip install 'dueto[pipecat]'; dueto serve --config pipecat_pipeline.toml
"""

from pipecat.frames.frames import Frame, InputAudioRawFrame, InputDTMFFrame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from dueto import Call
from dueto.agents.pipecat import CallTransport, HangupFrame, TransferFrame
from dueto.audio.pcm import rms_dbfs


class Parrot(FrameProcessor):
    """Where your speech recognition, your model and your synthesiser would stand."""

    said, quiet = b"", 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case InputDTMFFrame(button=button):
                await self.push_frame(TransferFrame("operator") if button.value == "0" else HangupFrame())
            case InputAudioRawFrame(audio=audio) if rms_dbfs(audio) > -40:
                if not self.said:
                    await self.broadcast_interruption()
                self.said, self.quiet = self.said + audio, 0
            case InputAudioRawFrame(sample_rate=rate_hz):
                self.quiet += 1
                if self.said and self.quiet == 25:  # frames of 20 ms
                    await self.push_frame(TTSAudioRawFrame(self.said, rate_hz, 1))
                    self.said = b""
            case _:
                await self.push_frame(frame, direction)


async def parrot(call: Call) -> None:
    transport = CallTransport(call)
    await transport.run(transport.input(), Parrot(), transport.output())
