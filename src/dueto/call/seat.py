"""The agent's seat in a call: its one task, what waits for it, and how it is brought to an end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from dueto.call import phase
from dueto.call.events import CallEvent
from dueto.call.house import Route
from dueto.call.mailbox import Mailbox
from dueto.call.part import Part
from dueto.call.ports import Forewarned, forewarned
from dueto.errors import AgentTooSlow, CallEnded, DuetoError

if TYPE_CHECKING:
    from dueto.call.call import Call
    from dueto.call.session import Session

CANCELS = 3
"How often, a second apart, an agent is cancelled before we go on without it."


class Seat(Part):
    """Runs the agent once. Whatever becomes of it, the phase machine is told exactly once."""

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        self._mailbox = Mailbox()
        self._task: asyncio.Task[None] | None = None
        self._reported = False
        self._timer: asyncio.TimerHandle | None = None
        self._taps: list[Callable[[CallEvent], None]] = []
        self._forewarned: Forewarned | None = None

    @contextlib.contextmanager
    def tapped(self, tap: Callable[[CallEvent], None]) -> Iterator[None]:
        """Show every event to `tap` too, as long as the block runs; who reads the events misses none for it."""
        self._taps.append(tap)
        try:
            yield
        finally:
            self._taps.remove(tap)

    def expect(self) -> None:
        """The control leg is here, the stream is on its way: let the agent that will be get ready."""
        house = self._session.house
        self._forewarned = forewarned(house.agent if house.route is None else house.route.foresee(self._call()))
        if self._forewarned is not None:
            self._forewarned.expect(self._session.unique_id)

    def forget(self) -> None:
        """It need not be ready any more."""
        agent, self._forewarned = self._forewarned, None
        if agent is not None and agent.forget(self._session.unique_id):
            self._session.journal("ready_in_vain", name=self._session.house.agent_name)

    @property
    def taken(self) -> bool:
        """Whether the agent's task runs."""
        return self._task is not None

    def start(self) -> None:
        """Run the agent."""
        session = self._session
        if session.house.route is None:
            session.journal("agent_started", name=session.house.agent_name)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"{session.unique_id} agent")

    def tell(self, event: CallEvent) -> None:
        """Keep an event for the agent; one that lets a thousand wait has failed."""
        for tap in tuple(self._taps):
            tap(event)
        try:
            self._mailbox.put(event)
        except AgentTooSlow as error:
            if self._task is not None and not self._reported:
                self._report(error)
                self.close(0.0)

    def events(self) -> AsyncIterator[CallEvent]:
        """What waits, and what comes; HungUp is the last."""
        return self._mailbox.read(self._session.hangup_delivered)

    def close(self, patience_s: float) -> None:
        """Give the agent `patience_s` to return, then cancel it; do without it if it does not even heed that."""
        if self._task is not None:
            self._plan(patience_s, CANCELS)

    def _plan(self, delay_s: float, cancels: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._cancel, cancels)

    def _cancel(self, cancels: int) -> None:
        if self._task is None:
            return
        if cancels:
            self._task.cancel()
            self._plan(1.0, cancels - 1)
        else:
            self._session.journal("agent_stuck", name=self._session.house.agent_name)
            self._left()

    async def _run(self) -> None:
        session = self._session
        error: BaseException | None = None
        try:
            call = self._call()
            if session.house.route is not None:
                await self._route(call, session.house.route)
            if forewarned(session.house.agent) is not self._forewarned:
                self.forget()
            await session.house.agent(call)
        except asyncio.CancelledError:
            error = None if session.ended else DuetoError("cancelled")
        except Exception as raised:
            if not (session.ended and isinstance(raised, CallEnded)):
                error = raised
        try:
            self._report(error)
        finally:
            del error  # whose traceback holds this very frame
        self._left()

    async def _route(self, call: "Call", route: Route) -> None:
        session = self._session
        session.house = await route(call)
        session.mouth = session.house.mouth
        session.journal("agent_started", name=session.house.agent_name)

    def _report(self, error: BaseException | None) -> None:
        """Tell the journal and the machine how the agent ended; once."""
        session = self._session
        if self._reported:
            return
        self._reported = True
        if error is None:
            session.journal("agent_finished")
            session.happen(phase.AgentDone())
            return
        session.journal("agent_failed", error=f"{type(error).__name__}: {error}")
        if not isinstance(error, DuetoError):  # a bug in the agent: its author needs the traceback
            session.log.error("agent_traceback", exc_info=error)
        session.happen(phase.AgentFailed())

    def _left(self) -> None:
        self._task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._session.check_over()

    def _call(self) -> "Call":
        from dueto.call.call import Call  # the agent's face of the session, which knows the session and not we it

        return Call(self._session)
