"""The caller's end of audio that is streamed down: it comes as it comes and is played in real time."""

from typing import Final

from dueto.audio import Resampler, frame_bytes
from dueto.sim.counters import Counters

GAP_FRAMES: Final = 15
"Silence up to this long (300 ms) between two pieces of audio is a gap in one of them."


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
        frame = bytes(self._waiting[: self._size])
        del self._waiting[: self._size]
        if len(frame) < self._size:
            self._counters.padded_ms += (self._size - len(frame)) * 500 / self.rate_hz
            frame = frame.ljust(self._size, b"\0")
        self._draining = self._resampler.from_hz != self._resampler.to_hz
        return self._resampler.process(frame)
