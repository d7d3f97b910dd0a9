"""Background jobs of one socket: a result is known by the Job-UUID that we chose, and reaches nobody else."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

from dueto.errors import CommandRefused, LegClosed, LocalProtocolError, ReplyTimeout
from dueto.wire.esl import Event

MAX_JOBS = 1000
"How many jobs may wait for their result."


class Jobs:
    """The jobs whose results are awaited."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[str]] = {}

    @contextlib.asynccontextmanager
    async def job(self, what: str, timeout_s: float) -> AsyncIterator[tuple[str, "asyncio.Future[str]"]]:
        """Yield a Job-UUID and the future of its result. One that comes after the block has ended is dropped.

        Raises: ReplyTimeout: the block took longer than `timeout_s`. LocalProtocolError: too many jobs wait.
        """
        if len(self._waiting) >= MAX_JOBS:
            raise LocalProtocolError(f"{MAX_JOBS} jobs are waiting for the switch")
        job_uuid = str(uuid.uuid4())
        done = self._waiting[job_uuid] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                yield job_uuid, done
        except TimeoutError:
            raise ReplyTimeout(f"the job {what} did not end within {timeout_s} s") from None
        finally:
            self._waiting.pop(job_uuid, None)

    def take(self, event: Event) -> None:
        """A BACKGROUND_JOB came."""
        done = self._waiting.get(event.get("Job-UUID"))
        if done is not None and not done.done():
            done.set_result(event.body)

    def fail(self, error: LegClosed) -> None:
        """The socket ended."""
        for done in self._waiting.values():
            if not done.done():
                done.set_exception(error)
                done.exception()  # who waits is told; where nobody does the loop must not complain


def output_of(text: str) -> str:
    """Return an api command's output, trimmed. Raises: CommandRefused: it begins with -ERR or -USAGE."""
    text = text.strip()
    if text.startswith(("-ERR", "-USAGE")):
        raise CommandRefused(text)
    return text
