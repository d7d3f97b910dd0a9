"""Messages that callers leave: one JSON line each in a file of the configuration, or handed to your own coroutine."""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from dueto.disk import DiskThread
from dueto.errors import NotCapable, SettingsError, ToolRefused

LARGEST_BYTES: Final = 256 << 20
"A file beyond this takes no more: something is wrong, or nobody reads it."

MAX_WAITING_BYTES: Final = 1 << 20
LOCK_S: Final = 5.0
"How long a message waits for another process that holds the file: less than a tool may take, so its caller is told."
LOCK_AGAIN_S: Final = 0.01


class Message(msgspec.Struct, frozen=True):
    """What somebody wants to be told to somebody else. Anybody can write anything into the texts."""

    at: str
    "When, ISO 8601 with the offset from UTC."
    call: str
    "The channel's `Unique-ID`."
    agent: str
    tenant: str
    "Whose call it was; empty: nobody's in particular."
    caller_number: str
    destination_number: str
    text: str
    caller_name: str = ""
    "As the caller gave it."
    callback: str = ""
    "Where he wants to be called back, as he gave it."
    for_whom: str = ""
    recording: str = ""
    "The switch's file with the whole call, if it is being recorded."


KeepMessage = Callable[[Message], Awaitable[None]]
"Takes a message. Raises: NotKept: the text says why, for the caller's ears."


class NotKept(ToolRefused):
    """A message could not be kept; the text says why."""


class MessageFile:
    """Appends messages to one file; whole lines or nothing, on the disk when it returns.

    Others may append to the same file, as every worker does. Each locks it (`flock`) from its size to the last byte;
    who holds it for longer than `LOCK_S`, since its disk hangs, costs the others a message, not their thread.
    """

    def __init__(self, path: Path, *, largest_bytes: int = LARGEST_BYTES) -> None:
        self._path = path
        self._largest_bytes = largest_bytes
        self._disk = DiskThread("dueto messages", MAX_WAITING_BYTES)

    def check(self) -> None:
        """Find out at start whether it can be written. Raises: SettingsError."""
        try:
            handle = self._open()
            try:
                with contextlib.suppress(BlockingIOError):  # another worker is writing: it can be locked
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(handle)
        except OSError as error:
            folder = self._path.parent
            remedy = "" if folder.exists() else f"; make its folder first: mkdir -p {folder}"
            raise SettingsError(f"[records] messages: {self._path}: {error.strerror}{remedy}") from None

    async def keep(self, message: Message) -> None:
        """Write a message. Cancelling it may leave it written. Raises: NotKept."""
        line = msgspec.json.encode(message) + b"\n"
        try:
            await self._disk.run(lambda: self._append(line), len(line))
        except OSError as error:
            raise NotKept(f"the message could not be stored: {error.strerror}") from None
        except NotCapable as error:
            raise NotKept(f"the message could not be stored: {error}") from None

    def _append(self, line: bytes) -> None:
        handle = self._open()
        try:
            _lock(handle)  # what is cut off again below is a line of our own
            size = os.fstat(handle).st_size
            if size + len(line) > self._largest_bytes:
                raise OSError(0, f"{self._path.name} is full")
            try:
                written = os.write(handle, line)
                if written != len(line):
                    raise OSError(0, "the disk is full")
                os.fsync(handle)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size)  # no half line that the next one would be glued to
                raise
        finally:
            os.close(handle)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(self._path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(0, "not a file")
        return handle


def _lock(handle: int) -> None:
    until = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise OSError(0, f"another process has held the file for {LOCK_S:g} s") from None
            time.sleep(LOCK_AGAIN_S)
        else:
            return
