"""Fake providers that talk without a pause as soon as their conversation is set up; what they hear they only count."""

import base64
import json
from typing import Any, ClassVar

from picows import WSFrame, WSListener, WSMsgType, WSTransport

from dueto.audio import ulaw_encode
from dueto.sim import tone

DELTA_MS = 100
AHEAD_MS = 1000


def voice(rate_hz: int, *, ulaw: bool = False) -> str:
    """Return 100 ms of a tone, in base64."""
    pcm = tone(rate_hz, DELTA_MS / 1000, 440.0)
    return base64.b64encode(ulaw_encode(pcm) if ulaw else pcm).decode()


class Paced(WSListener):
    """One conversation. A subclass knows the provider's words."""

    talking: ClassVar[set["Paced"]] = set()
    heard: ClassVar[int] = 0
    audio: ClassVar[bytes]
    "How a message with the caller's audio begins."

    def __init__(self) -> None:
        super().__init__()
        self.transport: WSTransport | None = None
        self.delta = b""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.get_payload_as_memoryview()[: len(self.audio)] == self.audio:
            Paced.heard += 1
        else:
            self.told(json.loads(frame.get_payload_as_bytes()))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transport = None
        self.talking.discard(self)

    def told(self, message: dict[str, Any]) -> None:
        """Take everything that is no audio."""
        raise NotImplementedError

    def say(self, message: dict[str, Any]) -> None:
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, json.dumps(message).encode())

    def begin(self, delta: dict[str, Any]) -> None:
        """Talk from now on, in pieces of this."""
        self.delta = json.dumps(delta).encode()
        for _ in range(AHEAD_MS // DELTA_MS):
            self.say_more()
        self.talking.add(self)

    def say_more(self) -> None:
        if self.transport is not None:
            self.transport.send(WSMsgType.TEXT, self.delta)


class PacedOpenAI(Paced):
    audio = b'{"type":"input_audio_buffer'

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        self._pcmu = False
        self.say({"type": "session.created", "event_id": "e", "session": {"type": "realtime"}})

    def told(self, message: dict[str, Any]) -> None:
        if message["type"] == "session.update":
            self._pcmu = message["session"]["audio"]["output"]["format"]["type"] == "audio/pcmu"
            self.say({"type": "session.updated", "event_id": "e", "session": message["session"]})
        elif message["type"] == "response.create":
            self.say({"type": "response.created", "event_id": "e", "response": {"id": "resp_1"}})
            self.begin(openai_delta("item_1", 8000 if self._pcmu else 24000))


def openai_delta(item_id: str, rate_hz: int) -> dict[str, Any]:
    """100 ms of OpenAI's voice: G.711 at 8 kHz, else PCM."""
    return {
        "type": "response.output_audio.delta",
        "event_id": "event_1",
        "response_id": "resp_1",
        "item_id": item_id,
        "output_index": 0,
        "content_index": 0,
        "delta": voice(rate_hz, ulaw=rate_hz == 8000),
    }


class PacedGemini(Paced):
    audio = b'{"realtimeInput":{"audio"'

    def told(self, message: dict[str, Any]) -> None:
        if "setup" in message:
            self.say({"setupComplete": {}})
        else:
            self.begin(gemini_delta())


def gemini_delta() -> dict[str, Any]:
    """100 ms of Gemini's voice."""
    part = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": voice(24000)}}
    return {"serverContent": {"modelTurn": {"role": "model", "parts": [part]}}}


class PacedElevenLabs(Paced):
    audio = b'{"user_audio_chunk"'
    format: ClassVar[str] = "ulaw_8000"

    def told(self, message: dict[str, Any]) -> None:
        metadata = {
            "conversation_id": "c",
            "agent_output_audio_format": self.format,
            "user_input_audio_format": self.format,
        }
        kind = "conversation_initiation_metadata"
        self.say({"type": kind, f"{kind}_event": metadata})
        self.begin(elevenlabs_delta(self.format))


def elevenlabs_delta(audio_format: str) -> dict[str, Any]:
    """100 ms of an agent's voice."""
    coding, _, rate = audio_format.partition("_")
    event = {"audio_base_64": voice(int(rate), ulaw=coding == "ulaw"), "event_id": 1}
    return {"type": "audio", "audio_event": event}
