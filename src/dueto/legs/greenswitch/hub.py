"""gevent's hub in a thread of its own, nothing patched, and a way in that wakes it at once and never waits."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import gevent
import gevent.event

from dueto.errors import LegClosed

Report = Callable[[BaseException], None]
"Where an error goes that nobody waits for. Called in any greenlet of the hub's thread; must not raise."

LAST_S = 0.5
"How long greenlets that still run may take when the hub is to end."


class HubThread:
    """One thread that runs one hub. Start it once, stop it once."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._thread: threading.Thread | None = None
        self._calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._watcher: Any = None
        self._watcher_lock = threading.Lock()  # guards _watcher: nobody may send to one that is being closed
        self._stopping: Any = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    async def start(self) -> None:
        """Start the thread and return when its hub takes calls."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def tell(error: BaseException | None) -> None:
            if ready.done():
                return
            if error is None:
                ready.set_result(None)
            else:
                ready.set_exception(error)

        self._thread = threading.Thread(
            target=self._run, args=(lambda error: loop.call_soon_threadsafe(tell, error),), name="dueto greenswitch"
        )
        self._thread.daemon = True  # a hub that is stuck must not keep the process from ending
        self._thread.start()
        await ready

    def call_soon(self, call: Callable[..., object], *arguments: object) -> bool:
        """Have `call` run in the hub; False where there is none any more. From any thread; never waits.

        It runs in the hub's own greenlet, so it must not block: what takes longer, it spawns.
        """
        with self._watcher_lock:
            if self._watcher is None:
                return False
            self._calls.append((call, arguments))
            self._watcher.send()
        return True

    async def call(self, call: Callable[..., object], *arguments: object, timeout_s: float) -> None:
        """As `call_soon`, and return when it has run.

        Raises: LegClosed: there is no hub. TimeoutError: it is stuck. What `call` raises is raised here.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell(error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def run() -> None:
            error: BaseException | None = None
            try:
                call(*arguments)
            except Exception as raised:
                error = raised
            loop.call_soon_threadsafe(tell, error)

        if not self.call_soon(run):
            raise LegClosed("the greenswitch hub is not running")
        async with asyncio.timeout(timeout_s):
            await done

    async def stop(self, timeout_s: float) -> bool:
        """End the hub and its thread; whether the thread ended in time."""
        if self._thread is None:
            return True
        self.call_soon(self._stop)
        await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    # -- the thread's side

    def _stop(self) -> None:
        self._stopping.set()

    def _run(self, tell: Callable[[BaseException | None], object]) -> None:
        try:
            hub = gevent.get_hub()
            hub.handle_error = self._handle_error  # gevent's own way to say where lost exceptions go
            self._stopping = gevent.event.Event()
            watcher = hub.loop.async_()
            watcher.start(self._run_calls)
            with self._watcher_lock:
                self._watcher = watcher
        except BaseException as error:
            tell(error)
            return
        tell(None)
        try:
            self._stopping.wait()
        finally:
            with self._watcher_lock:
                self._watcher = None
            watcher.stop()
            watcher.close()
            hub.join(timeout=LAST_S)  # nothing to wait for, unless the hub was stuck when everyone was told to end
            hub.destroy(destroy_loop=True)

    def _run_calls(self) -> None:
        for _ in range(len(self._calls)):  # what comes meanwhile has a wake-up of its own
            call, arguments = self._calls.popleft()
            try:
                call(*arguments)
            except Exception as error:
                self._report(error)

    def _handle_error(
        self, context: object, kind: type[BaseException], value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, gevent.hub.HubDestroyed):
            raise kind if value is None else value
        if not issubclass(kind, gevent.GreenletExit):
            self._report(value if value is not None else kind())
