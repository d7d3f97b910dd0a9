"""What waits for the agent: typed events in order, bounded; the hangup has a slot of its own and always arrives."""

import asyncio
from collections.abc import AsyncIterator, Callable

from dueto.call.events import CallEvent, HungUp
from dueto.errors import AgentTooSlow

MAX_WAITING_EVENTS = 1000


class Mailbox:
    """Between a call and its agent."""

    __slots__ = ("_events", "_hung_up", "_waiter")

    def __init__(self) -> None:
        self._events: list[CallEvent] = []
        self._hung_up: HungUp | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: CallEvent) -> None:
        """Keep `event` for the agent. Raises: AgentTooSlow: 1000 are waiting; this one is dropped."""
        if isinstance(event, HungUp):
            self._hung_up = self._hung_up or event
        elif len(self._events) >= MAX_WAITING_EVENTS:
            raise AgentTooSlow(f"{MAX_WAITING_EVENTS} events are waiting for the agent")
        else:
            self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def read(self, at_hangup: Callable[[], None] = lambda: None) -> AsyncIterator[CallEvent]:
        """Iterate over the events; HungUp is the last. `at_hangup` is called right before it is handed out."""
        return _Reading(self, at_hangup)


class _Reading:
    """One reader of a mailbox. No generator: an agent that returns in mid-loop would leave one to the collector."""

    __slots__ = ("_at_hangup", "_mailbox", "_over")

    def __init__(self, mailbox: Mailbox, at_hangup: Callable[[], None]) -> None:
        self._mailbox = mailbox
        self._at_hangup = at_hangup
        self._over = False

    def __aiter__(self) -> AsyncIterator[CallEvent]:
        return self

    async def __anext__(self) -> CallEvent:
        mailbox = self._mailbox
        while not self._over:
            if mailbox._events:
                return mailbox._events.pop(0)
            if mailbox._hung_up is not None:
                self._over = True
                self._at_hangup()
                return mailbox._hung_up
            mailbox._waiter = asyncio.get_running_loop().create_future()
            try:
                await mailbox._waiter
            finally:
                mailbox._waiter = None
        raise StopAsyncIteration
