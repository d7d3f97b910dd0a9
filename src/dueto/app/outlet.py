"""Where log lines leave the process. Nobody waits for whoever reads them, or for the disk they are kept on."""

import asyncio
import contextlib
import os
import select
import socket
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
"What goes into a file by one system call. Into a pipe it is what is taken whole or not at all: workers may share it."


class Outlet:
    """Writes lines to a file descriptor: those of one turn of the loop together at its end, others at once.

    A pipe that nobody reads (a log collector that hangs) would stop every call of a process that waits for it. So what
    is not taken at once waits here: in order, whole, and bounded. The same goes for a disk that is full. For threads.
    """

    __slots__ = ("__weakref__", "_dropped", "_flushing", "_let_go", "_lock", "_piece_bytes", "_put", "_tell_dropped",
                 "_waiting")  # fmt: skip

    def __init__(self, fd: int, tell_dropped: Callable[[int], None]) -> None:
        """`tell_dropped` is told how many lines were dropped, once there is room again."""
        self._put, self._let_go = _never_waiting(fd)
        self._piece_bytes = PIECE_BYTES if stat.S_ISREG(os.fstat(fd).st_mode) else select.PIPE_BUF
        self._tell_dropped = tell_dropped
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
        while not self._write_out() and time.monotonic() < until:
            time.sleep(AGAIN_S)

    def close(self, patience_s: float) -> None:
        """Write what waits, for at most `patience_s`, and no more after that. The file itself stays open."""
        self.drain(patience_s)
        with self._lock:
            self._put = _nowhere
        self._let_go()

    def _turn_is_over(self) -> None:
        self._flushing = None
        if not self._write_out():
            self._flushing = loop = asyncio.get_running_loop()
            loop.call_later(AGAIN_S, self._turn_is_over)

    def _write_out(self) -> bool:
        """Write what is taken at once; return whether that was all."""
        with self._lock:
            waiting, at = self._waiting, 0
            with contextlib.suppress(OSError):  # not taken now; nobody is at the other end, the disk is full: it may be
                while at < len(waiting):
                    whole = waiting.rfind(b"\n", at, at + self._piece_bytes) + 1 or waiting.find(b"\n", at) + 1
                    at += self._put(bytes(waiting[at : whole or None]))
            del waiting[:at]
            if waiting:
                return False
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._tell_dropped(dropped)
        return True


def _never_waiting(fd: int) -> tuple[Callable[[bytes], int], Callable[[], None]]:
    """Return what writes to `fd` and raises BlockingIOError where that would have to wait; and what gives it back.

    To make `fd` itself non-blocking would do so for every process that has it, a terminal's shell for one.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        sock = socket.socket(fileno=os.dup(fd))
        return lambda data: sock.send(data, socket.MSG_DONTWAIT), sock.close
    if stat.S_ISFIFO(mode):
        with contextlib.suppress(OSError):
            pipe = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            return lambda data: os.write(pipe, data), lambda: os.close(pipe)
    return lambda data: os.write(fd, data), lambda: None


def _nowhere(data: bytes) -> int:
    return len(data)
