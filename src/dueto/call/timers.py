"""A call's timers, by name: when one is over, the phase machine is told."""

import asyncio
from operator import itemgetter
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

    def start(self, name: str, *due: tuple[float, phase.Event]) -> None:
        """Have each event happen so many seconds from now, in place of what was running under that name."""
        self.stop(name)
        now = asyncio.get_running_loop().time()
        self._next(name, sorted([(now + delay_s, event) for delay_s, event in due], key=itemgetter(0)))

    def stop(self, *names: str) -> None:
        """Stop those that run."""
        for name in names:
            timer = self._running.pop(name, None)
            if timer is not None:
                timer.cancel()

    def stop_all(self, *, but: str = "") -> None:
        """Stop all, but for one."""
        self.stop(*[name for name in self._running if name != but])

    def _next(self, name: str, due: list[tuple[float, phase.Event]]) -> None:
        if due:
            self._running[name] = asyncio.get_running_loop().call_at(due[0][0], self._fired, name, due)

    def _fired(self, name: str, due: list[tuple[float, phase.Event]]) -> None:
        del self._running[name]
        (_, event), *later = due
        self._next(name, later)
        self._session.happen(event)
