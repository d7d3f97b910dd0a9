"""pipecat's FastAPI WebSocket transport with a raw serializer: what comes in goes out again through its pipeline."""

import asyncio
import contextlib
import socket

import uvicorn
import uvloop
from _line import Notes, answer_until_the_end, say_ports
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport

RATE_HZ = 16000
logger.remove()
app = FastAPI()


class Raw(FrameSerializer):
    """L16 as it is."""

    async def serialize(self, frame: Frame) -> bytes | None:
        """An audio frame's bytes."""
        return frame.audio if isinstance(frame, OutputAudioRawFrame) else None

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """An audio frame of those bytes."""
        return InputAudioRawFrame(audio=data, sample_rate=RATE_HZ, num_channels=1)


class Echo(FrameProcessor):
    """The shortest agent."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Turn what is heard into what is said."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(audio=frame.audio, sample_rate=RATE_HZ, num_channels=1)
        await self.push_frame(frame, direction)


@app.websocket("/{path:path}")
async def stream(websocket: WebSocket, path: str) -> None:
    """Run one pipeline for one call."""
    await websocket.accept()
    params = FastAPIWebsocketParams(
        audio_in_enabled=True,
        audio_out_enabled=True,
        audio_in_passthrough=True,
        audio_out_10ms_chunks=2,
        add_wav_header=False,
        serializer=Raw(),
    )
    transport = FastAPIWebsocketTransport(websocket, params)
    rates = PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ)
    task = PipelineTask(Pipeline([transport.input(), Echo(), transport.output()]), params=rates)

    @transport.event_handler("on_client_disconnected")
    async def gone(transport: object, client: object) -> None:
        await task.cancel()

    await PipelineRunner(handle_sigint=False).run(task)


async def main() -> None:
    """Serve until whoever measures is gone."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", loop="uvloop"))
    serving = asyncio.create_task(server.serve([listening]))
    say_ports(media=listening.getsockname()[1])
    await answer_until_the_end(Notes())
    server.should_exit = server.force_exit = True
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(serving, 2)


uvloop.run(main())
