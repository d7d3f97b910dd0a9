"""The audio module of the simulated switch: a WebSocket client that carries the caller's voice to a gateway."""

import asyncio
import json
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dueto.audio import Resampler, alaw_decode, frame_bytes, resample_all, ulaw_decode
from dueto.audio.pcm import join_stereo, mix
from dueto.sim.counters import Counters
from dueto.sim.doors import MediaConnection, UpgradeRefused
from dueto.sim.downlink import Downlink
from dueto.sim.sounds import StoredFile
from dueto.sim.stream_audio import StreamAudio, message_type, parse_stream_audio

if TYPE_CHECKING:
    from dueto.sim.channel import Channel

CONNECT_LIMIT_S: Final = 1.0
"For TCP and upgrade together."
CLOSE_LIMIT_S: Final = 1.0
"How long the module waits, after its own CLOSE, for the server to end TCP."
MAX_QUEUED: Final = 1024
"Messages kept until the upgrade is done."
HOLD_BURST_FRAMES: Final = 10
"Frames that come at once after a hold (60 were seen in its first second)."
OK, FAILED = b"+OK Success\n", b"-ERR Operation Failed\n"
USAGE = (
    b"-USAGE: <uuid> [start | stop | send_text | pause | resume | graceful-shutdown ] "
    b"[wss-url | path] [mono | mixed | stereo] [8000 | 16000] [metadata]\n"
)
_URL = re.compile(r"wss?://[A-Za-z0-9.-]+(:\d+)?(/.*)?")


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What `uuid_audio_stream UUID start` asks for."""

    url: str
    mix: str
    rate_hz: int
    metadata: str = ""

    @classmethod
    def parse(cls, words: list[str]) -> "StreamRequest | bytes":
        """Read `URL MIX RATE [METADATA...]`; the module's error reply where that is wrong."""
        url, mix, rate = words[0], words[1], words[2] if len(words) > 2 else "8k"
        if mix not in ("mono", "mixed", "stereo"):
            return b"-ERR no reply\n"
        rate_hz = {"8k": 8000, "16k": 16000}.get(rate) or (int(rate) if rate.isdigit() else 0)
        if not _URL.fullmatch(url) or len(url) > 4096 or rate_hz < 8000 or rate_hz % 8000:
            return FAILED
        return cls(url, mix, rate_hz, " ".join(words[3:]))


class AudioStream:
    """One stream of one channel, from `start` until it is detached."""

    def __init__(self, channel: "Channel", request: StreamRequest, counters: Counters, *, owner: bool = True) -> None:
        """`owner`: this is the channel's stream; a second one beside it (a fault) fires no events."""
        core, variables = channel.core, channel.variables
        self.channel, self.request, self.counters = channel, request, counters
        self._owner = owner
        self._connection: MediaConnection | None = None
        self.connecting = True
        self.server_closed = False
        "The server said CLOSE; the stream stays attached until `stop`."
        self._closing: asyncio.Future[None] | None = None
        self._paused = self._dead = False
        self._held_frames = 0
        self._queued: deque[bytes | str] = deque(maxlen=MAX_QUEUED)
        if request.metadata:
            self._queued.append(request.metadata)
        buffer_ms = variables.get("STREAM_BUFFER_SIZE", "20")
        size_ms = int(buffer_ms) if buffer_ms.isdigit() and int(buffer_ms) and int(buffer_ms) % 20 == 0 else 20
        self._frames_per_message = size_ms // 20
        self._collected: list[bytes] = []
        self._up = Resampler(channel.rate_hz, request.rate_hz)
        self._far = Resampler(channel.rate_hz, request.rate_hz) if request.mix != "mono" else None
        self._silence = bytes(frame_bytes(channel.rate_hz))
        self._silence_up: bytes | None = None
        self._silent_frames = 0
        self._file_number = 0
        self._files: list[str] = []
        down_hz = int(variables.get("STREAM_SAMPLE_RATE", "0")) or request.rate_hz
        self.down = Downlink(down_hz, channel.rate_hz, counters)
        self._heartbeat = int(variables.get("STREAM_HEART_BEAT", "0") or 0)
        self._timers: list[asyncio.TimerHandle] = []
        self._half_closed: MediaConnection | None = None
        self._task: asyncio.Task[None] | None = None
        if not channel.faults.media_never:
            self._task = core.spawn(self._connect(_extra_headers(variables)), f"{channel.unique_id} stream")

    async def _connect(self, headers: list[tuple[str, str]]) -> None:
        core = self.channel.core
        if self.channel.faults.first == "control" and self._owner:
            await self.channel.control_ready.wait()
        if self.channel.faults.media_late_s and self._owner:
            await asyncio.sleep(self.channel.faults.media_late_s)
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await core.doors.media(self.request.url, headers, self)
        except TimeoutError:
            self._failed(10, "Timeout")
        except UpgradeRefused:
            self._failed(6, "WebSocket upgrade failed")
        except ConnectionRefusedError:
            self._failed(6, "Connection refused (system error 111)")
        except OSError as error:
            self._failed(6, str(error))

    # -- what the WebSocket tells ----------------------------------------------------------------------------------

    def on_open(self, connection: MediaConnection) -> None:
        core = self.channel.core
        self.connecting = False
        if (self._owner and not self._attached) or not self.channel.up:
            connection.close(1000, "Normal closure")
            return
        self._connection = connection
        self.counters.media_opened_at = self.counters.media_opened_at or core.now()
        self.channel.record.note("media", "open", url=self.request.url)
        for message in self._queued:
            self._send(message)
        self._queued.clear()
        self._event("connect", {"status": "connected"})
        if self._heartbeat:
            self._timers.append(core.loop.call_later(self._heartbeat, self._ping))
        faults = self.channel.faults
        if faults.media_reset_after_s is not None:
            self._timers.append(core.loop.call_later(faults.media_reset_after_s, connection.abort))
        if faults.half_open in ("media", "both"):
            self._timers.append(core.loop.call_later(faults.half_open_after_s, self._go_dead))
        if faults.slow_reader_after_s is not None:
            self._timers.append(core.loop.call_later(faults.slow_reader_after_s, self._read_nothing))
        self.channel.stir()

    def on_text(self, text: str) -> None:
        if self._dead or self._closing is not None:
            return
        self.channel.record.note("media", "text", size=len(text))
        core = self.channel.core
        if core.clears and core.dialect == "audio_stream-binary" and message_type(text) in ("stopAudio", "killAudio"):
            self.down.clear()
        elif (message := parse_stream_audio(text)) is not None:
            self._take_audio(message)
        else:
            self._event("json", text)

    def on_binary(self, data: bytes) -> None:
        if self._dead or self._closing is not None:
            return
        if self.channel.core.dialect == "audio_stream-binary":
            self.counters.took_down(data, self.channel.core.now())
            self.down.feed(data)

    def on_close(self, code: int | None, reason: str) -> None:
        connection, self._connection = self._connection, None
        if self._closing is not None:
            if not self._closing.done():
                self._closing.set_result(None)
            return
        if connection is None:
            return
        self._stop_timers()
        self.channel.record.note("media", "closed", code=code, reason=reason)
        if code is not None:
            self.server_closed = True
            self._half_closed = connection  # if the server keeps TCP open, so does the module, until `stop`
            self._event("disconnect", {"status": "disconnected", "message": {"code": code, "reason": reason}})
        else:
            self._failed(1, "Connection closed without WebSocket CLOSE (abnormal EOF)")

    def _failed(self, code: int, text: str) -> None:
        self.connecting = False
        self._event("error", {"status": "error", "message": {"code": code, "error": text}})
        self._detach()
        self.channel.stir()

    def _event(self, kind: str, body: "dict[str, Any] | str") -> None:
        if not self._owner or not self.channel.up:
            return
        text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        self.channel.emit("CUSTOM", subclass=f"mod_audio_stream::{kind}", body=text.encode("utf-8", "surrogateescape"))

    def _take_audio(self, message: StreamAudio) -> None:
        """Play it, or keep it as a file and tell the gateway where: it depends on the build."""
        core = self.channel.core
        self.counters.bytes_down += len(message.audio)
        if core.dialect == "audio_stream-binary" and message.rate_hz:
            self.down.feed(resample_all(message.audio, message.rate_hz, self.down.rate_hz))
            return
        name = f"{core.temp_dir}/{self.channel.unique_id}_{self._file_number}.tmp{message.extension}"
        self._file_number += 1
        self._files.append(name)
        decode = {"pcmu": ulaw_decode, "pcma": alaw_decode}.get(message.kind)
        core.files[name] = (
            StoredFile(decode(message.audio), 8000) if decode else StoredFile(message.audio, message.rate_hz)
        )
        self._event("play", message.rest | {"file": name})

    # -- frames up -------------------------------------------------------------------------------------------------

    def push(self, said: bytes | None, heard: bytes | None) -> None:
        """Take one frame of the call: what the caller says and what it hears; None is silence."""
        if self._closing is not None or self.server_closed or self._dead:
            return
        if self.channel.held:
            self._held_frames += 1
            return
        if self._held_frames:
            for _ in range(min(self._held_frames, HOLD_BURST_FRAMES)):
                self._push(None, None)
            self._held_frames = 0
        if not self._paused:
            self._push(said, heard)

    def _push(self, said: bytes | None, heard: bytes | None) -> None:
        if self._far is not None and heard is None:
            return  # mixed and stereo flow only while something is sent to the caller
        frame = self._resampled(said)
        if self._far is not None and heard is not None:
            far = self._far.process(heard)
            frame = join_stereo(frame, far) if self.request.mix == "stereo" else mix(frame, far)
        self._collected.append(frame)
        if len(self._collected) == self._frames_per_message:
            message = frame if self._frames_per_message == 1 else b"".join(self._collected)
            self._collected.clear()
            if self._connection is None:
                self._queued.append(message)
            else:
                self._send(message)

    def _resampled(self, said: bytes | None) -> bytes:
        """Return the caller's frame at the stream's rate; long silence costs no arithmetic."""
        if said is not None:
            self._silent_frames = 0
            return self._up.process(said)
        self._silent_frames += 1
        if self._silent_frames > 3:  # the filter has run dry
            if self._silence_up is None:
                self._silence_up = bytes(frame_bytes(self.request.rate_hz))
            return self._silence_up
        return self._up.process(self._silence)

    def _send(self, message: bytes | str) -> None:
        if self._connection is None or self._dead:
            return
        if isinstance(message, str):
            self._connection.send_text(message)
            return
        self._connection.send_binary(message)
        self.counters.frames_up += 1
        self.counters.bytes_up += len(message)

    # -- the api ---------------------------------------------------------------------------------------------------

    @property
    def _attached(self) -> bool:
        return self.channel.stream is self

    def send_text(self, text: str) -> None:
        if self._connection is None:
            self._queued.append(text)
        else:
            self._send(text)

    def pause(self, on: bool) -> None:
        self._paused = on

    def stop(self, text: str = "") -> "asyncio.Future[None]":
        """Say `text`, then CLOSE, and detach; the future is done when the server has ended TCP, or after 1 s."""
        done: asyncio.Future[None] = self.channel.core.loop.create_future()
        if text and self._connection is not None:
            self._send(text)
        self._closing = done
        self._detach()
        if self._half_closed is not None:
            self._half_closed.abort()
            self._half_closed = None
        if self._connection is None:
            done.set_result(None)
        else:
            self._connection.close(1000, "Normal closure")
            self._timers.append(self.channel.core.loop.call_later(CLOSE_LIMIT_S, self._give_up))
        return done

    async def close_at_hangup(self) -> None:
        """Close as the channel's end does. Takes at most 1 s; cancelling breaks the connection off."""
        try:
            await self.stop()
        finally:
            self.abort()

    def abort(self) -> None:
        """Let go of the socket, whatever state it is in."""
        self._detach()
        self._stop_timers()
        if self.connecting and self._task is not None:
            self._task.cancel()
        for connection in (self._connection, self._half_closed):
            if connection is not None:
                connection.abort()
        self._connection = self._half_closed = None

    def _give_up(self) -> None:
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _detach(self) -> None:
        if self._attached:
            self.channel.stream = None
        for name in self._files:
            self.channel.core.files.pop(name, None)
        self._files.clear()
        if self._closing is None:
            self._stop_timers()

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # -- faults and heart beat -------------------------------------------------------------------------------------

    def _ping(self) -> None:
        if self._connection is not None and not self._dead:
            self._connection.ping(b"ping")
            self._timers.append(self.channel.core.loop.call_later(self._heartbeat, self._ping))

    def _go_dead(self) -> None:
        self._dead = True
        if self._connection is not None:
            self._connection.pause_reading()

    def _read_nothing(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()
            core = self.channel.core
            self._timers.append(core.loop.call_later(self.channel.faults.slow_reader_s, self._read_again))

    def _read_again(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()


def _extra_headers(variables: "dict[str, str]") -> list[tuple[str, str]]:
    """Read STREAM_EXTRA_HEADERS: a JSON object of strings; anything else is dropped without a word."""
    try:
        members = json.loads(variables.get("STREAM_EXTRA_HEADERS", "{}"))
    except ValueError:
        return []
    if not isinstance(members, dict):
        return []
    return [(name, value) for name, value in members.items() if isinstance(value, str)]
