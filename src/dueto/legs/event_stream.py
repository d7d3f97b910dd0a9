"""A control leg for people who want only that: its events, one by one, with back-pressure."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from dueto.errors import LegClosed
from dueto.legs.esl_outbound import OutboundLeg
from dueto.legs.ports import ControlDoor, ControlLeg, ControlSink
from dueto.wire.esl import Event

MOST_EVENTS = 1000
"How many events may wait before the leg stops reading; the switch keeps them meanwhile, up to 100000."


class EventStream(ControlSink):
    """`async for event in EventStream(leg)`: every event in order, until the leg ends. One reader.

    A reader that falls behind makes the leg stop reading its socket: nothing is lost and memory stays flat.
    """

    def __init__(self, leg: OutboundLeg, *, most: int = MOST_EVENTS) -> None:
        self.leg = leg
        self.reason = ""
        "Why the leg ended; empty while it lives."
        self.lingering = asyncio.Event()
        "Set once the switch has said that the channel is gone and the socket stays a while."
        self._events: deque[Event] = deque()
        self._most = most
        self._paused = False
        self._changed = asyncio.Event()
        leg.attach(self)

    def __len__(self) -> int:
        return len(self._events)

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self.reason:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        event = self._events.popleft()
        if self._paused and len(self._events) <= self._most // 2:
            self._paused = False
            self.leg.resume_reading()
        return event

    async def wait_for(self, name: str) -> Event:
        """Read on to the next event called `name`. Raises: LegClosed: the leg ended before it came."""
        async for event in self:
            if event.name == name:
                return event
        raise LegClosed(f"no {name} before the end: {self.reason}")

    def control_event(self, leg: ControlLeg, event: Event) -> None:
        """Keep the event; stop reading where too many wait."""
        self._events.append(event)
        self._changed.set()
        if len(self._events) >= self._most and not self._paused:
            self._paused = True
            self.leg.pause_reading()

    def control_lingering(self, leg: ControlLeg) -> None:
        """The channel is gone."""
        self.lingering.set()

    def control_closed(self, leg: ControlLeg, reason: str) -> None:
        """Nothing more comes; what waits can still be read."""
        self.reason = reason or "closed"
        self._changed.set()


class Calls(ControlDoor):
    """A door that runs `handler(leg, events)` for each channel that comes in. `ControlServer(Calls(handler), ...)`

    When the handler returns, or fails, the leg is let go. `aclose` cancels the handlers that still run.
    """

    def __init__(self, handler: Callable[[OutboundLeg, EventStream], Awaitable[None]]) -> None:
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()

    def control_came(self, leg: ControlLeg) -> None:
        """Run the handler as a task of ours."""
        assert isinstance(leg, OutboundLeg)
        task = asyncio.get_running_loop().create_task(self._run(leg), name=f"{leg.unique_id} handler")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refused(self, leg: str, reason: str, peer: str) -> None:
        """A connection was turned away; override it to hear of that."""

    async def aclose(self) -> None:
        """Cancel what runs and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, leg: OutboundLeg) -> None:
        try:
            await self._handler(leg, EventStream(leg))
        except Exception as error:
            message = f"the handler of {leg.unique_id} failed"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
        finally:
            leg.notify_session_ended("the handler is done")
