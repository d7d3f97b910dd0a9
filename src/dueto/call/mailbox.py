"""What waits for the agent: typed events in order, bounded; the hangup has a slot of its own and always arrives."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from dueto.call.events import CallEvent, HungUp
from dueto.errors import AgentTooSlow

MAX_WAITING_EVENTS = 1000


class Mailbox:
    """Between a call and its agent."""

    __slots__ = ("_events", "_hung_up", "_waiter")

    def __init__(self) -> None:
        self._events: deque[CallEvent] = deque()
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

    async def read(self) -> AsyncIterator[CallEvent]:
        """Yield the events; HungUp is the last."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._hung_up is not None:
                yield self._hung_up
                return
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
