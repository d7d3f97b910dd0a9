"""A loop whose clock jumps: hours of telephone calls in seconds, the same every time."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple, Unpack

START_S: Final = 1000.0
"Where virtual time begins: not at zero, so that a moment is never taken for none."
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualTimeDeadlock(RuntimeError):
    """Nothing is ready and nothing is planned: whatever is still waited for can never come."""


class _JumpingSelector(selectors.BaseSelector):
    """Asks the real selector without waiting, and moves the loop's clock instead of sleeping."""

    def __init__(self, loop: "VirtualTimeLoop") -> None:
        self._real = selectors.DefaultSelector()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._loop.working_threads and timeout != 0:
            return self._real.select(None)  # a thread's result has no virtual moment: time waits for it
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise VirtualTimeDeadlock(self._loop.describe_deadlock())
        self._loop.jump(max(timeout, 0.0))
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop for tests: when nothing is ready, `time()` jumps to the next timer.

    Everything that plans through the loop (`asyncio.sleep`, `asyncio.timeout`, `call_later`) runs on it unchanged.
    Sockets can't: what they carry has no virtual moment, so asking for one raises RuntimeError; `pipes.pipe` takes
    their place. Work in threads (`run_in_executor`, `asyncio.to_thread`) is waited for while time stands still.

    Raises: VirtualTimeDeadlock: out of `run_until_complete`, when nothing is ready and no timer is set; the text names
        the tasks that wait.
    """

    def __init__(self, start_s: float = START_S) -> None:
        self._virtual_now = start_s
        self.working_threads = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual_now

    def jump(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self._virtual_now += seconds

    def describe_deadlock(self) -> str:
        """Say who waits, for the error's text."""
        waiting = sorted(f"{task.get_name()} in {task.get_coro()}" for task in asyncio.all_tasks(self))
        who = "; ".join(waiting) or "nobody"
        return f"at {self._virtual_now:.3f} s nothing is ready and no timer is set; waiting: {who}"

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        future = super().run_in_executor(executor, func, *args)
        self.working_threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self.working_threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.working_threads -= 1

    def _thread_done(self, _future: "asyncio.Future[Any]") -> None:
        self.working_threads -= 1

    def _no_sockets(self) -> NoReturn:
        raise RuntimeError("a socket has no virtual time: connect memory pipes (dueto.sim.pipe), or use a real loop")

    async def create_connection(self, *_args: Any, **_kwargs: Any) -> Any:
        self._no_sockets()

    async def create_server(self, *_args: Any, **_kwargs: Any) -> Any:
        self._no_sockets()

    async def create_datagram_endpoint(self, *_args: Any, **_kwargs: Any) -> Any:
        self._no_sockets()


def run_virtual(main: Coroutine[Any, Any, T], *, start_s: float = START_S) -> T:
    """Run `main` to its end on a fresh VirtualTimeLoop and return its result. What `asyncio.run` is on a real one.

    Raises: VirtualTimeDeadlock: `main` waits for something that can never come.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start_s)) as runner:
        return runner.run(main)
