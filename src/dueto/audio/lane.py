"""Lanes past the queue: what the playout ledger allows in advance, so that a frame has nobody to ask.

Made by `Playout`, which opens them, writes down what went by before it answers anything, and closes them before
anything changes.
"""

from collections import deque
from typing import Final, final

CLOSED: Final = -1
"No frame has that size."
_NOTHING: Final[deque[bytes]] = deque(maxlen=0)


@final
class Lane:
    """Takes live frames while each begins where the one before it ends, or waits for that a little while."""

    __slots__ = ("_frame_s", "ahead_s", "frame_bytes", "frames", "noted", "until_s")

    def __init__(self, frame_s: float, ahead_s: float) -> None:
        self._frame_s = frame_s
        self.ahead_s = ahead_s
        "How far ahead of the caller's ear live audio may stand for good."
        self.frame_bytes = CLOSED
        "The size of a frame that it takes."
        self.until_s = 0.0
        "When the last frame that it took ends at the caller."
        self.frames = 0
        "How many it has ever taken."
        self.noted = 0
        "How many of them are written down."

    def takes(self, size: int, now: float) -> bool:
        """Whether a frame of `size` bytes may go at `now`: it is to be sent, and counts as sent."""
        until_s = self.until_s
        if size != self.frame_bytes or not until_s - self.ahead_s <= now <= until_s:
            return False
        self.until_s = until_s + self._frame_s
        self.frames += 1
        return True


@final
class VoiceLane:
    """Gives the frames of a bursty utterance that plays on, while what is ahead of the caller's ear stays as it is."""

    __slots__ = ("_frame_s", "_frames", "_kept", "_least_s", "_most_s", "noted", "taken", "until_s")

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s
        self._frames = self._kept = _NOTHING
        self._least_s = self._most_s = 0.0
        self.until_s = 0.0
        "When the last frame that it gave ends at the caller."
        self.taken = 0
        "How many it has ever given."
        self.noted = 0
        "How many of them are written down."

    def open(self, frames: deque[bytes], kept: deque[bytes], until_s: float, least_s: float, most_s: float) -> None:
        """Give `frames` from now on, and leave each to `kept`, while from `least_s` to `most_s` are ahead."""
        self._frames, self._kept, self.until_s = frames, kept, until_s
        self._least_s, self._most_s = least_s, most_s

    def close(self) -> None:
        """Give none."""
        self._frames = self._kept = _NOTHING

    def next(self, now: float) -> bytes | None:
        """Return the frame that is to be sent at `now`; it counts as sent. None: ask the ledger."""
        frames, until_s = self._frames, self.until_s
        if not frames or not self._least_s <= until_s - now <= self._most_s:
            return None
        self.until_s = until_s + self._frame_s
        self.taken += 1
        frame = frames.popleft()
        self._kept.append(frame)
        return frame
