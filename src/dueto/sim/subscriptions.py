"""Which events one socket gets: `myevents`, `event`, `nixevent`, `noevents`, `filter`, as the switch does it."""

import re
from dataclasses import dataclass, field

from dueto.sim.headers import ChannelEvent
from dueto.wire.esl.names import MY_EVENTS

KNOWN_EVENTS = frozenset(
    {
        *MY_EVENTS,
        *("CUSTOM", "CLONE", "CHANNEL_CALLSTATE", "CHANNEL_HOLD", "CHANNEL_UNHOLD", "CHANNEL_GLOBAL"),
        *("API", "LOG", "INBOUND_CHAN", "OUTBOUND_CHAN", "STARTUP", "SHUTDOWN", "PUBLISH", "UNPUBLISH"),
        *("NOTIFY", "NOTIFY_IN", "MESSAGE", "PRESENCE_IN", "PRESENCE_OUT", "PRESENCE_PROBE", "MESSAGE_WAITING"),
        *("MESSAGE_QUERY", "ROSTER", "CODEC", "BACKGROUND_JOB", "DETECTED_TONE", "PRIVATE_COMMAND", "HEARTBEAT"),
        *("TRAP", "ADD_SCHEDULE", "DEL_SCHEDULE", "EXE_SCHEDULE", "RE_SCHEDULE", "RELOADXML", "SEND_MESSAGE"),
        *("RECV_MESSAGE", "REQUEST_PARAMS", "CHANNEL_DATA", "GENERAL", "COMMAND", "SESSION_HEARTBEAT", "MODULE_LOAD"),
        *("MODULE_UNLOAD", "CLIENT_DISCONNECTED", "SERVER_DISCONNECTED", "SEND_INFO", "RECV_INFO", "CALL_SECURE"),
        *("RECV_RTCP_MESSAGE", "SEND_RTCP_MESSAGE", "NAT", "RECORD_START", "RECORD_STOP", "PLAYBACK_START"),
        *("PLAYBACK_STOP", "CALL_UPDATE", "FAILURE", "SOCKET_DATA", "MEDIA_BUG_START", "MEDIA_BUG_STOP"),
        *("CONFERENCE_DATA_QUERY", "CONFERENCE_DATA", "CALL_SETUP_REQ", "CALL_SETUP_RESULT", "CALL_DETAIL"),
        *("DEVICE_STATE", "TEXT", "SHUTDOWN_REQUESTED"),
    }
)
FORMATS = ("plain", "json", "xml")


@dataclass(slots=True)
class Subscriptions:
    """One socket's list of events. The methods return the switch's reply."""

    names: set[str] = field(default_factory=set)
    subclasses: set[str] = field(default_factory=set)
    everything: bool = False
    format: str = "plain"
    mine: bool = False
    "`myevents` was given; it can't be given again."
    listening: bool = False
    filters: list[tuple[str, str]] = field(default_factory=list)

    def wants(self, name: str, subclass: str) -> bool:
        """Whether an event of this kind passes the list; the filters are asked only when it is built."""
        if self.everything:
            return True
        return subclass in self.subclasses if name == "CUSTOM" else name in self.names

    def passes(self, event: ChannelEvent) -> bool:
        """Whether the filters let it through: any positive one, no negative one; negative ones alone pass nothing."""
        if not self.filters:
            return True
        headers: dict[str, str] = {}
        for name, text in event.pairs:
            headers.setdefault(name.lower(), text)
        passed = False
        for header, wanted in self.filters:
            value = headers.get(header.lower())
            if value is None:
                continue
            negative, wanted = wanted.startswith("-"), wanted.removeprefix("-")
            if len(wanted) > 1 and wanted.startswith("/") and wanted.endswith("/"):
                hit = re.search(wanted[1:-1], value) is not None
            else:
                hit = wanted.lower() in value.lower() if negative else wanted.lower() == value.lower()
            if hit and negative:
                return False
            passed = passed or hit
        return passed

    def myevents(self, rest: str) -> str:
        if self.mine:
            return "-ERR aready enabled."
        words = [word for word in rest.lower().split() if word in FORMATS]
        self.format = words[0] if words else "plain"
        self.mine = self.listening = True
        self.names |= set(MY_EVENTS)
        return "+OK Events Enabled"

    def event(self, rest: str) -> str:
        words = rest.split()
        form = "plain"
        if words and words[0].lower() in FORMATS:
            form = words.pop(0).lower()
        elif words:
            words.pop(0)  # an unknown format counts as plain
        names, subclasses, known, custom = set[str](), set[str](), False, False
        for word in words:
            if custom:
                subclasses.add(word)
            elif word.upper() == "CUSTOM":
                custom = known = True
            elif word.upper() == "ALL":
                self.everything = known = True
            elif word.upper() in KNOWN_EVENTS:
                names.add(word.upper())
                known = True
        if not known:
            return "-ERR no keywords supplied"
        self.names |= names
        self.subclasses |= subclasses
        self.format, self.listening = form, True
        return f"+OK event listener enabled {form}"

    def nixevent(self, rest: str) -> str:
        words = rest.split()
        custom = False
        for word in words:
            if custom:
                self.subclasses.discard(word)
            elif word.upper() == "CUSTOM":
                custom = True
            elif word.upper() == "ALL":
                self.names.clear()
                self.subclasses.clear()
                self.everything = False
            else:
                if self.everything:  # from here on the list says what is left
                    self.everything, self.names = False, set(KNOWN_EVENTS - {"CUSTOM"})
                self.names.discard(word.upper())
        return "+OK events nixed"

    def noevents(self) -> str:
        if not self.listening:
            return "-ERR not listening for events"
        self.names.clear()
        self.subclasses.clear()
        self.everything = self.listening = False
        return "+OK no longer listening for events"

    def filter(self, rest: str) -> str:
        words = rest.split(maxsplit=1)
        if words and words[0].lower() == "delete":
            header, _, value = (words[1] if len(words) > 1 else "").partition(" ")
            if header.lower() == "all":
                self.filters.clear()
            else:
                self.filters = [pair for pair in self.filters if pair[0] != header or (value and pair[1] != value)]
            return f"+OK filter deleted. [{header}][{value}]"
        if len(words) < 2:
            return "-ERR invalid syntax"
        header, value = words
        self.filters.append((header, value))
        return f"+OK filter added. [{header}]=[{value}]"
