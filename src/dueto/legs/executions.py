"""Which queued application completed: both engines match CHANNEL_EXECUTE_COMPLETE by Application-UUID here."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from dueto.errors import Dropped, DuetoError
from dueto.wire.esl import Event

MAX_WAITING = 240
"The switch queues 256 sendmsg per channel and closes the socket, without a reply, on the next (measured)."


@dataclass(eq=False, slots=True)
class Execution:
    """One application on its way: sent, perhaps running, not completed."""

    event_uuid: str
    done: asyncio.Future[Event]
    on_start: Callable[[], None] | None = None
    started: bool = False
    sent: bool = False
    "Whether the switch may have it in its queue; the engine says so, and takes it back if the sendmsg is refused."
    placed: bool = True
    "Whether it holds one of the places; it does from `begin` until it starts or the switch drops it."


@dataclass(slots=True)
class Executions:
    """The executions of one channel.

    A place is a sendmsg in the switch's queue, not somebody's patience: giving up the waiting does not free it.
    """

    _open: dict[str, Execution] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_WAITING))

    async def begin(self, on_start: Callable[[], None] | None) -> Execution:
        """Take a place among those the switch can queue, waiting for one where need be. Safe to cancel."""
        await self._slots.acquire()
        execution = Execution(str(uuid.uuid4()), asyncio.get_running_loop().create_future(), on_start)
        execution.done.add_done_callback(_retrieve)
        self._open[execution.event_uuid] = execution
        return execution

    def forget(self, execution: Execution) -> None:
        """Nobody waits for it any more. If the switch still has it queued, its place is kept until it starts."""
        execution.done.cancel()
        if not (execution.sent and execution.placed):
            self._close(execution)

    def take(self, name: str, event: Event) -> None:
        """Read a CHANNEL_EXECUTE or CHANNEL_EXECUTE_COMPLETE; others have no place here."""
        execution = self._open.get(event.get("Application-UUID")) if self._open else None
        if execution is None:
            return
        self._release(execution)
        if execution.done.cancelled():
            self._close(execution)
        elif name == "CHANNEL_EXECUTE":
            if not execution.started:
                execution.started = True
                if execution.on_start is not None:
                    execution.on_start()
        elif not execution.done.done():
            execution.done.set_result(event)

    def waiting(self) -> list[Execution]:
        """Those that have not begun, as far as we heard."""
        return [execution for execution in self._open.values() if not execution.started]

    def drop(self, executions: list[Execution]) -> None:
        """`uuid_break all` threw these away (no event tells of it); those that began after all live on."""
        for execution in executions:
            if not execution.started:
                self._end(execution, Dropped("the switch dropped the application before it began"))

    def fail(self, error: DuetoError) -> None:
        """Nothing completes any more."""
        for execution in tuple(self._open.values()):
            self._end(execution, error)

    def _end(self, execution: Execution, error: DuetoError) -> None:
        self._release(execution)
        if execution.done.cancelled():
            self._close(execution)
        elif not execution.done.done():
            execution.done.set_exception(error)

    def _close(self, execution: Execution) -> None:
        self._release(execution)
        self._open.pop(execution.event_uuid, None)

    def _release(self, execution: Execution) -> None:
        if execution.placed:
            execution.placed = False
            self._slots.release()


def _retrieve(future: asyncio.Future[Event]) -> None:
    if not future.cancelled():
        future.exception()  # whoever waited may have given up; the loop must not complain of that
