"""The caller's end of audio that is streamed down: it comes as it comes and is played in real time."""

from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

from dueto.audio import Resampler, frame_bytes
from dueto.sim.counters import Counters

GAP_FRAMES: Final = 15
"Silence up to this long (300 ms) between two pieces of audio is a gap in one of them."
MARKER: Final = b"\xff\xff"
MAX_MARKS: Final = 30


class Downlink:
    """Keeps what came early, gives one frame per 20 ms, and counts what came too late."""

    def __init__(self, rate_hz: int, channel_hz: int, counters: Counters) -> None:
        self.rate_hz = rate_hz
        self._size = frame_bytes(rate_hz)
        self._resampler = Resampler(rate_hz, channel_hz)
        self._counters = counters
        self._waiting = bytearray()
        self._dry_frames = GAP_FRAMES + 1
        self._draining = 0

    @property
    def waiting_ms(self) -> float:
        """How much is still to be played."""
        return len(self._waiting) * 500 / self.rate_hz

    def feed(self, data: bytes) -> None:
        """Take audio, L16 mono at `rate_hz`, any size."""
        self._waiting += data

    def clear(self) -> None:
        """Forget what has not been played."""
        self._waiting.clear()

    def pull(self) -> bytes | None:
        """Return the next frame at the channel's rate; None: there is nothing to play."""
        if not self._waiting:
            self._dry_frames += 1
            if self._draining:  # the resampler still holds the end of what was played
                self._draining = 0
                return self._resampler.process(bytes(self._size))
            return None
        if 0 < self._dry_frames <= GAP_FRAMES:
            self._counters.gaps += 1
            self._counters.gap_ms += 20.0 * self._dry_frames
        self._dry_frames = 0
        frame = self._take()
        if len(frame) < self._size:
            self._counters.padded_ms += (self._size - len(frame)) * 500 / self.rate_hz
            frame = frame.ljust(self._size, b"\0")
        self._draining = self._resampler.from_hz != self._resampler.to_hz
        return self._resampler.process(frame)

    def _take(self) -> bytes:
        frame = bytes(self._waiting[: self._size])
        del self._waiting[: self._size]
        return frame


class WarmedDownlink(Downlink):
    """The buffer of a fork that plays `streamAudio` itself (`audio-websocket.md`, section 8).

    It begins with `warm_up_ms` in hand, plays until it is empty, and of more than `most_ms` keeps the newest. It takes
    everything to be at the channel's rate.
    """

    def __init__(self, channel_hz: int, counters: Counters, *, warm_up_ms: int = 400, most_ms: int = 2000) -> None:
        super().__init__(channel_hz, channel_hz, counters)
        self._warm = warm_up_ms * channel_hz // 500
        self._most = most_ms * channel_hz // 500
        self._playing = False

    def feed(self, data: bytes) -> None:
        """Take audio; the oldest of what is too much goes."""
        super().feed(data)
        over = len(self._waiting) - self._most
        if over > 0:
            del self._waiting[:over]
            self._counters.lost_ms += over * 500 / self.rate_hz

    def clear(self) -> None:
        """Fall silent, and warm up anew."""
        super().clear()
        self._playing = False

    def pull(self) -> bytes | None:
        """Return the next frame; None: nothing is played."""
        self._playing = bool(self._waiting) and (self._playing or len(self._waiting) >= self._warm)
        if not self._playing:
            self._dry_frames += 1
            return None
        return super().pull()


class GatheredDownlink(Downlink):
    """The buffers of mod_audio_fork's bidirectional build (its source: see `wire/media/audio_fork.py`).

    What comes is gathered until it is 1280 samples, later 640, and only then goes on to be played; `clear` does not
    reach what is being gathered. A mark is a sample of -1 among the others, and samples of -1 are taken for marks.
    """

    def __init__(self, rate_hz: int, channel_hz: int, counters: Counters, told: Callable[[str, bool], None]) -> None:
        """`told`: is called with a mark's name, and whether it was played (or cleared)."""
        super().__init__(rate_hz, channel_hz, counters)
        self._told = told
        self._clears = False
        self._factor = max(rate_hz // channel_hz, 1)
        self._threshold = 1280 * 2 * self._factor
        self._gathered = bytearray()
        self._inventory: deque[str] = deque()
        self._in_use: deque[str] = deque()
        self._cleared: deque[str] = deque()

    def mark(self, name: str) -> None:
        """Put a mark behind the audio that came so far."""
        if len(self._inventory) + len(self._in_use) < MAX_MARKS:
            self._inventory.append(name)

    def feed(self, data: bytes) -> None:
        """Gather; marks go in front of the audio that comes after them."""
        for name in self._inventory:
            if self._resampler.from_hz == self._resampler.to_hz:  # else the marker does not survive the resampling
                self._in_use.append(name)
                self._gathered += MARKER
        self._inventory.clear()
        self._gathered += data
        if len(self._gathered) >= self._threshold:
            self._threshold = 640 * 2 * self._factor
            self._waiting += self._gathered
            self._gathered.clear()

    def clear(self) -> None:
        """`killAudio`: with the next frame, drop what waits to be played then."""
        self._clears = True

    def _clear_now(self) -> None:
        self._clears = False
        super().clear()
        self._cleared.extend(self._in_use)
        for name in (*self._in_use, *self._inventory):
            self._told(name, False)
        self._in_use.clear()
        self._inventory.clear()

    def pull(self) -> bytes | None:
        """Return the next frame; a mark with nothing left in front of it is told of."""
        if self._clears:
            self._clear_now()
            return None
        if not self._waiting and self._inventory:
            self._told(self._inventory.popleft(), True)
        return super().pull()

    def _take(self) -> bytes:
        frame = super()._take()
        if not self._in_use and not self._cleared:
            return frame
        samples = np.frombuffer(frame, "<i2")
        markers = samples == -1
        for _ in range(int(markers.sum())):
            if self._cleared:
                self._cleared.popleft()
            elif self._in_use:
                self._told(self._in_use.popleft(), True)
        return bytes(samples[~markers].tobytes())
