"""mod_audio_stream, in three builds: the community's, a fork that plays `streamAudio`, one that plays binary audio."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from dueto.audio import alaw_decode, resample_all, ulaw_decode
from dueto.sim.audio_module import AudioModule
from dueto.sim.counters import Counters
from dueto.sim.doors import HttpHeaders
from dueto.sim.downlink import Downlink, WarmedDownlink
from dueto.sim.sounds import StoredFile
from dueto.sim.stream_audio import StreamAudio, message_type, parse_stream_audio
from dueto.sim.stream_request import StreamRequest

if TYPE_CHECKING:
    from dueto.sim.channel import Channel


class AudioStream(AudioModule):
    """The community build: `streamAudio` becomes a file and a ::play event, binary is dropped."""

    module: ClassVar[str] = "mod_audio_stream"
    function: ClassVar[str] = "audio_stream"

    def __init__(self, channel: "Channel", request: StreamRequest, counters: Counters, *, owner: bool = True) -> None:
        super().__init__(channel, request, counters, owner=owner)
        self._heartbeat = _number(channel.variables, "STREAM_HEART_BEAT", 0)
        size_ms = _number(channel.variables, "STREAM_BUFFER_SIZE", 20)
        self._frames_per_message = size_ms // 20 if size_ms and size_ms % 20 == 0 else 1
        self._collected: list[bytes] = []

    def _headers(self) -> HttpHeaders:
        """Read STREAM_EXTRA_HEADERS: a JSON object of strings; anything else is dropped without a word."""
        try:
            members = json.loads(self.channel.variables.get("STREAM_EXTRA_HEADERS", "{}"))
        except ValueError:
            return []
        pairs = members.items() if isinstance(members, dict) else ()
        return [(name, value) for name, value in pairs if isinstance(value, str)]

    def _frames(self, frames: list[bytes]) -> None:
        if self._frames_per_message == 1:
            super()._frames(frames)
            return
        for frame in frames:
            self._collected.append(frame)
            if len(self._collected) == self._frames_per_message:
                super()._frames([b"".join(self._collected)])
                self._collected.clear()

    def _connected(self) -> None:
        self._tell("connect", {"status": "connected"})

    def _server_left(self, code: int, reason: str) -> None:
        self._tell("disconnect", {"status": "disconnected", "message": {"code": code, "reason": reason}})

    def _failed(self, code: int, text: str) -> None:
        self.connecting = False
        self._tell("error", {"status": "error", "message": {"code": code, "error": text}})
        self._detach()
        self.channel.stir()

    def _tell(self, kind: str, body: dict[str, Any]) -> None:
        self._event(kind, json.dumps(body, separators=(",", ":"), ensure_ascii=False))

    def _text(self, text: str) -> None:
        message = parse_stream_audio(text)
        if message is None or not self._take_audio(message):
            self._event("json", text)

    def _take_audio(self, message: StreamAudio) -> bool:
        """Do with good audio what the build does; False: it does not take it."""
        self.counters.bytes_down += len(message.audio)
        decode = {"pcmu": ulaw_decode, "pcma": alaw_decode}.get(message.kind)
        pcm = decode(message.audio) if decode else message.audio
        name = self._store(message.extension, StoredFile(pcm, 8000 if decode else message.rate_hz))
        self._tell("play", message.rest | {"file": name})
        return True


class Base64Stream(AudioStream):
    """A fork that plays raw `streamAudio` itself (`audio-websocket.md`, section 8)."""

    def _open_downlink(self) -> Downlink:
        variables = self.channel.variables
        return WarmedDownlink(
            self.channel.rate_hz,
            self.counters,
            warm_up_ms=_number(variables, "STREAM_PLAYBACK_WARMUP_MS", 400),
            most_ms=_number(variables, "STREAM_PLAYBACK_BUFFER_MS", 2000),
        )

    def _text(self, text: str) -> None:
        if message_type(text) == "stopAudio":
            self.down.clear()
        else:
            super()._text(text)

    def _take_audio(self, message: StreamAudio) -> bool:
        if not message.rate_hz:
            return False
        self.counters.took_down(message.audio, self.channel.core.now())
        self.down.feed(message.audio)
        return True


class BinaryStream(AudioStream):
    """A build that plays binary audio at STREAM_SAMPLE_RATE, and raw `streamAudio` at its own."""

    def _open_downlink(self) -> Downlink:
        rate_hz = _number(self.channel.variables, "STREAM_SAMPLE_RATE", 0) or self.request.rate_hz
        return Downlink(rate_hz, self.channel.rate_hz, self.counters)

    def _binary(self, data: bytes) -> None:
        self.counters.took_down(data, self.channel.core.now())
        self.down.feed(data)

    def _text(self, text: str) -> None:
        if self.channel.core.clears and message_type(text) in ("stopAudio", "killAudio"):
            self.down.clear()
        else:
            super()._text(text)

    def _take_audio(self, message: StreamAudio) -> bool:
        if not message.rate_hz:
            return super()._take_audio(message)
        self.counters.bytes_down += len(message.audio)
        self.down.feed(resample_all(message.audio, message.rate_hz, self.down.rate_hz))
        return True


def _number(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name, "")
    return int(text) if text.isdigit() else default
