"""The one clock of all calls: every call gets its 20 ms frames on a deadline that never drifts."""

import asyncio
from collections.abc import Callable
from typing import Final

from dueto.clock import Clock

EARLY_S: Final = 0.001
"Timers of some loops fire up to 0.7 ms early; a slot that near is due."
CATCH_UP_S: Final = 1.0
"A stall up to this long is caught up frame by frame, as a telephone would; a longer one is skipped and counted."


class Ticker:
    """Calls every member once per frame. Members are spread over the frame, so that they don't all send at once.

    A member returns whether it woke somebody who has to go on before its next frame (a channel's thread, that plays the
    next file): of frames that are caught up, the others then wait for the next turn of the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, *, frame_s: float = 0.02, slots: int = 4) -> None:
        self._loop, self._clock = loop, clock
        self._slots: list[dict[int, Callable[[], bool]]] = [{} for _ in range(slots)]
        self._step_s = frame_s / slots
        self._next_slot = self._next_key = self._at = 0
        self._origin_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.skipped_s = 0.0
        "Time lost to stalls too long to be caught up."
        self.latest_s = 0.0
        "How late a frame was at most: what was measured then was measured by somebody who stood still himself."

    def add(self, member: Callable[[], bool]) -> Callable[[], None]:
        """Call `member` from now on; the function that is returned ends it."""
        key, slot = self._next_key, self._slots[self._next_slot]
        self._next_key += 1
        self._next_slot = (self._next_slot + 1) % len(self._slots)
        slot[key] = member
        if self._timer is None:
            self._origin_s, self._at = self._clock(), 0
            self._plan()

        def remove() -> None:
            slot.pop(key, None)

        return remove

    def close(self) -> None:
        """Stop for good."""
        for slot in self._slots:
            slot.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        due = self._origin_s + (self._at + 1) * self._step_s
        self._timer = self._loop.call_later(max(0.0, due - self._clock()), self._tick)

    def _tick(self) -> None:
        now = self._clock()
        late = now - (self._origin_s + (self._at + 1) * self._step_s)
        self.latest_s = max(self.latest_s, late)
        if late > CATCH_UP_S:
            self.skipped_s += late
            self._origin_s += late
        woke = False
        try:
            while not woke and self._origin_s + (self._at + 1) * self._step_s <= now + EARLY_S:
                self._at += 1
                for member in tuple(self._slots[self._at % len(self._slots)].values()):
                    woke |= member()
        finally:  # a call that fails must not stop the others' audio
            self._timer = None
            if any(self._slots):
                self._plan()
