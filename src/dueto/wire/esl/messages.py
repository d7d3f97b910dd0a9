"""What the switch says on an event socket, as objects over the bytes it sent.

A plain event has about 190 headers and an application reads six of them. So nothing is parsed on arrival: a header is
searched when it is asked for, and its value unquoted then. Names are matched as the switch writes them.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from dueto.errors import RemoteProtocolError
from dueto.wire.esl.quoting import quote, unquote


@lru_cache(maxsize=1024)
def _needle(name: str) -> bytes:
    return b"\n" + name.encode("ascii", "replace") + b":"


class Block:
    """A header block and its body. `raw` begins with a newline, so that every header line has one in front."""

    __slots__ = ("_end", "body_bytes", "raw")

    def __init__(self, raw: bytes, end: int, body: bytes = b"") -> None:
        self.raw = raw
        self._end = end  # where the headers end in `raw`; a header is never looked for in a body
        self.body_bytes = body

    def find(self, name: str) -> bytes | None:
        """Return the value of the first header `name` as it stands on the wire, or None."""
        needle = _needle(name)
        start = self.raw.find(needle, 0, self._end)
        if start < 0:
            return None
        start += len(needle)
        stop = self.raw.find(b"\n", start, self._end)
        return self.raw[start : stop if stop >= 0 else self._end].strip()

    @property
    def body(self) -> str:
        """The body as text; bytes that are no UTF-8 become U+FFFD."""
        return self.body_bytes.decode("utf-8", "replace")

    def _lines(self) -> Iterator[tuple[bytes, bytes]]:
        for line in self.raw[1 : self._end].split(b"\n"):
            name, colon, value = line.partition(b":")
            if colon:
                yield name, value.strip()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.raw[1:61]!r}... {self._end - 1} + {len(self.body_bytes)} bytes>"


class Event(Block):
    """One event: header values are URL-encoded on the wire and decoded here, one by one, after the split.

    That order matters: a caller named `x%0AHangup-Cause: y` is one value and stays one.
    """

    __slots__ = ()

    @classmethod
    def from_content(cls, content: bytes) -> "Event":
        """Read an event from the content of a `text/event-plain` block, with a newline put in front.

        Raises: RemoteProtocolError: the event has no end of headers, or its body is not as long as it says.
        """
        end = content.find(b"\n\n")
        if end < 0:
            raise RemoteProtocolError("event without an end of headers")
        if end + 2 == len(content):
            return cls(content, end)
        event = cls(content, end)
        length = event.find("Content-Length")
        if length is None or not length.isdigit() or end + 2 + int(length) != len(content):
            raise RemoteProtocolError(f"event body of {len(content) - end - 2} bytes, Content-Length {length!r}")
        event.body_bytes = content[end + 2 :]
        return event

    @classmethod
    def from_items(cls, items: Iterable[tuple[str, str]], body: bytes = b"") -> "Event":
        """Build an event from decoded headers (JSON and XML events come that way; so do greenswitch's)."""
        lines = (name.encode() + b": " + quote(value.encode("utf-8", "surrogateescape")) for name, value in items)
        raw = b"\n" + b"\n".join(lines)
        return cls(raw, len(raw), body)

    def get(self, name: str, default: str = "") -> str:
        """Return the header `name`, decoded; `default` where it is absent or the switch wrote `_undef_`."""
        value = self.find(name)
        if value is None or value == b"_undef_":
            return default
        return unquote(value)

    def get_list(self, name: str) -> list[str]:
        """Return a header with several entries (`ARRAY::a|:b` on the wire), or with one, or none."""
        value = self.get(name)
        if value.startswith("ARRAY::"):
            return value[7:].split("|:")
        return [value] if value else []

    def variable(self, name: str, default: str = "") -> str:
        """Return the channel variable `name` as this event carries it."""
        return self.get("variable_" + name, default)

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield every header in order, decoded. This is the slow way: it reads all of them."""
        for name, value in self._lines():
            yield name.decode("ascii", "replace"), "" if value == b"_undef_" else unquote(value)

    def as_dict(self) -> dict[str, str]:
        """Return all headers; of a header that occurs twice, the first."""
        headers: dict[str, str] = {}
        for name, value in self.items():
            headers.setdefault(name, value)
        return headers

    @property
    def name(self) -> str:
        """`Event-Name`."""
        value = self.find("Event-Name")
        return value.decode("ascii", "replace") if value else ""

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
        value = self.find("Event-Sequence")
        return int(value) if value and value.isdigit() else 0


class Reply(Block):
    """`command/reply`: the answer to every command but `api`. Its headers are not URL-encoded."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """`Reply-Text` without a trailing newline."""
        return (self.find("Reply-Text") or b"").decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether it says `+OK`. For a sendmsg that means queued, nothing more."""
        return self.text.startswith("+OK")

    @property
    def job_uuid(self) -> str:
        """`Job-UUID` of a bgapi."""
        return (self.find("Job-UUID") or b"").decode("ascii", "replace")


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
        return self.find("Control") == b"full"

    @property
    def is_async(self) -> bool:
        """Whether the dialplan said `async`."""
        return self.find("Socket-Mode") == b"async"


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
        return (self.find("Controlled-Session-UUID") or b"").decode("ascii", "replace")


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
        return (self.find("Log-Level") or b"").decode("ascii", "replace")


Message = Event | Reply | ApiResponse | DisconnectNotice | AuthRequest | Rejection | LogLine
