"""What the switch says on an event socket, as objects over the bytes it sent.

A plain event has about 190 headers and an application reads six of them. So nothing is parsed on arrival: a header is
searched when it is asked for, and its value unquoted then. Names are matched as the switch writes them.
"""

from collections.abc import Iterable, Iterator

from dueto.errors import RemoteProtocolError
from dueto.wire.esl.names import CALL_EVENTS, MY_EVENTS
from dueto.wire.esl.quoting import quote, unquote, utf8


class _Needles(dict[str, bytes]):
    """What to search for, by header name. Emptied when full: names may come from anywhere."""

    def __missing__(self, name: str) -> bytes:
        if len(self) >= 1024:
            self.clear()
        needle = self[name] = b"\n" + name.encode("utf-8", "replace") + b": "
        return needle


_NEEDLES = _Needles()
_FIRST_LINES = {b"\nEvent-Name: " + name.encode(): name for name in (*MY_EVENTS, *CALL_EVENTS, "CUSTOM")}
"How an event begins, and its name."


class Block:
    """A header block and its body.

    `raw` holds the header lines and nothing behind them but the blank line, with a newline in front of each; so a
    header is found by searching for newline, name, colon and space, as the switch writes them, and never in a body.
    """

    __slots__ = ("_end", "body_bytes", "raw")

    def __init__(self, raw: bytes, end: int, body: bytes = b"") -> None:
        self.raw = raw
        self._end = end  # where the newline of the last header line is
        self.body_bytes = body

    def find(self, name: str) -> bytes | None:
        """Return the value of the first header `name` as it stands on the wire, or None."""
        needle = _NEEDLES[name]
        start = self.raw.find(needle)
        if start < 0:
            return None
        start += len(needle)
        return self.raw[start : self.raw.find(b"\n", start)]

    @property
    def body(self) -> str:
        """The body as text; bytes that are no UTF-8 become U+FFFD."""
        return self.body_bytes.decode("utf-8", "replace")

    def _plain(self, name: str) -> str:
        value = self.find(name)
        return value.decode("utf-8", "replace") if value else ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.raw[1:61]!r}... {self._end} + {len(self.body_bytes)} bytes>"


class Event(Block):
    """One event: header values are URL-encoded on the wire and decoded here, one by one, after the split.

    That order matters: a caller named `x%0AHangup-Cause: y` is one value and stays one.
    """

    __slots__ = ("_name",)

    def __init__(self, raw: bytes, end: int, body: bytes = b"") -> None:
        self.raw = raw
        self._end = end
        self.body_bytes = body
        self._name: str | None = None

    @classmethod
    def from_content(cls, content: bytes) -> "Event":
        """Read an event from the content of a `text/event-plain` block, with a newline put in front.

        The outer block has framed it already, so a line without a colon can do no harm here: it is no header.
        Raises: RemoteProtocolError: the event has no end of headers, or its body is not as long as it says.
        """
        # The switch writes Content-Length right before a body and only there (`switch_event.c`). It is searched from
        # behind: looking for the blank line, two bytes that are half there in every line, would cost ten times that.
        if content.rfind(b"\nContent-Length:") < 0 and content.endswith(b"\n\n"):
            return cls(content, len(content) - 2)
        end = content.find(b"\n\n")
        crlf = content.find(b"\n\r\n", 0, len(content) if end < 0 else end + 1)
        if crlf >= 0:
            head, body = content[: crlf + 1].replace(b"\r\n", b"\n"), content[crlf + 3 :]
        elif end >= 0:
            head, body = content[: end + 1], content[end + 2 :]
        else:
            raise RemoteProtocolError("event without an end of headers")
        length = head.rpartition(b"\nContent-Length:")[2].partition(b"\n")[0].strip()
        if body and length != b"%d" % len(body):  # the last one: `sendevent` can bring one of its own before it
            raise RemoteProtocolError(f"event body of {len(body)} bytes, Content-Length {length[:40]!r}")
        return cls(head, len(head) - 1, body)

    @classmethod
    def from_items(cls, items: Iterable[tuple[str, str]], body: bytes = b"") -> "Event":
        """Build an event from decoded headers (JSON and XML events come that way; so do greenswitch's).

        Raises: RemoteProtocolError: a name would make another header of itself.
        """
        lines = [b""]
        for name, value in items:
            if not name or any(char in name for char in "\r\n:"):
                raise RemoteProtocolError(f"event header named {name[:60]!r}")
            quoted = quote(utf8(value).replace(b"%", b"%25"))  # decoded already: its `%41` is three characters
            lines.append(utf8(name) + b": " + (quoted or b"_undef_"))
        raw = b"\n".join(lines)
        return cls(raw + b"\n", len(raw), body)

    def get(self, name: str, default: str = "") -> str:
        """Return the header `name`, decoded; `default` where it is absent or the switch wrote `_undef_`."""
        raw = self.raw  # `find` and `unquote` written out: this runs six times for every event of every call
        needle = _NEEDLES[name]
        start = raw.find(needle)
        if start < 0:
            return default
        start += len(needle)
        value = raw[start : raw.find(b"\n", start)].decode("utf-8", "replace")
        if "%" in value:
            return unquote(value.encode())
        return default if value == "_undef_" else value

    def get_list(self, name: str) -> list[str]:
        """Return a header with several entries (`ARRAY::a|:b` on the wire), or with one, or none."""
        value = self.get(name)
        if value.startswith("ARRAY::"):
            return value[7:].split("|:")
        return [value] if value else []

    def variable(self, name: str, default: str = "") -> str:
        """Return the channel variable `name` as this event carries it."""
        return self.get("variable_" + name, default)

    def number(self, name: str) -> int | None:
        """Return a header that is a whole number; None: absent, or anything else. What a telephone says lands here."""
        value = self.find(name)
        return int(value) if value and value.isdigit() and len(value) <= 20 else None

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield every header in order, decoded. This is the slow way: it reads all of them."""
        for line in self.raw[1 : self._end].split(b"\n"):
            name, colon, value = line.partition(b": ")
            if colon:
                yield name.decode("utf-8", "replace"), "" if value == b"_undef_" else unquote(value)

    def as_dict(self) -> dict[str, str]:
        """Return all headers; of a header that occurs twice, the first."""
        headers: dict[str, str] = {}
        for name, value in self.items():
            headers.setdefault(name, value)
        return headers

    @property
    def name(self) -> str:
        """`Event-Name`."""
        name = self._name  # everybody on the way asks for it
        if name is None:
            raw = self.raw
            name = self._name = _FIRST_LINES.get(raw[: raw.find(b"\n", 1)]) or self.get("Event-Name")
        return name

    @property
    def subclass(self) -> str:
        """`Event-Subclass` of a CUSTOM event, else empty."""
        return self.get("Event-Subclass")

    @property
    def unique_id(self) -> str:
        """The channel's `Unique-ID`, empty where the event belongs to none."""
        return self.get("Unique-ID")

    @property
    def sequence(self) -> int:
        """`Event-Sequence`: rises over the whole switch, with gaps. 0 where absent."""
        return self.number("Event-Sequence") or 0


class Reply(Block):
    """`command/reply`: the answer to every command but `api`. Its headers are not URL-encoded."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """`Reply-Text` without a trailing newline."""
        return self._plain("Reply-Text")

    @property
    def ok(self) -> bool:
        """Whether it says `+OK`. For a sendmsg that means queued, nothing more."""
        return self.text.startswith("+OK")

    @property
    def job_uuid(self) -> str:
        """`Job-UUID` of a bgapi."""
        return self._plain("Job-UUID")


class ConnectAnswer(Reply):
    """The answer to `connect`: the channel as it stands now, every header and variable of it, URL-encoded."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """`Reply-Text`; encoded here, unlike in other replies."""
        return unquote(self.find("Reply-Text") or b"").strip()

    @property
    def channel(self) -> Event:
        """The same bytes read as an event."""
        return Event(self.raw, self._end)

    @property
    def full(self) -> bool:
        """Whether the dialplan said `full`: without it there is no api, no linger and no CUSTOM event."""
        return self._of_reply(b"\nControl: full\n")

    @property
    def is_async(self) -> bool:
        """Whether the dialplan said `async`."""
        return self._of_reply(b"\nSocket-Mode: async\n")

    def _of_reply(self, line: bytes) -> bool:
        """Whether it stands among the headers of the reply: the last ones, behind all of the channel."""
        return self.raw.find(line, max(self.raw.rfind(b"\nReply-Text: "), 0)) >= 0


class ApiResponse(Block):
    """`api/response`: the output of an api command, as the body. It may lack a trailing newline."""

    __slots__ = ()

    @property
    def ok(self) -> bool:
        """Whether it does not begin with `-ERR` or `-USAGE`. Some commands say +OK all the same (`uuid_hold nope`)."""
        return not self.body_bytes.startswith((b"-ERR", b"-USAGE"))


class DisconnectNotice(Block):
    """`text/disconnect-notice`: the end of the socket, or (`linger`) of the channel."""

    __slots__ = ()

    @property
    def lingers(self) -> bool:
        """Whether it announces a lingering socket: the channel has been hung up, the socket stays a while."""
        return self.find("Content-Disposition") == b"linger"

    @property
    def unique_id(self) -> str:
        """`Controlled-Session-UUID`; empty on an inbound socket."""
        return self._plain("Controlled-Session-UUID")


class AuthRequest(Block):
    """`auth/request`: the first thing on an inbound socket."""

    __slots__ = ()


class Rejection(Block):
    """`text/rude-rejection`: our address is not allowed there."""

    __slots__ = ()


class LogLine(Block):
    """`log/data`: a line of the switch's log, as the body."""

    __slots__ = ()

    @property
    def level(self) -> str:
        """`Log-Level`, a number."""
        return self._plain("Log-Level")


Message = Event | Reply | ApiResponse | DisconnectNotice | AuthRequest | Rejection | LogLine
