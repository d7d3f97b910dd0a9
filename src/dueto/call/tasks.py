"""Every task of a call has an owner: this."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """Tasks that live no longer than their call. One that fails is reported, never lost."""

    __slots__ = ("_failed", "_on_empty", "_prefix", "_running")

    def __init__(self, prefix: str, failed: Callable[[str, BaseException], None], on_empty: Callable[[], None]) -> None:
        self._prefix = prefix
        self._failed = failed
        self._on_empty = on_empty
        self._running: set[asyncio.Task[Any]] = set()

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `coroutine` as a task called `name`."""
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self._prefix} {name}")
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def cancel(self, *, but: asyncio.Task[Any] | None = None) -> None:
        """Cancel all of them, except `but`."""
        for task in self._running:
            if task is not but:
                task.cancel()

    def release(self) -> None:
        """None runs and none will: tell nobody any more."""
        self._failed, self._on_empty = _unheard, _nothing

    async def finish(self, patience_s: float) -> None:
        """Let them come to their end; what has not by then is cancelled."""
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=patience_s)
        self.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(task.get_name(), error)
        if not self._running:
            self._on_empty()


def _unheard(name: str, error: BaseException) -> None:
    pass


def _nothing() -> None:
    pass
