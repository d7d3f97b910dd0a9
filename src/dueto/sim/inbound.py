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
class Access:
    """Who may come in."""

    password: str = field(default="ClueCon", repr=False)
    users: tuple[tuple[str, str], ...] = ()
    "`NAME@DOMAIN` and password, for `userauth`."
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._access.reject:
            self._write(RUDE_REJECTION)
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
            if block.word in ("connect", "linger", "nolinger", "getvar", "resume", "divert_events"):
                return encode_reply("-ERR command not found")
            return super().carry_out(block)
        word, _, rest = block.line.partition(" ")
        rest = rest.strip()
        if word.lower() == "auth":
            return self._answer(rest == self._access.password)
        if word.lower() == "userauth":
            user, _, password = rest.rpartition(":")
            return self._answer((user, password) in self._access.users, users=True)
        if word.lower() == "exit":
            return super().carry_out(block)
        return encode_reply("-ERR command not found")

    def _answer(self, right: bool, *, users: bool = False) -> bytes:
        if not right:
            self._write(encode_reply("-ERR invalid"))
            self._write(encode_goodbye())
            self.close()
            return b""
        self._logged_in = True
        allowed = [("Allowed-Events", "all"), ("Allowed-API", "all"), ("Allowed-LOG", "true")] if users else []
        return encode_reply("+OK accepted", allowed)

    def leave(self, reply: bytes) -> None:
        """Answer `exit`, say goodbye and close."""
        self._write(reply + encode_goodbye())
        self.close()

    def out_of_patience(self) -> None:
        """`PATIENCE_S` are over: who has not logged in by then is sent away."""
        if not self._logged_in:
            self.close()
