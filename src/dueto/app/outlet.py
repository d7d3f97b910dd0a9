"""Where log lines leave the process. Nobody waits for whoever reads them, or for the disk they are kept on."""

import asyncio
import contextlib
import os
import select
import stat
import threading
import time
from collections.abc import Callable
from typing import Final

MOST_WAITING_BYTES: Final = 1 << 20
"Some four thousand lines; what comes on top is dropped, and counted."
AGAIN_S: Final = 0.01
"How soon what could not be written is tried again."
PIECE_BYTES: Final = 1 << 16
"What goes into a file by one system call. Into what can be full, a pipe or a socket, no more than is taken at once."


class Outlet:
    """Writes lines to a file descriptor: those of one turn of the loop by one system call at its end, others at once.

    A pipe that nobody reads (a log collector that hangs) would stop every call of a process that waits for it. So it is
    asked first, and lines wait here: in order, whole, and bounded. The same goes for a disk that is full. For threads.
    """

    __slots__ = ("__weakref__", "_dropped", "_fd", "_flushing", "_lock", "_piece_bytes", "_ready", "_tell_dropped",
                 "_waiting")  # fmt: skip

    def __init__(self, fd: int, tell_dropped: Callable[[int], None]) -> None:
        """`tell_dropped` is told how many lines were dropped, once there is room again."""
        self._fd = fd
        self._tell_dropped = tell_dropped
        self._ready = select.poll()
        with contextlib.suppress(PermissionError):  # asked by epoll's rules, a file can't be; it is always ready
            self._ready.register(fd, select.POLLOUT)
        self._piece_bytes = PIECE_BYTES if stat.S_ISREG(os.fstat(fd).st_mode) else select.PIPE_BUF
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._dropped = 0
        self._flushing: asyncio.AbstractEventLoop | None = None
        "The loop that will flush."

    def line(self, line: bytes) -> None:
        """Write a line, without its end."""
        with self._lock:
            if len(self._waiting) + len(line) >= MOST_WAITING_BYTES:
                self._dropped += 1
            else:
                self._waiting += line
                self._waiting += b"\n"
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write_out()
            return
        if self._flushing is not loop:
            self._flushing = loop
            loop.call_soon(self._turn_is_over)

    def write(self, text: str) -> int:
        """A file's method, as structlog asks for it: `text` is a line with its end."""
        self.line(text.removesuffix("\n").encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """The other one; lines leave by themselves."""

    def drain(self, patience_s: float) -> None:
        """Wait until all is written, at most `patience_s`."""
        until = time.monotonic() + patience_s
        while not self._write_out() and (left_s := until - time.monotonic()) > 0:
            self._ready.poll(min(left_s, AGAIN_S) * 1000)

    def _turn_is_over(self) -> None:
        self._flushing = None
        if not self._write_out():
            self._flushing = loop = asyncio.get_running_loop()
            loop.call_later(AGAIN_S, self._turn_is_over)

    def _write_out(self) -> bool:
        """Write what is taken without waiting; return whether that was all."""
        with self._lock:
            waiting, at = self._waiting, 0
            with contextlib.suppress(OSError):  # nobody is at the other end, the disk is full: it may get better
                while at < len(waiting) and self._ready.poll(0):
                    with memoryview(waiting)[at : at + self._piece_bytes] as piece:
                        at += os.write(self._fd, piece)
            del waiting[:at]
            if waiting:
                return False
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._tell_dropped(dropped)
        return True
