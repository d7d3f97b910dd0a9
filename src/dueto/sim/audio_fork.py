"""mod_audio_fork: drachtio's, which makes files of `playAudio`, and jambonz', which plays binary audio if asked to."""

import json
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from dueto.audio import frame_bytes
from dueto.sim.audio_module import AudioModule
from dueto.sim.doors import HttpHeaders
from dueto.sim.downlink import Downlink, GatheredDownlink
from dueto.sim.sounds import StoredFile
from dueto.sim.stream_audio import message_object, raw_extension
from dueto.sim.stream_request import FORK_BUG

BUFFER_S: Final = 2
"Of frames that the server does not read."


class AudioFork(AudioModule):
    """The module as recorded in 10f; the way down for binary audio is that of its public source."""

    module: ClassVar[str] = "mod_audio_fork"
    function: ClassVar[str] = FORK_BUG
    connect_limit_s: ClassVar[float] = 20.0
    waits_to_close: ClassVar[bool] = False

    def _open_downlink(self) -> Downlink:
        self._unsent = bytearray()
        self._overrun_told = False
        both_ways = self.channel.core.dialect == "audio_fork-binary" and self.request.down_hz
        self._gathers = (
            GatheredDownlink(self.request.down_hz, self.channel.rate_hz, self.counters, self._mark_told)
            if both_ways
            else None
        )
        return self._gathers or super()._open_downlink()

    def _headers(self) -> HttpHeaders:
        host = urlsplit(self.request.url).hostname
        return [("Origin", f"http://{host}"), ("Sec-WebSocket-Protocol", "audio.drachtio.org")]

    def _connected(self) -> None:
        self._event("connect")

    def _server_left(self, code: int, reason: str) -> None:
        self._event("disconnect")

    def _failed(self, code: int, text: str) -> None:
        """It stays attached, whatever failed."""
        if self.connecting:
            self.connecting = False
            self._event("connect_failed", '{"reason":"Unable to connect"}')
        else:
            self.server_closed = True
            self._event("disconnect")
        self.channel.stir()

    # -- up

    def _frames(self, frames: list[bytes]) -> None:
        """Send all that waits as one message; what a server does not read is thrown away once it is 2 s."""
        if self._connection is None:
            return  # of the time before the upgrade nothing is kept
        self._unsent += b"".join(frames)
        if self._connection.unsent_bytes():
            channels = 2 if self.request.mix == "stereo" else 1
            if len(self._unsent) > BUFFER_S * 50 * channels * frame_bytes(self.request.rate_hz):
                self._unsent.clear()
                if not self._overrun_told:
                    self._overrun_told = True
                    self._event("buffer_overrun")
            return
        self._send(bytes(self._unsent))
        self._unsent.clear()

    # -- down

    def _binary(self, data: bytes) -> None:
        if self._gathers is not None:
            self.counters.took_down(data, self.channel.core.now())
            self._gathers.feed(data)

    def _text(self, text: str) -> None:
        message = message_object(text) or {}
        kind, data = message.get("type"), message.get("data")
        if kind == "playAudio" and self._gathers is None:
            if isinstance(data, dict):
                self._play_audio(data)
        elif kind == "killAudio":
            self._event("kill_audio")
            self.channel.break_(everything=False)
            self.down.clear()
        elif kind == "mark" and self._gathers is not None:
            if isinstance(data, dict) and isinstance(data.get("name"), str):
                self._gathers.mark(data["name"])
        elif kind in ("transcription", "transfer", "disconnect", "error"):
            self._event(kind, _compact(data) if data is not None else "")
        elif kind == "json":
            self._event("json", _compact(message))

    def _play_audio(self, data: dict[str, Any]) -> None:
        stored = StoredFile.of_base64(data.pop("audioContent", None))
        kind, rate_hz = data.get("audioContentType"), data.get("sampleRate")
        if stored is not None and kind in ("raw", "wav", "wave"):
            self.counters.bytes_down += len(stored.data)
            if kind == "raw":
                extension = raw_extension(rate_hz if isinstance(rate_hz, int) else 0)
                stored = StoredFile(stored.data, int(extension[2:]) * 1000)
                data["file"] = self._store(extension, stored)
            else:
                data["file"] = self._store(".wav", stored)
        self._event("play_audio", _compact(data))

    def _mark_told(self, name: str, played: bool) -> None:
        event = "playout" if played else "cleared"
        self._send(f'{{"type": "mark", "data": {{"name":"{name}", "event": "{event}"}}}}')


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
