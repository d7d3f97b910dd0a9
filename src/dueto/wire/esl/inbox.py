"""What has come and is not read yet, cut the way both ends of an event socket cut it. No I/O, no time."""

import re
from dataclasses import dataclass

from dueto.errors import RemoteProtocolError

_BLANK_LINE = re.compile(rb"\n\n").search
"Three times as fast as `find` here: its second byte, half of the pattern, is there in every line."


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a peer may send before it is cut off. A 100 kB channel variable makes a header of 306 kB."""

    header_bytes: int = 4 << 20
    "One header block; the connect answer holds every variable of the channel."
    line_bytes: int = 1 << 20
    "One header line."
    body_bytes: int = 16 << 20
    "One body, events included."


class Inbox:
    """Bytes in, in any pieces; header blocks and counted bodies out. Lines may end in LF or CRLF, even mixed.

    What is held is never searched twice: half a header block is searched on from where the last search ended, half a
    body is only counted. A piece that ends with a message is never copied.
    """

    __slots__ = ("_at", "_data", "_limits", "_line", "_searched")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._data: bytes | bytearray = b""  # bytes while a piece is read as it came, bytearray while more is awaited
        self._at = 0  # where what is not read begins
        self._searched = 0  # no header block ends before this
        self._line = 0  # where the unfinished line of an unfinished header block begins

    def __len__(self) -> int:
        return len(self._data) - self._at

    def feed(self, data: bytes, start: int = 0) -> None:
        """Put `data` behind what is held, without what stands in it before `start`."""
        held, at = self._data, self._at
        if at == len(held):
            self._data = data
            self._at = self._searched = self._line = start
            return
        data = data[start:]
        if isinstance(held, bytearray):
            del held[:at]
            held += data
        else:
            self._data = bytearray(memoryview(held)[at:])
            self._data += data
        self._searched = max(self._searched - at, 0)
        self._line = max(self._line - at, 0)
        self._at = 0

    def head(self) -> bytes | None:
        """Take the next header block: its lines, each with LF, without the blank line; None while it has no end.

        Blank lines before it are skipped, as the switch does before a command.
        Raises: RemoteProtocolError: it is longer than the limits allow, or can only become so.
        """
        data, at, size = self._data, self._at, len(self._data)
        if self._searched <= at:
            while at < size and data[at] in b"\r\n":
                at += 1
            self._at = self._line = at
        start = max(at, self._searched)
        blank = _BLANK_LINE(data, start)
        end = blank.start() if blank is not None else -1
        crlf = data.find(b"\n\r\n", start, size if end < 0 else end + 1) if b"\r" in data else -1
        if crlf >= 0:
            end = crlf
        if end < 0:
            self._wait_for_head(start, size)
            return None
        head = bytes(data[at : end + 1])
        self._at = end + (2 if crlf >= 0 else 1)  # on the newline of the blank line: `take` gives it with the body
        if crlf >= 0 or b"\r" in head:
            head = head.replace(b"\r\n", b"\n")
        if len(head) > self._limits.header_bytes:
            raise RemoteProtocolError(f"header block of more than {self._limits.header_bytes} bytes")
        if len(head) > self._limits.line_bytes:
            self._check_line(max(map(len, head.split(b"\n"))))
        return head

    def take(self, size: int) -> bytes | None:
        """Take the `size` body bytes after a header block, WITH the newline that ended it in front; None: not all here.

        That newline makes an event's content searchable: every header line has one in front then.
        """
        end = self._at + 1 + size
        if end > len(self._data):
            return None
        content = bytes(self._data[self._at : end])
        self._at = end
        return content

    def clear(self) -> None:
        """Drop what is held."""
        self._data, self._at, self._searched, self._line = b"", 0, 0, 0

    def _wait_for_head(self, start: int, size: int) -> None:
        self._searched = max(size - 2, self._at)
        self._line = max(self._line, self._data.rfind(b"\n", start) + 1)
        if size - self._at > self._limits.header_bytes:
            raise RemoteProtocolError(f"header block of more than {self._limits.header_bytes} bytes")
        self._check_line(size - self._line)

    def _check_line(self, size: int) -> None:
        if size > self._limits.line_bytes:
            raise RemoteProtocolError(f"header line of more than {self._limits.line_bytes} bytes")
