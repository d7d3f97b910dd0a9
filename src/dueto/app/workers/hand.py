"""One worker, as the parent sees it."""

import asyncio
import socket
from typing import Any, Final

from dueto.app.workers.pipe import Pipe
from dueto.app.workers.worker import Post
from dueto.errors import SettingsError

ANSWER_S: Final = 1.0
"How long a worker may take to say what it counted, or what becomes of a bot's request."


class Hand:
    """Its process, what it told of itself, and what may be asked of it."""

    def __init__(self, post: Post, process: asyncio.subprocess.Process, pipe: Pipe, connections: socket.socket) -> None:
        self.post = post
        self.process = process
        self.pipe = pipe
        self.connections = connections
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.serving = False
        "Whether new calls go to it."
        self.passed = 0
        self._taken = 0
        self._calls = 0
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}

    @property
    def load(self) -> int:
        """Its calls, and those that are under way to it."""
        return self._calls + self.passed - self._taken

    def told(self, line: dict[str, Any]) -> None:
        """Something the worker says."""
        if "ready" in line and not self.ready.done():
            self.ready.set_result(None)
        elif "failed" in line and not self.ready.done():
            self.ready.set_exception(SettingsError(str(line["failed"])))
        elif "calls" in line:
            self._calls, self._taken = int(line["calls"]), int(line["taken"])
        elif (asked := self._asked.pop(line.get("to", -1), None)) is not None and not asked.done():
            asked.set_result(line)

    async def metrics(self) -> str:
        """What it counted. Raises: TimeoutError."""
        return str((await self.ask("metrics"))["text"])

    async def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """Ask it for something; return what it says. Raises: TimeoutError."""
        number = max(self._asked, default=0) + 1
        self._asked[number] = asyncio.get_running_loop().create_future()
        self.pipe.write(ask=what, number=number, **fields)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._asked[number]
        finally:
            self._asked.pop(number, None)

    def end(self, how: str) -> None:
        """Have it `retire` (its calls go on to their end), `drain`, or `close` at once."""
        self.serving = False
        self.pipe.write(end=how, passed=self.passed)
