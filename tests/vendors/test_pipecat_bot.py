"""A bot built from pipecat, with pipecat's own Twilio serializer: it answers a call of our switch, unchanged."""

import asyncio
import importlib.util
from typing import Any

import numpy as np
import pytest
from tests.agents.test_media_streams import SID, TOKEN, house
from tests.vendors.test_twilio import uvicorn_serving

from dueto.sim import Caller, Line, SimCall, tone

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(
        not importlib.util.find_spec("pipecat"), reason="the vendors group is not installed: ./test does"
    ),
]


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """Its import takes seconds, in which no call would be served."""
    import pipecat.pipeline.worker
    import pipecat.transports.websocket.fastapi  # noqa: F401


class PipecatBot:
    """The bot of pipecat's own examples: a WebSocket endpoint, a serializer, a transport, a pipeline."""

    def __init__(self) -> None:
        self.rest = ""
        self.heard: list[bytes] = []
        self.pressed: list[str] = []
        self.interrupted_at = 0.0
        self.call_data: Any = None
        self.app = self._app()

    def _app(self) -> Any:
        from fastapi import FastAPI, WebSocket

        app = FastAPI()

        async def endpoint(websocket: WebSocket) -> None:
            await websocket.accept()
            await self.run(websocket)

        app.websocket("/ws")(endpoint)
        return app

    async def run(self, websocket: Any) -> None:
        """One call."""
        from pipecat.pipeline.pipeline import Pipeline
        from pipecat.pipeline.worker import PipelineParams, PipelineWorker
        from pipecat.runner.utils import parse_telephony_websocket
        from pipecat.serializers.twilio import TwilioFrameSerializer
        from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
        from pipecat.workers.runner import WorkerRunner

        kind, self.call_data = await parse_telephony_websocket(websocket)
        assert kind == "twilio"
        serializer = TwilioFrameSerializer(
            stream_sid=self.call_data["stream_id"],
            call_sid=self.call_data["call_id"],
            account_sid=SID,
            auth_token=TOKEN,
            base_url=self.rest,
        )
        params = FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=serializer)
        transport = FastAPIWebsocketTransport(websocket, params)
        pipeline = Pipeline([transport.input(), self._processor(), transport.output()])
        worker = PipelineWorker(
            pipeline, params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000), enable_rtvi=False
        )
        transport.event_handler("on_client_disconnected")(lambda transport, client: worker.cancel())
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()

    def _processor(self) -> Any:
        from pipecat.frames.frames import (
            ClientConnectedFrame,
            EndWorkerFrame,
            Frame,
            InputAudioRawFrame,
            InputDTMFFrame,
            TTSAudioRawFrame,
            TTSStartedFrame,
            TTSStoppedFrame,
        )
        from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

        bot = self

        class Speaker(FrameProcessor):
            """Speaks at length; `1` interrupts it, `#` says goodbye and hangs up."""

            async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
                await super().process_frame(frame, direction)
                match frame:
                    case ClientConnectedFrame():
                        await self.speak(8.0)
                    case InputAudioRawFrame():
                        bot.heard.append(frame.audio)
                    case InputDTMFFrame():
                        bot.pressed.append(frame.button.value)
                        if frame.button.value == "1":
                            bot.interrupted_at = asyncio.get_running_loop().time()
                            await self.broadcast_interruption()
                        else:
                            await self.speak(0.4)
                            await self.push_frame(EndWorkerFrame())
                    case _:
                        await self.push_frame(frame, direction)

            async def speak(self, seconds: float) -> None:
                await self.push_frame(TTSStartedFrame())
                await self.push_frame(TTSAudioRawFrame(tone(8000, seconds, 440.0), 8000, 1))
                await self.push_frame(TTSStoppedFrame())

        return Speaker()


def loud(call: SimCall) -> np.ndarray:
    heard = np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50)
    return np.asarray(np.abs(heard).max(axis=1) > 500)


async def test_a_bot_built_from_pipecat_talks_is_interrupted_and_hangs_up_over_rest() -> None:
    bot = PipecatBot()

    async def caller(line: Line) -> None:
        await line.hears_speech()
        await line.wait(0.2)
        await line.say(tone(8000, 0.3, 700.0))
        await line.press("1", ms=60)
        await line.hears_silence(400, timeout=5)
        await line.press("#", ms=60)
        await line.until_hangup()

    async with uvicorn_serving(bot.app) as port:
        profile = {"url": f"ws://127.0.0.1:{port}/ws", "parameters": {"from_number": "{caller_number}"}}
        async with house(profile) as here:
            bot.rest = f"http://127.0.0.1:{here.gateway.twilio_port}"
            call = await here.switch.place(Caller(number="4711", script=caller))
            await call.done()
            request = await here.noted.until("twilio_request")
    assert request["status"] == 200, "the hangup came over REST"
    assert bot.pressed == ["1", "#"]
    assert bot.call_data["from"] == "4711"
    assert max(np.abs(np.frombuffer(frame, np.int16)).max() for frame in bot.heard) > 3000
    assert call.hangup_cause == "NORMAL_CLEARING"
    at = np.flatnonzero(loud(call))
    speech, goodbye = np.split(at, [int(np.diff(at).argmax()) + 1])  # the longest silence is the one he waited for
    assert len(speech) * 20 < 6000, "eight seconds were cut"
    assert len(goodbye) * 20 == pytest.approx(400, abs=120), "the goodbye was heard before the hangup"
