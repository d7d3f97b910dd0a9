"""A call's timers, by name: when one is over, the phase machine is told."""

import asyncio
from typing import TYPE_CHECKING

from dueto.call import phase
from dueto.call.part import Part

if TYPE_CHECKING:
    from dueto.call.session import Session


class Timers(Part):
    """Runs them. None outlives the session, which stops them all once it is over."""

    __slots__ = ("_running",)

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        self._running: dict[str, asyncio.TimerHandle] = {}

    def start(self, name: str, delay_s: float, event: phase.Event) -> None:
        """Have `event` happen in `delay_s`, in place of what was running under that name."""
        self.stop(name)
        self._running[name] = asyncio.get_running_loop().call_later(delay_s, self._fired, name, event)

    def stop(self, *names: str) -> None:
        """Stop those that run."""
        for name in names:
            timer = self._running.pop(name, None)
            if timer is not None:
                timer.cancel()

    def stop_all(self, *, but: str = "") -> None:
        """Stop all, but for one."""
        self.stop(*(name for name in tuple(self._running) if name != but))

    def _fired(self, name: str, event: phase.Event) -> None:
        self._running.pop(name, None)
        self._session.happen(event)
