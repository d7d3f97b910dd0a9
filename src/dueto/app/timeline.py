"""A file for each call with all that happened in it: events, what was said, tools and their outcomes, latencies.

One JSON object a line, redacted as the log is. The disk is no part of a call: a thread of its own writes, what waits
for it is bounded, and what can't be written is lost, counted and told once.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from dueto.app.journal import Fields
from dueto.app.redact import redact
from dueto.clock import Clock, monotonic
from dueto.disk import DiskThread
from dueto.errors import NotCapable, SettingsError

EVERY_S: Final = 1.0
"What happened in a call waits no longer than this, and the next event, to be written."
MAX_WAITING_BYTES: Final = 16 << 20
MAX_CALLS: Final = 10_000
"Calls that are remembered; of more there are no files."
CLOSE_S: Final = 5.0
BEGINNINGS: Final = ("control_connected", "media_connected")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(slots=True)
class _Call:
    path: Path
    began: float
    written: float
    lines: list[bytes] = field(default_factory=list)


class Timelines:
    """Implements `dueto.call.house.Journal`, by its method `journal`."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock = monotonic,
        local_time: Callable[[], datetime] = datetime.now,
        complain: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`complain` is told, once, that something could not be written.

        Raises: SettingsError: the folder can't be made, or written to.
        """
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        except FileExistsError:
            raise SettingsError(f"[records] timelines: {folder} is a file; name a folder") from None
        except OSError as error:
            raise SettingsError(f"[records] timelines: {folder} can't be made ({error.strerror})") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SettingsError(f"[records] timelines: nothing can be written to {folder}; whose is it?")
        self._folder = folder
        self._clock = clock
        self._local_time = local_time
        self._complain = complain
        self._complained = False
        self._calls: dict[str, _Call] = {}
        self._disk = DiskThread("dueto timelines", MAX_WAITING_BYTES)
        self.lost = 0
        "Lines that were not written."

    def journal(self, unique_id: str, event: str, fields: Fields) -> None:
        """Note one event of a call."""
        if not unique_id:
            return
        now = self._clock()
        call = self._calls.get(unique_id)
        if call is None:
            if event not in BEGINNINGS or len(self._calls) >= MAX_CALLS:
                return  # what is told of a call that is over would never be written
            call = self._calls[unique_id] = _Call(self._path(unique_id), now, now)
        head: dict[str, Any] = {
            "at": self._local_time().astimezone().isoformat(timespec="milliseconds"),
            "after_ms": round((now - call.began) * 1000),
            "call": unique_id,
            "event": event,
        }
        rest = {f"{name}_" if name in head else name: value for name, value in fields.items()}
        call.lines.append(msgspec.json.encode(redact({**head, **rest})) + b"\n")
        if event == "call_ended":
            del self._calls[unique_id]
        elif now - call.written < EVERY_S:
            return
        call.written = now
        self._hand_over(call)

    async def written(self) -> None:
        """Wait until what was handed over is on the disk, or lost."""
        await self._disk.flushed()

    async def aclose(self) -> None:
        """Write what waits; at most five seconds."""
        for call in self._calls.values():
            self._hand_over(call)
        self._calls.clear()
        await self._disk.aclose(CLOSE_S)

    def _path(self, unique_id: str) -> Path:
        now = self._local_time()
        name = _NOT_IN_A_NAME.sub("_", unique_id)[:64]
        return self._folder / f"{now:%Y-%m-%d}" / f"{now:%H%M%S}-{name}.jsonl"

    def _hand_over(self, call: _Call) -> None:
        data, number = b"".join(call.lines), len(call.lines)
        call.lines = []

        def written(error: str | Exception) -> None:
            if error:
                self._fail(number, str(error))

        try:
            self._disk.do(lambda: _append(call.path, data), written, len(data))
        except NotCapable:
            self._fail(number, "the disk is too slow")

    def _fail(self, number: int, error: str) -> None:
        self.lost += number
        if not self._complained:
            self._complained = True
            self._complain(error)


def _append(path: Path, data: bytes) -> str:
    """Append whole lines; return what was wrong, or nothing."""
    try:
        path.parent.mkdir(mode=0o750, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(path, flags, 0o640)
        try:
            size = os.fstat(handle).st_size
            if os.write(handle, data) != len(data):
                os.ftruncate(handle, size)
                return "the disk is full"
        finally:
            os.close(handle)
    except OSError as error:
        return error.strerror or str(error)
    return ""
