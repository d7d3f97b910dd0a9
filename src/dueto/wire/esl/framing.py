"""From the switch's bytes to messages: the application's end of an event socket. No I/O, no time."""

from dataclasses import dataclass

from dueto.errors import RemoteProtocolError
from dueto.wire.esl.formats import event_from_json, event_from_xml
from dueto.wire.esl.messages import (
    ApiResponse,
    AuthRequest,
    Block,
    ConnectAnswer,
    DisconnectNotice,
    Event,
    LogLine,
    Message,
    Rejection,
    Reply,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a peer may send before it is cut off. A 100 kB channel variable makes a header of 306 kB."""

    header_bytes: int = 4 << 20
    "One header block; the connect answer holds every variable of the channel."
    line_bytes: int = 1 << 20
    "One header line."
    body_bytes: int = 16 << 20
    "One body, events included."


_SIMPLE: dict[bytes, type[ApiResponse | DisconnectNotice | AuthRequest | Rejection | LogLine]] = {
    b"api/response": ApiResponse,
    b"text/disconnect-notice": DisconnectNotice,
    b"auth/request": AuthRequest,
    b"text/rude-rejection": Rejection,
    b"log/data": LogLine,
}
_PLAIN = b"text/event-plain"


class Decoder:
    """Cuts the stream into messages. Bytes may come in any pieces; lines may end in LF or CRLF.

    What is buffered is never searched twice: a half header block is searched on from where the last search ended, a
    half body is only counted.
    """

    __slots__ = ("_buffer", "_limits", "_need", "_searched")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._buffer = bytearray()
        self._need = 0  # bytes that must be there before it is worth looking again; 0: not known yet
        self._searched = 0

    def feed(self, data: bytes) -> list[Message]:
        """Take what came and return the messages that are complete now, in order.

        Raises: RemoteProtocolError: the stream can't be trusted any further; messages that were complete before the
            fault are in the exception's `complete` attribute, so that a hangup in the same segment is not lost.
        """
        if self._buffer:
            self._buffer += data
            if self._need:
                if len(self._buffer) < self._need:
                    return []
            elif not self._header_ended():
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        messages: list[Message] = []
        try:
            rest = self._cut(data, messages)
        except RemoteProtocolError as error:
            error.complete = messages  # type: ignore[attr-defined]
            raise
        if rest < len(data):
            self._buffer += data[rest:]
        return messages

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished message is held."""
        return len(self._buffer)

    def _header_ended(self) -> bool:
        buffer = self._buffer
        found = buffer.find(b"\n\n", self._searched) >= 0 or buffer.find(b"\n\r\n", self._searched) >= 0
        self._searched = max(len(buffer) - 2, 0)
        if not found:
            self._check_header(len(buffer), bytes(buffer) if len(buffer) > self._limits.line_bytes else b"")
        return found

    def _check_header(self, size: int, block: bytes) -> None:
        if size > self._limits.header_bytes:
            raise RemoteProtocolError(f"header block of more than {self._limits.header_bytes} bytes")
        if block and max(map(len, block.split(b"\n"))) > self._limits.line_bytes:
            raise RemoteProtocolError(f"header line of more than {self._limits.line_bytes} bytes")

    def _cut(self, data: bytes, messages: list[Message]) -> int:
        """Append the complete messages in `data`; return where the first incomplete one begins."""
        at, size = 0, len(data)
        self._need = self._searched = 0
        while True:
            while at < size and data[at] in b"\r\n":  # nothing separates a body from the next block, but be lenient
                at += 1
            if at >= size:
                return size
            newline = data.find(b"\n", at)
            crlf = newline > at and data[newline - 1] == 0x0D
            end = data.find(b"\r\n\r\n" if crlf else b"\n\n", at)
            if end < 0:
                self._searched = max(size - at - 2, 0)
                self._check_header(size - at, data[at:] if size - at > self._limits.line_bytes else b"")
                return at
            head = b"\n" + data[at:end]
            if len(head) > self._limits.line_bytes:
                self._check_header(len(head), head)
            start = end + (4 if crlf else 2)
            if crlf:
                head = head.replace(b"\r\n", b"\n")
            block = Block(head, len(head))
            length = self._content_length(block)
            if size - start < length:
                self._need = start - at + length
                return at
            messages.append(self._message(block, data, start, length))
            at = start + length

    def _content_length(self, block: Block) -> int:
        value = block.find("Content-Length")
        if value is None:
            return 0
        if not value.isdigit() or len(value) > 12:
            raise RemoteProtocolError(f"Content-Length is no number: {value[:40]!r}")
        length = int(value)
        if length > self._limits.body_bytes:
            raise RemoteProtocolError(f"body of {length} bytes, more than {self._limits.body_bytes}")
        return length

    def _message(self, block: Block, data: bytes, start: int, length: int) -> Message:
        kind = block.find("Content-Type")
        if kind == _PLAIN:
            content = data[start - 1 : start + length]  # the newline in front is the one that ended the outer headers
            if b"\r\n" in content[: content.find(b"\n", 1) + 1]:
                head, blank, body = content.partition(b"\r\n\r\n")
                content = head.replace(b"\r\n", b"\n") + (b"\n\n" if blank else b"") + body
            return Event.from_content(content)
        body = data[start : start + length]
        if kind == b"command/reply":
            cls = ConnectAnswer if block.find("Event-Name") is not None else Reply
            return cls(block.raw, len(block.raw), body)
        if kind == b"text/event-json":
            return event_from_json(body)
        if kind == b"text/event-xml":
            return event_from_xml(body)
        simple = _SIMPLE.get(kind or b"")
        if simple is None:
            raise RemoteProtocolError(f"block of unknown Content-Type {kind!r}: {block.raw[:80]!r}")
        return simple(block.raw, len(block.raw), body)
