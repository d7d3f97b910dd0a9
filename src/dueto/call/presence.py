"""Whether an extension could take a call right now: from the switch's registrations and channels, asked when asked."""

import re
from dataclasses import dataclass
from typing import Literal

import msgspec

from dueto.errors import LocalProtocolError, RemoteProtocolError
from dueto.legs.ports import ChannelRow, SwitchLink

_EXTENSION = re.compile(r"[A-Za-z0-9._*#+-]{1,64}")
_RINGING = frozenset({"RINGING", "EARLY", "DIALING", "RING_WAIT"})


@dataclass(frozen=True, slots=True)
class Presence:
    """How an extension stands."""

    extension: str
    registered: bool
    "A telephone is registered for it, with this switch."
    state: Literal["idle", "ringing", "busy", "held"]
    "What its channels say; `idle`: it has none."

    @property
    def available(self) -> bool:
        """Whether a call would ring, and find nobody talking."""
        return self.registered and self.state == "idle"


class _Registration(msgspec.Struct):
    reg_user: str = ""


class _Registrations(msgspec.Struct):
    rows: list[_Registration] = []


async def presence(link: SwitchLink, extension: str) -> Presence:
    """Ask the switch about `extension` (a user's number, without a domain).

    Raises: LocalProtocolError: it can be no extension. LegClosed, ReplyTimeout, CommandRefused, RemoteProtocolError.
    """
    if not _EXTENSION.fullmatch(extension):
        raise LocalProtocolError("an extension is up to 64 letters, digits and . _ * # + -")
    text = await link.api("show", "registrations as json", timeout_s=10.0)
    try:
        registrations = msgspec.json.decode(text, type=_Registrations).rows
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError(f"`show registrations as json` gave no list: {error}") from None
    registered = any(row.reg_user == extension for row in registrations)
    return Presence(extension, registered, _state([row for row in await link.channels() if _is_of(row, extension)]))


def _is_of(row: ChannelRow, extension: str) -> bool:
    """Whether a channel belongs to the extension's telephone: it calls, or it is called."""
    if row.presence_id:
        return row.presence_id.partition("@")[0] == extension
    return extension == (row.destination if row.direction == "outbound" else row.caller_number)


def _state(rows: list[ChannelRow]) -> Literal["idle", "ringing", "busy", "held"]:
    states = {row.call_state for row in rows if row.call_state not in ("DOWN", "HANGUP")}
    if not states:
        return "idle"
    if states <= _RINGING:
        return "ringing"
    return "held" if states == {"HELD"} else "busy"
