"""How a call ends: what proves it, when the agent is told, what is let go of, and when nothing of it is left."""

import asyncio
from typing import TYPE_CHECKING

from dueto.call.events import HungUp
from dueto.call.part import Part
from dueto.call.phase import CallState, Leg, Phase

if TYPE_CHECKING:
    from dueto.call.session import Session


class Ending(Part):
    """The end of one call. The agent is told first; what else a hangup costs comes right after the agent's turn.

    In a process that has a thousand calls, the rest was two thirds of the way from the switch's bytes to the agent.
    """

    __slots__ = ("_gone_at", "_lets_go", "_over", "cause", "to_note", "witness")

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        self.cause: str | None = None
        "Why the channel was hung up, as far as we were told."
        self.witness = ""
        "Who was the first to prove it."
        self.to_note: tuple[tuple[str, dict[str, object]], ...] = ()
        "What is noted of the hangup, once the agent has had its turn."
        self._gone_at = 0.0
        self._lets_go = False
        self._over = False

    def proved(self, cause: str | None, witness: str) -> None:
        """The channel is gone, and `witness` says so; who comes later can only add the cause."""
        self.cause = self.cause or cause
        self.witness = self.witness or witness

    def tell(self, before: CallState) -> None:
        """Let the agent know, as the last that it is told; `before` is how the call stood."""
        session = self._session
        session.timers.stop("grace")
        if not self.witness:
            self.witness = _witness(before)
        session.seat.tell(HungUp(self.cause, self.witness))

    def begin(self, before: CallState) -> None:
        """No frame passes any more, and no verb begins. The rest comes right after the agent's turn, the notes too."""
        session = self._session
        self._gone_at = session.house.clock()
        if not self.witness:
            self.witness = _witness(before)
        self.to_note += (("hungup", {"cause": self.cause, "witness": self.witness}),)
        session.life.end()
        session.stream_away = True
        self._lets_go = True  # the agent has been told, so its turn is in the loop's queue: this comes behind it
        asyncio.get_running_loop().call_soon(self._let_go)

    def delivered(self) -> None:
        """The agent is about to be handed HungUp."""
        session = self._session
        to_agent_ms = (session.house.clock() - self._gone_at) * 1000
        if self.to_note:
            self.to_note += (("hangup_delivered", {"to_agent_ms": to_agent_ms}),)
        else:
            session.journal("hangup_delivered", to_agent_ms=to_agent_ms)

    def note(self) -> None:
        """Note what there is to be noted of the hangup."""
        notes, self.to_note = self.to_note, ()
        for event, fields in notes:
            self._session.journal(event, **fields)

    def check(self) -> None:
        """Once both legs, the agent and every task have let go, nothing of the call is left."""
        if self._lets_go or self._over:
            return
        session = self._session
        if not session.ended or not session.state.told or session.tasks or session.seat.taken:
            return
        if any(leg is not None and not leg.closed for leg in (session.control, session.media)):
            return
        self._over = True
        session.timers.stop_all()
        duration_s = self._gone_at - session.born_at
        session.journal("call_ended", duration_s=duration_s, cause=self.cause, **session.voice.figures())
        session.channel_events.close()
        session.registry.over(session)
        session.release()

    def _let_go(self) -> None:
        """End what the call does and holds: most of what a hangup costs, the stream's CLOSE more than the rest."""
        session = self._session
        self._lets_go = False
        session.timers.stop_all(but="" if session.state.told else "grace")
        self.note()
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
            session.control.notify_session_ended(self.witness)
        session.seat.forget()
        session.seat.close(session.house.rules.closing_s)
        self.check()


def _witness(before: CallState) -> str:
    """Return what it is by which we know, where nobody proved it."""
    if before.phase is Phase.LEAVING:
        return "left"
    return "media_close" if before.control is Leg.AWAITED else "both_legs_gone"
