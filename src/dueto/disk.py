"""A thread that works on files for all calls: a disk that is full, slow or hangs costs no call anything.

The loop's own pool of threads would not do: files that hang would keep it from looking up names, and the process from
ending.
"""

import asyncio
import queue
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from dueto.errors import NotCapable

T = TypeVar("T")


class DiskThread:
    """Does one piece of work after the other, in the order in which it was asked for."""

    def __init__(self, name: str, most_waiting_bytes: int) -> None:
        """`name`: the thread's. It begins with the first piece of work, ends with `self`, keeps no process alive."""
        self._name = name
        self._most_waiting_bytes = most_waiting_bytes
        self._waiting_bytes = 0
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._end = weakref.finalize(self, self._jobs.put, None)
        self._end.atexit = False
        self._closed = False

    def do(self, work: Callable[[], T], done: Callable[[T | Exception], object], size_bytes: int = 0) -> None:
        """Let the thread do `work`; `done` gets what it returned or raised, on the loop.

        `size_bytes`: what is kept in memory until then; work of no size is never refused.
        Raises: NotCapable: too much waits already.
        """
        if size_bytes and self._waiting_bytes + size_bytes > self._most_waiting_bytes:
            raise NotCapable("the disk is too slow: too much waits to be written")
        loop = asyncio.get_running_loop()
        if self._closed:
            loop.call_soon(done, NotCapable("nothing more is written: the gateway is closed"))
            return
        self._waiting_bytes += size_bytes

        def tell(result: T | Exception) -> None:
            self._waiting_bytes -= size_bytes
            done(result)

        def job() -> None:
            result: T | Exception
            try:
                result = work()
            except Exception as error:
                result = error
            with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                loop.call_soon_threadsafe(tell, result)

        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=partial(_work_off, self._jobs), name=self._name, daemon=True)
            self._thread.start()

    async def run(self, work: Callable[[], T], size_bytes: int = 0) -> T:
        """Do `work`, and return what it returns or raise what it raises. Cancelled, it is done all the same.

        Raises: NotCapable: too much waits already.
        """
        future: asyncio.Future[T | Exception] = asyncio.get_running_loop().create_future()

        def done(result: T | Exception) -> None:
            if not future.done():
                future.set_result(result)

        self.do(work, done, size_bytes)
        result = await future
        if isinstance(result, Exception):
            raise result
        return result

    async def flushed(self) -> None:
        """Wait until all that was asked for so far is done, or has failed."""
        if self._thread is not None and not self._closed:
            await self.run(lambda: None)

    async def aclose(self, within_s: float) -> None:
        """Let what waits be done, and take no more; what hangs for longer than that is left behind."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.flushed()
        self._closed = True
        self._end()


def _work_off(jobs: "queue.SimpleQueue[Callable[[], None] | None]") -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # or it kept its call until the next one
