"""One 20 ms ticker for all calls: a timer per process, not a task per call."""

import asyncio
from collections.abc import Callable

from dueto.clock import Clock, monotonic

Tick = Callable[[float], bool]
"Called with the time; returns whether it wants to be called again."


class Ticker:
    """Calls everyone who asked, every `period_ms`, until they have nothing more to do.

    It runs on a monotonic deadline of its own and skips what it missed, so that it neither drifts nor bursts. Timers
    of some event loops fire up to a millisecond early; an early tick counts as on time.
    """

    def __init__(self, *, period_ms: int = 20, clock: Clock = monotonic) -> None:
        self._period_s = period_ms / 1000
        self._clock = clock
        self._ticks: dict[Tick, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._running = False

    def __len__(self) -> int:
        return len(self._ticks)

    def add(self, tick: Tick) -> None:
        """Call `tick` from the next period on; twice is once."""
        self._ticks[tick] = None
        if self._timer is None and not self._running:
            self._due = self._clock() + self._period_s
            self._timer = asyncio.get_running_loop().call_later(self._period_s, self._run)

    def remove(self, tick: Tick) -> None:
        """Don't call `tick` any more."""
        self._ticks.pop(tick, None)

    def keep_time(self, now: float) -> None:
        """Have the round that is due by `now`, if one is: asked amid much work, whose end it need not wait for."""
        if now >= self._due and self._timer is not None:
            self._timer.cancel()
            self._run()

    def _run(self) -> None:
        self._timer = None
        self._running = True  # a tick that adds another one must not start a second timer
        now = self._clock()
        for tick in tuple(self._ticks):
            try:
                if tick in self._ticks and not tick(now):
                    self._ticks.pop(tick, None)
            except Exception as error:
                self._ticks.pop(tick, None)  # one broken call must not silence the others
                asyncio.get_running_loop().call_exception_handler({"message": "a tick failed", "exception": error})
        self._running = False
        if not self._ticks:
            return
        self._due += self._period_s
        if self._due <= now:
            self._due = now + self._period_s
        self._timer = asyncio.get_running_loop().call_later(max(self._due - self._clock(), 0.0), self._run)
