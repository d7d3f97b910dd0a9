"""An audio module of the simulated switch: a WebSocket client that carries the caller's voice to a gateway.

What all builds have in common; what sets them apart: `audio_stream.py`, `audio_fork.py`.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

from dueto.audio import Resampler, frame_bytes
from dueto.audio.pcm import join_stereo, mix
from dueto.sim.counters import Counters
from dueto.sim.doors import HttpHeaders, MediaConnection, UpgradeRefused
from dueto.sim.downlink import Downlink
from dueto.sim.sounds import StoredFile
from dueto.sim.stream_request import StreamRequest

if TYPE_CHECKING:
    from dueto.sim.channel import Channel

CLOSE_LIMIT_S: Final = 1.0
"How long a module waits, after its own CLOSE, for the server to end TCP."
MAX_QUEUED: Final = 1024
"Messages kept until the upgrade is done."
HOLD_BURST_FRAMES: Final = 10
"Frames that come at once after a hold (60 were seen in its first second)."


class AudioModule:
    """One stream of one channel, from `start` until it is detached."""

    module: ClassVar[str]
    "Begins the names of its events."
    function: ClassVar[str]
    "Of its media bug."
    connect_limit_s: ClassVar[float] = 1.0
    "For TCP and upgrade together."
    waits_to_close: ClassVar[bool] = True
    "Whether `stop`, and the end of the channel, wait for the server to end TCP."

    def __init__(self, channel: "Channel", request: StreamRequest, counters: Counters, *, owner: bool = True) -> None:
        """`owner`: this is the channel's stream; a second one beside it (a fault) fires no events."""
        core = channel.core
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
        self._up = Resampler(channel.rate_hz, request.rate_hz)
        self._far = Resampler(channel.rate_hz, request.rate_hz) if request.mix != "mono" else None
        self._silence = bytes(frame_bytes(channel.rate_hz))
        self._silence_up: bytes | None = None
        self._silent_frames = 0
        self._file_number = 0
        self._files: list[str] = []
        self.down = self._open_downlink()
        self._heartbeat = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._half_closed: MediaConnection | None = None
        self._limit: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None
        if not channel.faults.media_never:
            self._task = core.spawn(self._connect(self._headers()), f"{channel.unique_id} stream")

    @property
    def bug_pairs(self) -> tuple[tuple[str, str], ...]:
        """What the events of its media bug say."""
        return (("Media-Bug-Function", self.function), ("Media-Bug-Target", "N/A"))

    # -- what a build says for itself

    def _open_downlink(self) -> Downlink:
        return Downlink(self.request.rate_hz, self.channel.rate_hz, self.counters)

    def _headers(self) -> HttpHeaders:
        return ()

    def _connected(self) -> None:
        """Tell that the upgrade is done."""
        raise NotImplementedError

    def _failed(self, code: int, text: str) -> None:
        """Tell that there is no connection, or none any more, and why."""
        raise NotImplementedError

    def _server_left(self, code: int, reason: str) -> None:
        """Tell that the server said CLOSE."""
        raise NotImplementedError

    def _text(self, text: str) -> None:
        """Take a text from the server."""
        raise NotImplementedError

    def _binary(self, data: bytes) -> None:
        """Take a binary message from the server; most builds drop it without a trace."""

    def _frames(self, frames: list[bytes]) -> None:
        """Send what was said, each frame in a message of its own."""
        for frame in frames:
            if self._connection is None:
                self._queued.append(frame)
            else:
                self._send(frame)

    # -- its life

    async def _connect(self, headers: HttpHeaders) -> None:
        core = self.channel.core
        if self.channel.faults.first == "control" and self._owner:
            await self.channel.control_ready.wait()
        if self.channel.faults.media_late_s and self._owner:
            await asyncio.sleep(self.channel.faults.media_late_s)
        try:
            async with asyncio.timeout(self.connect_limit_s) as self._limit:
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
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(None)  # a process that stood still may be told of both in one turn
        if (self._owner and not self._attached) or not self.channel.up:
            connection.close(1000, "Normal closure")
            return
        self._connection = connection
        self.counters.media_opened_at = self.counters.media_opened_at or core.now()
        self.channel.record.note("media", "open", url=self.request.url)
        for message in self._queued:
            self._send(message)
        self._queued.clear()
        self._connected()
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
        self._text(text)

    def on_binary(self, data: bytes) -> None:
        if not self._dead and self._closing is None:
            self._binary(data)

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
            self._server_left(code, reason)
        else:
            self._failed(1, "Connection closed without WebSocket CLOSE (abnormal EOF)")

    def _event(self, kind: str, body: str = "") -> None:
        if self._owner and self.channel.up:
            self.channel.emit("CUSTOM", subclass=f"{self.module}::{kind}", body=body.encode("utf-8", "surrogateescape"))

    def _store(self, extension: str, file: StoredFile) -> str:
        """Write a file that lasts as long as the stream, and return its name."""
        name = f"{self.channel.core.temp_dir}/{self.channel.unique_id}_{self._file_number}.tmp{extension}"
        self._file_number += 1
        self._files.append(name)
        self.channel.core.files[name] = file
        return name

    # -- frames up -------------------------------------------------------------------------------------------------

    def push(self, said: bytes | None, heard: bytes | None) -> None:
        """Take one frame of the call: what the caller says and what it hears; None is silence."""
        if self._closing is not None or self.server_closed or self._dead:
            return
        if self.channel.held:
            self._held_frames += 1
            return
        frames: list[bytes] = []
        for _ in range(min(self._held_frames, HOLD_BURST_FRAMES)):
            self._take(frames, None, None)
        self._held_frames = 0
        if not self._paused:
            self._take(frames, said, heard)
        if frames:
            self._frames(frames)

    def _take(self, frames: list[bytes], said: bytes | None, heard: bytes | None) -> None:
        if self._far is not None and heard is None:
            return  # mixed and stereo flow only while something is sent to the caller
        frame = self._resampled(said)
        if self._far is not None and heard is not None:
            far = self._far.process(heard)
            frame = join_stereo(frame, far) if self.request.mix == "stereo" else mix(frame, far)
        frames.append(frame)

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
        if self.waits_to_close:
            await self._closed(self.stop())
        else:
            self.channel.core.spawn(self._closed(self.stop()), f"{self.channel.unique_id} stream closes")

    async def _closed(self, done: "asyncio.Future[None]") -> None:
        try:
            await done
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
