"""The simulated switch's own event socket: who connects logs in, and then sees and commands every channel."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dueto.sim.caller import Caller
from dueto.sim.channel import Channel
from dueto.sim.control import ControlConnection
from dueto.sim.counters import Counters
from dueto.sim.faults import NO_FAULTS, Faults
from dueto.wire.esl.switch_end import CommandBlock, encode_goodbye, encode_reply

if TYPE_CHECKING:
    from dueto.sim.core import Core

AUTH_REQUEST = b"Content-Type: auth/request\n\n"
_TEXT = b"Access Denied, go away.\n"
RUDE_REJECTION = b"Content-Type: text/rude-rejection\nContent-Length: %d\n\n%s" % (len(_TEXT), _TEXT)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who logs in with `userauth`; empty: everything is allowed."""

    name: str
    "`NAME@DOMAIN`."
    password: str = field(repr=False)
    events: tuple[str, ...] = ()
    api: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in."""

    password: str = field(default="ClueCon", repr=False)
    users: tuple[User, ...] = ()
    reject: bool = False
    "Send everybody away: their address is in no acl."


OPEN = Access()
"A switch as it is installed: password `ClueCon`."


class _Unwritten:
    """A record that keeps nothing."""

    def note(self, leg: str, name: str, **fields: Any) -> None:
        pass


class InboundConnection(ControlConnection):
    """The switch's end of one inbound event socket."""

    def __init__(self, core: "Core", access: Access, faults: Faults = NO_FAULTS) -> None:
        lobby = Channel(core, core.new_uuid(), Caller(), counters=Counters(), faults=faults, record=_Unwritten())
        super().__init__(lobby, static=False, full=True)
        self._access = access
        self._logged_in = False
        self._user: User | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._access.reject:
            self._write(RUDE_REJECTION + encode_goodbye())
            self.close()
            return
        self._first_seen = True  # no `connect` has to lead here
        self.core.listeners.append(self)
        self._write(AUTH_REQUEST)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self in self.core.listeners:
            self.core.listeners.remove(self)

    def carry_out(self, block: CommandBlock) -> "bytes | asyncio.Future[bytes]":
        if self._logged_in:
            if block.word in ("linger", "nolinger"):
                return encode_reply("-ERR not controlling a session")
            if block.word in ("connect", "getvar", "resume", "divert_events"):
                return encode_reply("-ERR command not found")
            if block.line.strip().lower() == "sendmsg":
                return encode_reply("-ERR invalid session id []")
            return super().carry_out(block) if self._allowed(block) else encode_reply("-ERR permission denied")
        word, _, rest = block.line.partition(" ")
        rest = rest.strip()
        if word.lower() == "auth":
            return self._answer(rest == self._access.password)
        if word.lower() == "userauth":
            self._user = next((one for one in self._access.users if rest in _ways(one)), None)
            return self._answer(self._user is not None)
        if word.lower() == "exit":
            return super().carry_out(block)
        return encode_reply("-ERR command not found")

    def _allowed(self, block: CommandBlock) -> bool:
        """Whether this user may: what is named must be on the list, all of it."""
        words, user = block.line.split(), self._user
        if user is None:
            return True
        if block.word in ("api", "bgapi"):
            return not user.api or (len(words) > 1 and words[1] in user.api)
        return block.word != "event" or not user.events or set(words[2:]) <= set(user.events)

    def _answer(self, right: bool) -> bytes:
        if not right:
            self._write(encode_reply("-ERR invalid"))
            self._write(encode_goodbye())
            self.close()
            return b""
        self._logged_in = True
        if (user := self._user) is None:
            return encode_reply("+OK accepted")
        events, api = " ".join(user.events) or "all", " ".join(user.api) or "all"
        return encode_reply("+OK accepted", [("Allowed-Events", events), ("Allowed-API", api), ("Allowed-LOG", "true")])

    def leave(self, reply: bytes) -> None:
        """Answer `exit`, say goodbye and close."""
        self._write(reply + encode_goodbye())
        self.close()

    def out_of_patience(self) -> None:
        """`PATIENCE_S` are over: who has not logged in by then is sent away."""
        if not self._logged_in:
            self.close()


def _ways(user: User) -> tuple[str, str]:
    """The two ways a user may be written: `NAME@DOMAIN:PASSWORD` and `NAME:PASSWORD@DOMAIN`."""
    name, _, domain = user.name.partition("@")
    return f"{user.name}:{user.password}", f"{name}:{user.password}@{domain}"
