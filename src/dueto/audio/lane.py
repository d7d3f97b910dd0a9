"""The lane past the queue: what the playout ledger allows in advance, so that a live frame has nobody to ask."""

from typing import Final, final

CLOSED: Final = -1
"No frame has that size."


@final
class Lane:
    """Takes live frames while each begins where the one before it ends, or waits for that a little while.

    Made by `Playout`, which opens it, and closes it before anything else happens: then it writes down what went by.
    """

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
