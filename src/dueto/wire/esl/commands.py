"""What an application says on an event socket. Commands are values; only `encode` writes bytes.

Every value that could come from outside is checked where it enters a command: CR, LF and NUL never reach the wire.
There is no `getvar`: the switch copies the variable into its reply as it is, so a caller's display name could write
whole blocks of its own. Take values from events, or from `api uuid_getvar`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Protocol

from dueto.errors import LocalProtocolError


class Command(Protocol):
    """A command that can be written."""

    def encode(self) -> bytes:
        """Return the command's bytes, blank line included, for one write.

        Raises: LocalProtocolError: a value holds what would end the line.
        """
        ...


def checked(value: str, what: str, *, forbidden: str = "") -> str:
    """Return `value` if it can stand in one line of a command. What it holds is never repeated: it may be a secret.

    Raises: LocalProtocolError: it holds CR, LF, NUL or one of `forbidden`, or half a surrogate pair.
    """
    for char in "\r\n\0" + forbidden:
        if char in value:
            raise LocalProtocolError(f"{what} holds {char!r} at {value.index(char)}, which would end it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{what} holds no character at {error.start}: {error.reason}") from None
    return value


def _word(value: str, what: str) -> str:
    return checked(value, what, forbidden=" \t")


def _block(*lines: str) -> bytes:
    """Encode header lines; what is wrong with one is told by its name."""
    return ("\n".join(checked(line, line.partition(":")[0]) for line in lines) + "\n\n").encode()


def _line(*words: str) -> bytes:
    line = " ".join(word for word in words if word)
    return (checked(line, words[0]) + "\n\n").encode()


@dataclass(frozen=True, slots=True)
class Connect:
    """Take the channel over. Must be the first command; again later, it answers with a fresh snapshot."""

    def encode(self) -> bytes:
        return b"connect\n\n"


@dataclass(frozen=True, slots=True)
class Linger:
    """Keep the socket after the hangup, so that the events of the end arrive."""

    seconds: int
    "The cap. The bare `linger` has none and holds the switch's session for ever: it is not offered."

    def encode(self) -> bytes:
        if self.seconds < 0:  # -1 is how the switch itself writes "no limit"
            raise LocalProtocolError(f"linger of {self.seconds} seconds")
        return f"linger {self.seconds}\n\n".encode()


@dataclass(frozen=True, slots=True)
class MyEvents:
    """Subscribe to the fixed list of this channel's events. HOLD, PLAYBACK and CUSTOM are not in it."""

    format: str = "plain"
    unique_id: str = ""
    "Only on an inbound socket: the channel to tie it to."

    def encode(self) -> bytes:
        return _line("myevents", _word(self.unique_id, "Unique-ID"), "" if self.format == "plain" else self.format)


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Ask for more events by name. `CUSTOM` brings nothing by itself: each subclass is named."""

    names: tuple[str, ...]
    subclasses: tuple[str, ...] = ()
    format: str = "plain"

    def encode(self) -> bytes:
        words = (*self.names, *(("CUSTOM", *self.subclasses) if self.subclasses else ()))
        return _line("event", self.format, *(_word(word, "event name") for word in words))


@dataclass(frozen=True, slots=True)
class Api:
    """Run an api command and wait for its output. It holds everything else on this socket back meanwhile."""

    command: str
    argument: str = ""

    def encode(self) -> bytes:
        return _line("api", self.command, self.argument)


@dataclass(frozen=True, slots=True)
class BgApi:
    """Run an api command in the background; its output comes as BACKGROUND_JOB."""

    command: str
    argument: str = ""
    job_uuid: str = ""
    "Chosen by us, so that the job is known before its reply; else the switch makes one up."

    def encode(self) -> bytes:
        line = _line("bgapi", self.command, self.argument)
        return line[:-1] + _block(f"Job-UUID: {self.job_uuid}") if self.job_uuid else line


@dataclass(frozen=True, slots=True)
class Execute:
    """Queue a dialplan application on the channel. `+OK` means queued; CHANNEL_EXECUTE_COMPLETE is the outcome."""

    application: str
    argument: str = ""
    event_uuid: str = ""
    "Comes back as Application-UUID, which tells this execution from all others."
    event_lock: bool = True
    "Run after what is queued already. Without it the application starts INSIDE the running one."
    loops: int = 1

    def encode(self) -> bytes:
        lines = ["sendmsg", "call-command: execute", f"execute-app-name: {self.application}"]
        if self.argument:
            lines.append(f"execute-app-arg: {self.argument}")
        if self.loops != 1:
            lines.append(f"loops: {self.loops}")
        if self.event_uuid:
            lines.append(f"Event-UUID: {self.event_uuid}")
        if self.event_lock:
            lines.append("event-lock: true")
        return _block(*lines)


@dataclass(frozen=True, slots=True)
class SendMsg:
    """Any other sendmsg: `hangup`, ..."""

    call_command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    unique_id: str = ""
    "Another channel than the socket's own."

    def encode(self) -> bytes:
        lines = [f"sendmsg {_word(self.unique_id, 'Unique-ID')}".rstrip(), f"call-command: {self.call_command}"]
        for name, value in self.headers.items():
            if checked(name, "header name", forbidden=": \t").lower() == "content-length":
                raise LocalProtocolError("a sendmsg with a Content-Length would swallow the commands after it")
            lines.append(f"{name}: {value}")
        return _block(*lines)


@dataclass(frozen=True, slots=True)
class Unicast:
    """Have a parked channel's audio sent and taken over UDP: `SendMsg` of its own, with addresses that are checked.

    `+OK` means taken, whatever becomes of it: a port that is busy shows only in the switch's log.
    """

    local_ip: str
    "The switch's own IPv4 address. It takes audio from whoever finds the port: a narrow one keeps strangers out."
    local_port: int
    remote_ip: str
    "Ours, as the switch reaches it. IPv4 only."
    remote_port: int
    unique_id: str = ""
    "Another channel than the socket's own."

    def encode(self) -> bytes:
        for what, ip in (("local-ip", self.local_ip), ("remote-ip", self.remote_ip)):
            try:
                IPv4Address(ip)
            except ValueError:
                raise LocalProtocolError(f"unicast: {what} is no IPv4 address") from None
        for what, port in (("local-port", self.local_port), ("remote-port", self.remote_port)):
            if not 0 < port < 65536:
                raise LocalProtocolError(f"unicast: {what} is {port}")
        headers = {
            "local-ip": self.local_ip,
            "local-port": str(self.local_port),
            "remote-ip": self.remote_ip,
            "remote-port": str(self.remote_port),
            "transport": "udp",  # `tcp` is accepted, and makes a UDP socket all the same
        }
        return SendMsg("unicast", headers, self.unique_id).encode()


@dataclass(frozen=True, slots=True)
class Auth:
    """Log in on an inbound socket."""

    password: str = field(repr=False)
    user: str = ""
    "`user@domain` for `userauth`; empty for the socket's own password."

    def encode(self) -> bytes:
        return _line("userauth", f"{self.user}:{self.password}") if self.user else _line("auth", self.password)


@dataclass(frozen=True, slots=True)
class Exit:
    """Let go: `+OK bye`, the goodbye notice, EOF. The call is not ended by it."""

    def encode(self) -> bytes:
        return b"exit\n\n"


@dataclass(frozen=True, slots=True)
class Raw:
    """A command given as text, one line."""

    line: str

    def encode(self) -> bytes:
        return (checked(self.line, "command") + "\n\n").encode()
