"""The events of a channel: which of them count, and what they mean to its call."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dueto.call import phase
from dueto.call.events import Custom, Dtmf
from dueto.call.keys import press
from dueto.call.part import Part
from dueto.legs.ports import ControlLeg
from dueto.wire.esl import Event

if TYPE_CHECKING:
    from dueto.call.session import Session

DTMF_HZ = 8000
"`DTMF-Duration` counts samples at 8 kHz, whatever the channel's rate."


def _dtmf(session: "Session", event: Event) -> None:
    digit = event.get("DTMF-Digit")
    if digit:
        duration_ms = (event.number("DTMF-Duration") or 0) * 1000 // DTMF_HZ
        session.journal("dtmf", digit=digit, duration_ms=duration_ms)
        pressed = Dtmf(digit, duration_ms)
        if session.gather_digit is not None:
            session.gather_digit(pressed)
        elif not press(session, digit):
            session.seat.tell(pressed)


def _bridged(session: "Session", event: Event) -> None:
    first, second = event.get("Bridge-A-Unique-ID"), event.get("Bridge-B-Unique-ID")
    other_id = event.get("Other-Leg-Unique-ID") or (first if second == session.unique_id else second)
    if session.bridged is not None and not session.bridged.done():
        session.bridged.set_result(other_id)
    session.happen(phase.BridgeBegan(other_id))


def _unbridged(session: "Session", event: Event) -> None:
    session.happen(phase.BridgeEnded())


def _held(session: "Session", event: Event) -> None:
    session.happen(phase.HoldBegan())


def _unheld(session: "Session", event: Event) -> None:
    session.happen(phase.HoldEnded())


def _custom(session: "Session", event: Event) -> None:
    subclass = event.subclass
    if session.module_event is not None and session.module_event(subclass, event.body):
        return
    session.voice.written(subclass, event.body)
    session.journal("custom", subclass=subclass)
    session.seat.tell(Custom(subclass, event.body))


def _parked(session: "Session", event: Event) -> None:
    if session.unicast is not None:
        session.unicast.parked(event.name == "CHANNEL_PARK")


Handler = Callable[["Session", Event], None]
HANGUPS = ("CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE")
HANDLERS: dict[str, Handler] = {
    "DTMF": _dtmf,
    "CHANNEL_BRIDGE": _bridged,
    "CHANNEL_UNBRIDGE": _unbridged,
    "CHANNEL_HOLD": _held,
    "CHANNEL_UNHOLD": _unheld,
    "CHANNEL_PARK": _parked,
    "CHANNEL_UNPARK": _parked,
    "CUSTOM": _custom,
}


class ChannelEvents(Part):
    """The events of one channel, told by its control leg; and by the switch's own event socket while it has none.

    Each counts once, by its Event-Sequence. The hangup counts whoever tells it.
    """

    __slots__ = ("_before", "_so_far", "_unwatch")

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        self._so_far = 0
        self._before = 0
        "What was told before the present control leg came."
        link = session.house.switch
        self._unwatch = link.watch(session.unique_id, self.by_switch) if link is not None else None

    def newer_leg(self) -> None:
        """A control leg came: it may repeat what somebody else has told."""
        self._before = self._so_far

    def by_leg(self, leg: ControlLeg, event: Event) -> None:
        """An event on a control leg; on an older one it counts only if it proves the hangup."""
        handler = HANDLERS.get(event.name)
        if handler is None:
            self._perhaps_hung_up(event)
        elif leg is self._session.control:
            self._take(handler, event, self._before)

    def by_switch(self, event: Event) -> None:
        """An event of the inbound event socket."""
        handler = HANDLERS.get(event.name)
        if handler is None:
            self._perhaps_hung_up(event)
        elif self._session.control_now() is None:
            self._take(handler, event, self._so_far)

    def close(self) -> None:
        """The call is over."""
        if self._unwatch is not None:
            self._unwatch()

    def _perhaps_hung_up(self, event: Event) -> None:
        if event.name in HANGUPS and event.unique_id in ("", self._session.unique_id):
            self._session.happen(phase.ChannelGone(event.get("Hangup-Cause", "NORMAL_CLEARING"), event.name))

    def _take(self, handler: Handler, event: Event, known: int) -> None:
        if event.unique_id not in ("", self._session.unique_id):
            return
        sequence = event.sequence
        if not 0 < sequence <= known:
            self._so_far = max(self._so_far, sequence)
            handler(self._session, event)
