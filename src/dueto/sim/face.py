"""What a channel of the simulated switch shows of itself: its headers, its variables, its events."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from dueto.sim.counters import Counters
from dueto.sim.faults import Faults
from dueto.sim.headers import NOTHING, ChannelEvent, Pairs, Piece, Variables, end_variables, event_piece, sip_variables

if TYPE_CHECKING:
    from dueto.sim.caller import Caller
    from dueto.sim.control import ControlConnection
    from dueto.sim.core import Core

STATES = {"CS_ROUTING": 2, "CS_EXECUTE": 4, "CS_PARK": 7, "CS_HIBERNATE": 9, "CS_HANGUP": 10, "CS_REPORTING": 11}
CALL_STATES = {
    "DOWN": 0,
    "DIALING": 1,
    "RINGING": 2,
    "EARLY": 3,
    "ACTIVE": 4,
    "HELD": 5,
    "RING_WAIT": 6,
    "HANGUP": 7,
    "UNHELD": 8,
}
_WITHOUT_VARIABLES = frozenset({"CHANNEL_STATE", "CHANNEL_CALLSTATE", "DTMF"})


class Record(Protocol):
    """Is told of what happens to a channel."""

    def note(self, leg: str, name: str, **fields: Any) -> None:
        """Put something on the call's time line."""
        ...


class Face:
    """A channel's state, and the events that tell of it."""

    def __init__(
        self, core: "Core", unique_id: str, caller: "Caller", *, counters: Counters, faults: Faults, record: Record
    ) -> None:
        self.core = core
        self.unique_id = unique_id
        self.number, self.caller_name = caller.number, caller.name or caller.number
        self.destination, self.rate_hz = caller.destination, caller.rate_hz
        self.codec = "PCMU" if caller.rate_hz == 8000 else "G722"
        self.counters = counters
        self.faults = faults
        self.record = record
        self.port = 5000 + core.next_session() % 60000
        self.channel_name = f"sofia/internal/{self.number}@127.0.0.1:{self.port}"
        self.started_epoch = core.epoch()
        self.answered_epoch = self.hung_up_epoch = self.progress_epoch = self.early_epoch = 0.0
        self._variables = Variables(
            sip_variables(
                unique_id=unique_id,
                session=core.session,
                number=self.number,
                name=caller.name,
                destination=self.destination,
                port=self.port,
                codec=self.codec,
                epoch=self.started_epoch,
            )
        )
        self.up = True
        "Until the hangup."
        self.state = "CS_EXECUTE"
        "Where the channel is going; `running_state` is where its thread still is."
        self.running_state = "CS_EXECUTE"
        self.call_state = "RINGING"
        self.answer_state = "ringing"
        self.hangup_cause = ""
        self.hung_up_by_caller = False
        self.originated = False
        "Placed by `originate`."
        self.held = False
        self.held_by_caller = False
        "By his telephone: nothing at all is heard. Held by `uuid_hold`, it plays what the switch itself sends."
        self.transfer_source = self.transferred_from = self.callee = ""
        self.controls: list[ControlConnection] = []
        "The sockets that get its events."
        self._caller_piece: Piece | None = None
        self._last = ("", "")

    @property
    def answered(self) -> bool:
        return self.answer_state == "answered"

    @property
    def has_media(self) -> bool:
        """Whether audio flows: answered, or early media."""
        return self.answer_state in ("answered", "early")

    @property
    def variables(self) -> Mapping[str, str]:
        """The channel's variables."""
        return self._variables.values

    def set_variable(self, name: str, value: str | None) -> None:
        """Set a channel variable; None or an empty value removes it."""
        self._variables.set(name, value)

    def state_pairs(self) -> Pairs:
        """Return the headers that tell the channel's state."""
        rate = str(self.rate_hz)
        codec = [("Name", self.codec), ("Rate", rate), ("Bit-Rate", "64000")]
        return (
            ("Channel-State", self.running_state),
            ("Channel-Call-State", self.call_state),
            ("Channel-State-Number", str(STATES[self.state])),
            ("Channel-Name", self.channel_name),
            ("Unique-ID", self.unique_id),
            ("Call-Direction", "outbound" if self.originated else "inbound"),
            ("Presence-Call-Direction", "outbound" if self.originated else "inbound"),
            ("Channel-HIT-Dialplan", "true"),
            ("Channel-Call-UUID", self.unique_id),
            ("Answer-State", self.answer_state),
            *([("Hangup-Cause", self.hangup_cause)] if self.hangup_cause else []),
            *((f"Channel-{way}-Codec-{name}", value) for way in ("Read", "Write") for name, value in codec),
        )

    def profile(self) -> Pairs:
        """Return the caller profile without a prefix."""

        def stamp(at: float) -> str:
            return str(int(at * 1e6))

        started = stamp(self.started_epoch)
        return (
            ("Direction", "outbound" if self.originated else "inbound"),
            ("Logical-Direction", "inbound"),
            ("Username", self.number),
            ("Dialplan", "XML"),
            ("Caller-ID-Name", self.caller_name),
            ("Caller-ID-Number", self.number),
            ("Orig-Caller-ID-Name", self.caller_name),
            ("Orig-Caller-ID-Number", self.number),
            *([("Callee-ID-Name", "Outbound Call"), ("Callee-ID-Number", self.callee)] if self.callee else []),
            ("Network-Addr", "127.0.0.1"),
            ("ANI", self.number),
            ("Destination-Number", self.destination),
            ("Unique-ID", self.unique_id),
            ("Source", "mod_sofia"),
            *([("Transfer-Source", self.transfer_source)] if self.transfer_source else []),
            ("Context", "default"),
            *([("RDNIS", self.transferred_from)] if self.transferred_from else []),
            ("Channel-Name", self.channel_name),
            ("Profile-Index", "1"),
            ("Profile-Created-Time", started),
            ("Channel-Created-Time", started),
            ("Channel-Answered-Time", stamp(self.answered_epoch)),
            ("Channel-Progress-Time", stamp(self.progress_epoch)),
            ("Channel-Progress-Media-Time", stamp(self.early_epoch)),
            ("Channel-Hangup-Time", stamp(self.hung_up_epoch) if self.running_state == "CS_REPORTING" else "0"),
            ("Channel-Transfer-Time", "0"),
            ("Channel-Resurrect-Time", "0"),
            ("Channel-Bridged-Time", "0"),
            ("Channel-Last-Hold", "0"),
            ("Channel-Hold-Accum", "0"),
            ("Screen-Bit", "true"),
            ("Privacy-Hide-Name", "false"),
            ("Privacy-Hide-Number", "false"),
        )

    def snapshot(self) -> bytes:
        """Return the headers of the connect answer, without its reply lines."""
        head = event_piece("CHANNEL_DATA", self.core.epoch(), self.core.next_sequence())
        profile = self.profile()
        pieces = (head, Piece(profile, "Channel-"), Piece(self.state_pairs()), Piece(profile, "Caller-"))
        return b"".join([piece.encoded for piece in (*pieces, self._variables.piece)])

    def profile_changed(self) -> None:
        """Have the caller headers written anew."""
        self._caller_piece = None

    def emit(
        self,
        name: str,
        extra: Iterable[tuple[str, str]] = (),
        *,
        second: Pairs = (),
        other: Pairs = (),
        last: Piece = NOTHING,
        subclass: str = "",
        body: bytes = b"",
    ) -> None:
        """Fire an event to every socket that wants it.

        `second` stands right behind the event's own headers, `other` behind the caller's, `last` and then `extra` at
        the end; `extra` is put on the time line as well.
        """
        extra = tuple(extra)
        self.record.note("control", name, **dict(extra), **({"body": body} if body else {}), **_short(subclass))
        sequence = self.core.next_sequence()
        event: ChannelEvent | None = None
        for control in (*self.controls, *self.core.listeners):
            if not control.wants(name, subclass):
                continue
            if event is None:
                ends = (last, Piece(extra))
                event = self._build(name, sequence, Piece(second), Piece(other), ends, subclass, body)
            control.offer(event)

    def _build(
        self,
        name: str,
        sequence: int,
        second: Piece,
        other: Piece,
        ends: tuple[Piece, ...],
        subclass: str,
        body: bytes,
    ) -> ChannelEvent:
        first: Pairs = (("Event-Subclass", subclass),) if subclass else ()
        if self._caller_piece is None:
            self._caller_piece = Piece(self.profile(), "Caller-")
        head = event_piece(name, self.core.epoch(), sequence, first)
        variables = NOTHING if name in _WITHOUT_VARIABLES else self._variables.piece
        pieces = (head, second, Piece(self.state_pairs()), self._caller_piece, other, variables, *ends)
        return ChannelEvent(name, pieces, subclass=subclass, body=body)

    def set_call_state(self, state: str) -> None:
        """Change the call state and fire CHANNEL_CALLSTATE."""
        before, self.call_state = self.call_state, state
        if before != state:
            number = str(CALL_STATES[state])
            told = (("Original-Channel-Call-State", before), ("Channel-Call-State-Number", number))
            self.emit("CHANNEL_CALLSTATE", second=told)

    def set_running_state(self, state: str) -> None:
        """Change the state and fire CHANNEL_STATE."""
        self.state = self.running_state = state
        self.profile_changed()
        self.emit("CHANNEL_STATE")

    def report(self) -> None:
        """Fire the last events: CHANNEL_STATE CS_REPORTING and CHANNEL_HANGUP_COMPLETE."""
        self.set_running_state("CS_REPORTING")
        last = end_variables(
            cause=self.hangup_cause,
            started=self.started_epoch,
            answered=self.answered_epoch,
            ended=self.hung_up_epoch,
            application=self._last[0],
            data=self._last[1],
            caller_id=f'"{self.caller_name}" <{self.number}>',
        )
        self.emit("CHANNEL_HANGUP_COMPLETE", second=(("Hangup-Cause", self.hangup_cause),), last=last)


def _short(subclass: str) -> dict[str, str]:
    return {"subclass": subclass} if subclass else {}
