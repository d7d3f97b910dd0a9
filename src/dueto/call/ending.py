"""How a call ends: what proves it, when the agent is told, what is let go of, and when nothing of it is left.

The agent is told first; what else a hangup costs comes right after the agent's turn. In a process that has a thousand
calls, the rest was two thirds of the way from the switch's bytes to the agent.
"""

import asyncio
from typing import TYPE_CHECKING, final

from dueto.call import phase
from dueto.call.events import HungUp
from dueto.call.phase import CallState, Leg, Phase

if TYPE_CHECKING:
    from dueto.call.session import Session


@final
class Ending:
    """What is known of the end of one call, and how far it has come."""

    __slots__ = ("cause", "gone_at", "is_over", "lets_go", "to_note", "witness")

    def __init__(self) -> None:
        self.cause: str | None = None
        "Why the channel was hung up, as far as we were told."
        self.witness = ""
        "Who was the first to prove it."
        self.gone_at = 0.0
        self.to_note: tuple[tuple[str, dict[str, object]], ...] = ()
        "What is noted of the hangup, once the agent has had its turn."
        self.lets_go = False
        "It is about to let go of all that it does and holds."
        self.is_over = False
        "Nothing of the call is left."

    def proved(self, cause: str | None, witness: str) -> None:
        """The channel is gone, and `witness` says so; who comes later can only add the cause."""
        self.cause = self.cause or cause
        self.witness = self.witness or witness


def tell_hung_up(session: "Session", event: phase.Event, before: CallState) -> None:
    """Let the agent know, as the last that it is told."""
    ending = session.ending
    ending.witness = ending.witness or _witness(before)
    session.seat.tell(HungUp(ending.cause, ending.witness))


def end(session: "Session", event: phase.Event, before: CallState) -> None:
    """No frame passes any more, and no verb begins. The rest comes right after the agent's turn, the notes too."""
    ending = session.ending
    ending.gone_at = session.house.clock()
    ending.witness = ending.witness or _witness(before)
    ending.to_note += (("hungup", {"cause": ending.cause, "witness": ending.witness}),)
    session.life.end()
    session.stream_away = True
    ending.lets_go = True  # the agent has been told, so its turn is in the loop's queue: this comes behind it
    asyncio.get_running_loop().call_soon(_let_go, session)


def delivered(session: "Session") -> None:
    """The agent is about to be handed HungUp."""
    ending = session.ending
    to_agent_ms = (session.house.clock() - ending.gone_at) * 1000
    if ending.to_note:
        ending.to_note += (("hangup_delivered", {"to_agent_ms": to_agent_ms}),)
    else:
        session.journal("hangup_delivered", to_agent_ms=to_agent_ms)


def note_hangup(session: "Session") -> None:
    """Note what there is to be noted of the hangup."""
    notes, session.ending.to_note = session.ending.to_note, ()
    for event, fields in notes:
        session.journal(event, **fields)


def close_if_over(session: "Session") -> None:
    """Once both legs, the agent and every task have let go, nothing of the call is left."""
    ending = session.ending
    if ending.lets_go or ending.is_over or not session.ended or not session.state.told:
        return
    if session.tasks or session.seat.taken:
        return
    control, media = session.control, session.media
    if (control is not None and not control.closed) or (media is not None and not media.closed):
        return
    ending.is_over = True
    session.timers.stop_all()
    duration_s = ending.gone_at - session.born_at
    session.journal("call_ended", duration_s=duration_s, cause=ending.cause, **session.voice.figures())
    session.channel_events.close()
    session.registry.over(session)
    session.release()


def _witness(before: CallState) -> str:
    """Return what it is by which we know, where nobody proved it."""
    if before.phase is Phase.LEAVING:
        return "left"
    return "media_close" if before.control is Leg.AWAITED else "both_legs_gone"


def _let_go(session: "Session") -> None:
    """End what the call does and holds: most of what a hangup costs, the stream's CLOSE more than the rest."""
    ending = session.ending
    ending.lets_go = False
    session.timers.stop_all(but="" if session.state.told else "grace")
    note_hangup(session)
    session.voice.silence()
    session.tasks.cancel()
    session.voice.end()
    if session.b_leg:
        session.cancel_b_leg()
    if session.recording is not None:
        session.recording.finish()
    if session.media is not None:
        session.media.close()
    if session.control is not None:
        session.control.notify_session_ended(ending.witness)
    session.seat.forget()
    session.seat.close(session.house.rules.closing_s)
    close_if_over(session)
