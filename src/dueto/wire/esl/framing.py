"""From the switch's bytes to messages: the application's end of an event socket. No I/O, no time."""

import re
from collections.abc import Sequence

from dueto.errors import RemoteProtocolError
from dueto.wire.esl.formats import event_from_json, event_from_xml
from dueto.wire.esl.inbox import Inbox, Limits
from dueto.wire.esl.messages import (
    ApiResponse,
    AuthRequest,
    ConnectAnswer,
    DisconnectNotice,
    Event,
    LogLine,
    Message,
    Rejection,
    Reply,
)

_LIMITS = Limits()
_USUAL = re.compile(
    rb"Content-Length: (\d{1,12})\nContent-Type: text/event-plain\n\n"
    rb"|Content-Type: command/reply\nReply-Text: [^\r\n]*+\n\n"
    rb"|Content-Type: api/response\nContent-Length: (\d{1,12})\n\n"
    rb"|Content-Type: text/disconnect-notice\n"
    rb"(?:Controlled-Session-UUID: [^\r\n]*+\n)?(?:Content-Disposition: [^\r\n]*+\n)?"
    rb"(?:Channel-Name: [^\r\n]*+\n)?(?:Linger-Time: [^\r\n]*+\n)?Content-Length: (\d{1,12})\n\n"
).match
"The openings of nearly all that a switch says, exactly as it writes them; each kind has its group, a reply none."
_USUAL_KINDS: dict[int | None, type[Reply | ApiResponse | DisconnectNotice]] = {
    None: Reply,
    2: ApiResponse,
    3: DisconnectNotice,
}
_ANSWERS_CONNECT = b"\nContent-Type: command/reply\nReply-Text: "
"What stands behind the channel's headers in the answer to `connect`."
_FRAMING = {name: b"\n" + name + b":" for name in (b"content-type", b"content-length", b"event-name")}
_ALL_BUT_MARKS = bytes(set(range(256)) - set(b":\n"))
_SIMPLE: dict[bytes, type[ApiResponse | DisconnectNotice | AuthRequest | Rejection | LogLine]] = {
    b"api/response": ApiResponse,
    b"text/disconnect-notice": DisconnectNotice,
    b"auth/request": AuthRequest,
    b"text/rude-rejection": Rejection,
    b"log/data": LogLine,
}


class BrokenStream(RemoteProtocolError):
    """The switch's bytes make no sense any more."""

    def __init__(self, text: str, complete: Sequence[Message]) -> None:
        super().__init__(text)
        self.complete = complete
        "The messages of the same `feed` that were complete before the fault: a hangup among them still counts."


class Decoder:
    """Cuts the stream into messages. Bytes may come in any pieces; lines may end in LF or CRLF."""

    __slots__ = ("_fault", "_fields", "_head", "_holds", "_inbox", "_length", "_limits", "_most_usual")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or _LIMITS
        self._most_usual = min(self._limits.header_bytes, self._limits.line_bytes, self._limits.body_bytes)
        self._inbox = Inbox(self._limits)
        self._holds = False  # whether a message has begun in it
        self._head = b""  # a header block whose body is still awaited; what it says is in the next two
        self._fields: dict[bytes, bytes] = {}
        self._length = 0
        self._fault = ""

    def feed(self, data: bytes) -> list[Message]:
        """Take what came and return the messages that are complete now, in order.

        Raises: BrokenStream: the stream can't be trusted any further, now and at every later call; what was complete
            before the fault is in its `complete`.
        """
        if self._fault:
            raise BrokenStream(self._fault, ())
        messages: list[Message] = []
        try:
            at = 0 if self._holds else self._usual(data, 0, messages)
            while at < len(data):
                self._inbox.feed(data, at)
                message = self._next()
                self._holds = message is None
                if message is None:
                    break
                messages.append(message)
                at = self._usual(data, len(data) - len(self._inbox), messages)
                self._inbox.clear()
        except RemoteProtocolError as error:
            self._fault = str(error)
            self._inbox.clear()
            raise BrokenStream(self._fault, messages) from error
        return messages

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished message is held."""
        return len(self._head) + len(self._inbox)

    def _usual(self, data: bytes, at: int, messages: list[Message]) -> int:
        """Append the whole messages of the usual shapes that stand at `at`, one after the other; return where they end.

        Nearly every piece is that and nothing else, and this reads it at a fraction of the cost of the general way.
        """
        whole = len(data)
        while at < whole:
            if opening := _USUAL(data, at):
                start, group = opening.end(), opening.lastindex
                end = start + int(opening[group]) if group else start
                if end > whole or end - at > self._most_usual:
                    break
                if group == 1:
                    messages.append(Event.from_content(data[start - 1 : end]))
                else:
                    head = b"\n" + data[at : start - 1]
                    messages.append(_USUAL_KINDS[group](head, len(head) - 1, data[start:end]))
            elif answer := self._connect_answer(data, at):
                messages.append(answer)
                end = at + len(answer.raw)  # a newline in front of it, and one behind it
            else:
                break
            at = end
        return at

    def _connect_answer(self, data: bytes, at: int) -> ConnectAnswer | None:
        """Return the answer to `connect`, if it stands whole at `at` as the switch writes it: 190 headers of a channel,
        then those of a reply. From these its end is found, without a look at every line."""
        mark = data.find(_ANSWERS_CONNECT, at) if data.startswith(b"Event-Name: ", at) else -1
        end = data.find(b"\n\n", mark + 1) if mark >= 0 else -1
        if end < 0 or end - at >= self._most_usual:
            return None
        head = data[at : end + 1]
        folded = head.lower()
        usual = folded.find(b"\ncontent-") == mark - at and folded.find(b"\ncontent-length:", mark - at) < 0
        if not usual or b"\r" in head or not _all_have_colons(head):
            return None
        return ConnectAnswer(b"\n" + head, len(head))

    def _next(self) -> Message | None:
        if not self._head:
            head = self._inbox.head()
            if head is None:
                return None
            self._fields = _fields(head)
            self._length = self._content_length()
            self._head = head
        content = self._inbox.take(self._length)
        if content is None:
            return None
        head, self._head = self._head, b""
        kind = self._fields.get(b"content-type")
        if kind == b"text/event-plain":
            return Event.from_content(content)
        if kind == b"text/event-json":
            return event_from_json(content[1:])
        if kind == b"text/event-xml":
            return event_from_xml(content[1:])
        if kind == b"command/reply":
            cls = ConnectAnswer if b"event-name" in self._fields else Reply
            return cls(b"\n" + head, len(head), content[1:])
        simple = _SIMPLE.get(kind or b"")
        if simple is None:
            raise RemoteProtocolError(f"block of unknown Content-Type {kind!r}: {head[:80]!r}")
        return simple(b"\n" + head, len(head), content[1:])

    def _content_length(self) -> int:
        value = self._fields.get(b"content-length", b"0")
        if not value.isdigit() or len(value) > 12:
            raise RemoteProtocolError(f"Content-Length is no number: {value[:40]!r}")
        length = int(value)
        if length > self._limits.body_bytes:
            raise RemoteProtocolError(f"body of {length} bytes, more than {self._limits.body_bytes}")
        return length


def _fields(head: bytes) -> dict[bytes, bytes]:
    """Read what frames a message from its header block: those of `_FRAMING` that are there, of one that is there twice
    the first. They are searched, in any case of letters: a connect answer has 190 lines, and nobody asked for the rest.

    Raises: RemoteProtocolError: a line has no colon, or two lines disagree about the length of the body.
    """
    if not _all_have_colons(head):
        odd = next(line for line in head.split(b"\n") if b":" not in line)
        raise RemoteProtocolError(f"header line without a colon: {odd[:80]!r}")
    folded = b"\n" + head.lower()  # so that every name has a newline in front; `head` is one byte behind
    fields: dict[bytes, bytes] = {}
    for name, needle in _FRAMING.items():
        at = folded.find(needle)
        if at >= 0:
            fields[name] = _value(head, at, name)
    if b"content-length" in fields and folded.count(_FRAMING[b"content-length"]) > 1:
        lines = [line.partition(b":") for line in head.split(b"\n")]
        lengths = {value.strip() for name, _, value in lines if name.lower() == b"content-length"}
        if len(lengths) > 1:
            raise RemoteProtocolError(f"several Content-Lengths in one block: {sorted(lengths)[:2]!r}")
    return fields


def _all_have_colons(head: bytes) -> bool:
    """Whether every line has one; a blank line has none."""
    marks = head.translate(None, _ALL_BUT_MARKS)  # what is left are the colons, line by line
    return not marks.startswith(b"\n") and b"\n\n" not in marks


def _value(head: bytes, at: int, name: bytes) -> bytes:
    return head[at + len(name) + 1 : head.find(b"\n", at)].strip()
