"""The switch's end of an event socket: commands in, blocks out. For the simulator, and for tests of the other end."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from dueto.errors import LocalProtocolError, RemoteProtocolError
from dueto.wire.esl.inbox import Inbox, Limits
from dueto.wire.esl.quoting import quote, utf8

Headers = Iterable[tuple[str, str]]
MAX_COMMAND_BYTES = 10 << 20
"A command block may hold 10 MiB (`mod_event_socket.c`)."
GOODBYE = b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"


@dataclass(frozen=True, slots=True)
class CommandBlock:
    """One command as the switch reads it."""

    line: str
    "The command line, trimmed."
    headers: Mapping[str, str] = field(default_factory=dict)
    "The lines after it, names in lower case; of a name that occurs twice, the first."
    body: bytes = b""

    @property
    def word(self) -> str:
        """The command's first word in lower case."""
        return self.line.partition(" ")[0].lower()

    @property
    def rest(self) -> str:
        """The line after its first word."""
        return self.line.partition(" ")[2].strip()


class CommandDecoder:
    """Cuts an application's bytes into commands: LF or CRLF, blank lines skipped, a body counted by Content-Length."""

    __slots__ = ("_command", "_inbox", "_size")

    def __init__(self) -> None:
        self._inbox = Inbox(Limits(MAX_COMMAND_BYTES, MAX_COMMAND_BYTES, MAX_COMMAND_BYTES))
        self._command: CommandBlock | None = None  # one whose body is still awaited
        self._size = 0

    def feed(self, data: bytes) -> list[CommandBlock]:
        """Take what came and return the commands that are complete now.

        Raises: RemoteProtocolError: a command of more than 10 MiB.
        """
        self._inbox.feed(data)
        commands: list[CommandBlock] = []
        while (command := self._next()) is not None:
            commands.append(command)
        return commands

    def _next(self) -> CommandBlock | None:
        if self._command is None:
            head = self._inbox.head()
            if head is None:
                return None
            self._command = _command(head)
            self._size = _body_size(self._command)
        content = self._inbox.take(self._size)
        if content is None:
            return None
        command, self._command = self._command, None
        return replace(command, body=content[1:]) if self._size else command


def _command(head: bytes) -> CommandBlock:
    first, *lines = head.decode("utf-8", "replace").removesuffix("\n").split("\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return CommandBlock(first.strip(), headers)


def _body_size(command: CommandBlock) -> int:
    """Return how many body bytes follow; what is no number counts as none, as `atoi` has it."""
    length = command.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        return 0
    if len(length) > 12 or int(length) > MAX_COMMAND_BYTES:
        raise RemoteProtocolError(f"command of more than {MAX_COMMAND_BYTES} bytes")
    return int(length)


def _header_name(name: str) -> bytes:
    if not name or any(char in name for char in "\r\n:"):
        raise LocalProtocolError(f"header named {name!r}")
    return utf8(name)


def _encoded(headers: Headers) -> bytes:
    return b"".join(b"%s: %s\n" % (_header_name(name), quote(utf8(value)) or b"_undef_") for name, value in headers)


def encode_event(headers: Headers, body: bytes = b"") -> bytes:
    """Return an event in the plain format; an empty value is written `_undef_`."""
    inner = _encoded(headers) + (b"Content-Length: %d\n\n" % len(body) + body if body else b"\n")
    return b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % len(inner) + inner


def encode_event_json(headers: Headers, body: bytes = b"") -> bytes:
    """Return an event in the JSON format: values raw, several entries as an array, the body as `_body`.

    A header that occurs twice is written twice, as the switch does.
    """
    members = [(name, _json_value(value)) for name, value in headers]
    if body:
        members += [("Content-Length", str(len(body))), ("_body", body.decode("utf-8", "replace"))]
    pairs = (
        msgspec.json.encode(_header_name(name).decode("utf-8", "replace")) + b":" + msgspec.json.encode(value)
        for name, value in members
    )
    inner = b"{" + b",".join(pairs) + b"}"
    return b"Content-Length: %d\nContent-Type: text/event-json\n\n" % len(inner) + inner


def _json_value(value: str) -> str | list[str]:
    text = utf8(value).decode("utf-8", "replace")
    return text[7:].split("|:") if text.startswith("ARRAY::") else text


def encode_connect_answer(headers: Headers, *, mode: str = "async", control: str = "full") -> bytes:
    """Return the answer to `connect`: one header block, no body, its reply lines last."""
    tail = f"Content-Type: command/reply\nReply-Text: %2BOK%0A\nSocket-Mode: {mode}\nControl: {control}\n\n"
    return _encoded(headers) + tail.encode()


def encode_reply(text: str, headers: Headers = ()) -> bytes:
    """Return an ordinary reply; nothing in it is encoded."""
    more = "".join(f"{name}: {value}\n" for name, value in headers)
    return f"Content-Type: command/reply\nReply-Text: {text}\n{more}\n".encode()


def encode_api_response(output: bytes) -> bytes:
    """Return an api command's output."""
    return b"Content-Type: api/response\nContent-Length: %d\n\n" % len(output) + output


def encode_linger_notice(unique_id: str, channel_name: str, seconds: int) -> bytes:
    """Return the notice that the channel is gone and the socket stays; -1 seconds: without limit."""
    head = f"Content-Type: text/disconnect-notice\nControlled-Session-UUID: {unique_id}\nContent-Disposition: linger\n"
    return f"{head}Channel-Name: {channel_name}\nLinger-Time: {seconds}\nContent-Length: 0\n\n".encode()


def encode_goodbye(unique_id: str = "") -> bytes:
    """Return the last notice of a socket; an inbound one names no channel."""
    head = b"Content-Type: text/disconnect-notice\n"
    if unique_id:
        head += f"Controlled-Session-UUID: {unique_id}\nContent-Disposition: disconnect\n".encode()
    return head + b"Content-Length: %d\n\n" % len(GOODBYE) + GOODBYE
