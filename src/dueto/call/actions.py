"""What a call does about what happens: how each action of the phase machine is performed."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from dueto.call import phase
from dueto.call.conduct import Conduct
from dueto.call.ending import end, tell_hung_up
from dueto.call.events import (
    Bridged,
    CallEvent,
    ControlJoined,
    ControlLost,
    Held,
    MediaLost,
    MediaResumed,
    Resumed,
    Unbridged,
)
from dueto.call.phase import Action, CallState, Leg, Phase
from dueto.wire.esl import Api

if TYPE_CHECKING:
    from dueto.call.session import Session

Performer = Callable[["Session", phase.Event, CallState], None]
"Is told what has happened, and how the call stood before."


def _expect_media(session: "Session", event: phase.Event, before: CallState) -> None:
    rules = session.house.rules
    due: list[tuple[float, phase.Event]] = [(rules.warn_after_s, phase.WarnTime())]
    if rules.give_up_after_s > 0:
        due.append((rules.give_up_after_s, phase.GiveUpTime()))
    session.timers.start("media", *due)
    if session.conduct.has_company():
        session.tasks.start("expect_media", session.conduct.expect_media())
    session.seat.expect()


def _late(session: "Session", event: phase.Event, before: CallState) -> None:
    session.journal("pairing_late", waited_ms=_waited_ms(session))
    session.tasks.start("late media", session.conduct.late())


def _missing(session: "Session", event: phase.Event, before: CallState) -> None:
    session.conduct.result(dueto_result="no_media")
    session.journal("media_missing")
    hang = session.house.rules.on_missing_media == "hangup"
    session.tasks.start("missing media", session.conduct.hang_up() if hang else session.conduct.leave())


def _paired(session: "Session", event: phase.Event, before: CallState) -> None:
    order = "control_first" if isinstance(event, phase.MediaCame) else "media_first"
    session.journal("paired", order=order, waited_ms=_waited_ms(session))


def _waited_ms(session: "Session") -> int:
    return round((session.house.clock() - session.born_at) * 1000)


def _start_agent(session: "Session", event: phase.Event, before: CallState) -> None:
    session.timers.stop("media")
    if session.waiting_tone and session.control is not None:
        session.waiting_tone = False
        session.tasks.start("end of waiting tone", session.control.break_all())
    recorder = session.house.recorder
    if recorder is not None and recorder.wants(session.destination_number, session.caller_number):
        session.record()
    session.seat.start()


def _held(session: "Session", event: phase.Event, before: CallState) -> None:
    session.journal("held")
    session.seat.tell(Held("us" if session.hold.ours else "caller"))
    session.voice.pause(True)


def _resumed(session: "Session", event: phase.Event, before: CallState) -> None:
    session.journal("resumed")
    session.hold.over()
    session.seat.tell(Resumed())
    session.voice.pause(False)


def _bridged(session: "Session", event: phase.Event, before: CallState) -> None:
    assert isinstance(event, phase.BridgeBegan)
    session.note_state("bridged")
    session.journal("bridged", other=event.other_id)
    session.seat.tell(Bridged(event.other_id))


def _mute(session: "Session", event: phase.Event, before: CallState) -> None:
    session.voice.silence()
    if session.state.phase is Phase.BRIDGED:
        _pause_stream(session, "pause")


def _unmute(session: "Session", event: phase.Event, before: CallState) -> None:
    session.note_state("agent")
    _pause_stream(session, "resume")
    session.voice.unbridged()


def _pause_stream(session: "Session", how: str) -> None:
    control = session.control_now()
    if session.unicast is not None:
        session.unicast.bridged(how == "pause")
    elif control is not None and control.capabilities.api and session.state.media is Leg.UP:
        control.post(Api(session.dialect.command, f"{session.unique_id} {how}"))


def _start_grace(session: "Session", event: phase.Event, before: CallState) -> None:
    session.timers.start("grace", (session.house.rules.hangup_grace_s, phase.GraceOver()))


def _hang_up(session: "Session", event: phase.Event, before: CallState) -> None:
    assert isinstance(event, phase.HangupAsked)
    session.conduct.cause(event.cause)
    session.tasks.start("hang up", session.conduct.hang_up())


def _nothing(session: "Session", event: phase.Event, before: CallState) -> None:
    """The session sees to it where the leg joins."""


def _tell(name: str, told: CallEvent) -> Performer:
    """Tell the agent, and note it as `name`."""

    def perform(session: "Session", event: phase.Event, before: CallState) -> None:
        session.journal(name)
        session.seat.tell(told)

    return perform


def _start(name: str, work: Callable[[Conduct], Coroutine[Any, Any, None]]) -> Performer:
    """Begin what takes time, as the call's task of that name."""

    def perform(session: "Session", event: phase.Event, before: CallState) -> None:
        session.tasks.start(name, work(session.conduct))

    return perform


PERFORMERS: Final[dict[Action, Performer]] = {
    Action.EXPECT_MEDIA: _expect_media,
    Action.PAIRED: _paired,
    Action.RETIRE_CONTROL: _nothing,
    Action.RETIRE_MEDIA: _nothing,
    Action.REFUSE_CONTROL: _nothing,
    Action.REFUSE_MEDIA: _nothing,
    Action.START_AGENT: _start_agent,
    Action.TELL_CONTROL_JOINED: _tell("control_joined", ControlJoined()),
    Action.TELL_CONTROL_LOST: _tell("control_lost", ControlLost()),
    Action.TELL_MEDIA_LOST: _tell("media_lost", MediaLost()),
    Action.TELL_MEDIA_RESUMED: _tell("media_resumed", MediaResumed()),
    Action.TELL_HELD: _held,
    Action.TELL_RESUMED: _resumed,
    Action.TELL_BRIDGED: _bridged,
    Action.TELL_UNBRIDGED: _tell("unbridged", Unbridged()),
    Action.TELL_HUNG_UP: tell_hung_up,
    Action.MUTE: _mute,
    Action.UNMUTE: _unmute,
    Action.WARN: _late,
    Action.MISSING_MEDIA: _missing,
    Action.START_GRACE: _start_grace,
    Action.RECLAIM: _start("reclaim", Conduct.reclaim),
    Action.RESTART_STREAM: _start("restart", Conduct.restart_stream),
    Action.FINISH: _start("finish", Conduct.finish),
    Action.RESCUE: _start("rescue", Conduct.rescue),
    Action.LEAVE: _start("leave", Conduct.leave),
    Action.HANG_UP: _hang_up,
    Action.END: end,
}
