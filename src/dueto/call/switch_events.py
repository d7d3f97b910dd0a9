"""What the events of a channel mean to its call. Those that prove the hangup are the session's own."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from dueto.call import phase
from dueto.call.events import Custom, Dtmf
from dueto.call.keys import press
from dueto.wire.esl import Event

if TYPE_CHECKING:
    from dueto.call.session import Session

DTMF_HZ = 8000
"`DTMF-Duration` counts samples at 8 kHz, whatever the channel's rate."


def _dtmf(session: "Session", event: Event) -> None:
    digit = event.get("DTMF-Digit")
    if digit:
        samples = event.get("DTMF-Duration", "0")
        duration_ms = int(samples) * 1000 // DTMF_HZ if samples.isdigit() else 0
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


HANDLERS: dict[str, Callable[["Session", Event], None]] = {
    "DTMF": _dtmf,
    "CHANNEL_BRIDGE": _bridged,
    "CHANNEL_UNBRIDGE": _unbridged,
    "CHANNEL_HOLD": _held,
    "CHANNEL_UNHOLD": _unheld,
    "CHANNEL_PARK": _parked,
    "CHANNEL_UNPARK": _parked,
    "CUSTOM": _custom,
}
