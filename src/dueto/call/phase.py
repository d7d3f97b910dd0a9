"""What a call is in, and what each happening means to it: one pure function over the dual-leg contract.

`step(state, event) -> (state, actions)`. The call performs the actions; nothing here knows time, sockets or the agent.
Every combination of state and event is decided; a test walks them all.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Phase(Enum):
    """Where a call stands."""

    WAITING = "waiting"
    "For its media leg: nobody can talk yet."
    TALKING = "talking"
    "Caller and agent hear each other, or would if nothing was lost."
    TRANSFERRING = "transferring"
    "Another party is being called; the caller waits."
    BRIDGED = "bridged"
    "The caller talks to another channel; the agent neither hears nor is heard."
    LEAVING = "leaving"
    "We are letting go while the channel lives: hanging up, or giving it back to the dialplan."
    ENDED = "ended"
    "For us the call is over."


class Leg(Enum):
    """How one of the two connections stands."""

    AWAITED = "awaited"
    "Never seen, may still come."
    UP = "up"
    DOUBTED = "doubted"
    "Gone without a proof of hangup; the grace period runs."
    LOST = "lost"
    "Gone, while the channel is thought to live."


class AgentIs(Enum):
    """How the agent stands."""

    ABSENT = "absent"
    RUNNING = "running"
    DONE = "done"


class CallState(NamedTuple):
    """All that decides what an event means. (A tuple: another one is made at every turn of a call.)"""

    phase: Phase = Phase.WAITING
    control: Leg = Leg.AWAITED
    media: Leg = Leg.AWAITED
    agent: AgentIs = AgentIs.ABSENT
    held: bool = False
    told: bool = False
    "Whether the agent has been told of the hangup."


# -- what can happen


class Event:
    """Base of what `step` decides on."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ControlCame(Event):
    """A control leg answered `connect`: the first, a second one, or one that comes back."""


@dataclass(frozen=True, slots=True)
class MediaCame(Event):
    """A stream was accepted: the first, a newer one, or one that comes back."""


@dataclass(frozen=True, slots=True)
class ControlClosed(Event):
    """The control leg ended without a proof of hangup."""


@dataclass(frozen=True, slots=True)
class MediaClosed(Event):
    """The stream ended, with or without CLOSE. Before a hangup or after one: only the control leg knows."""


@dataclass(frozen=True, slots=True)
class GraceOver(Event):
    """`call.hangup_grace_ms` have passed since a doubt, or since a proof without a cause."""


@dataclass(frozen=True, slots=True)
class WarnTime(Event):
    """`correlation.warn_after_s` have passed since the control leg came."""


@dataclass(frozen=True, slots=True)
class GiveUpTime(Event):
    """`correlation.give_up_after_s` have passed since the control leg came."""


@dataclass(frozen=True, slots=True)
class ChannelGone(Event):
    """A proof of hangup."""

    cause: str | None
    witness: str


@dataclass(frozen=True, slots=True)
class HoldBegan(Event):
    """CHANNEL_HOLD."""


@dataclass(frozen=True, slots=True)
class HoldEnded(Event):
    """CHANNEL_UNHOLD."""


@dataclass(frozen=True, slots=True)
class TransferBegan(Event):
    """A verb is calling another party."""


@dataclass(frozen=True, slots=True)
class TransferFailed(Event):
    """That party was not reached."""


@dataclass(frozen=True, slots=True)
class BridgeBegan(Event):
    """CHANNEL_BRIDGE."""

    other_id: str


@dataclass(frozen=True, slots=True)
class BridgeEnded(Event):
    """CHANNEL_UNBRIDGE."""


@dataclass(frozen=True, slots=True)
class RestartFailed(Event):
    """A lost stream could not be started again."""


@dataclass(frozen=True, slots=True)
class AgentDone(Event):
    """The agent returned."""


@dataclass(frozen=True, slots=True)
class AgentFailed(Event):
    """The agent raised, or could not keep up."""


@dataclass(frozen=True, slots=True)
class LeaveAsked(Event):
    """Somebody wants the channel back in the dialplan."""

    result: str


@dataclass(frozen=True, slots=True)
class HangupAsked(Event):
    """Somebody wants the channel gone."""

    cause: str


@dataclass(frozen=True, slots=True)
class Left(Event):
    """Letting go is done, or has taken too long."""


# -- what a call does about it


class Action(Enum):
    """Performed by the call, in order."""

    EXPECT_MEDIA = "start the correlation timers, let the caller hear `while_waiting`, start the stream if that is ours"
    PAIRED = "note that both legs are here"
    RETIRE_CONTROL = "the older control leg is sent `exit`"
    RETIRE_MEDIA = "the older stream is closed"
    REFUSE_CONTROL = "the new control leg is sent `exit`"
    REFUSE_MEDIA = "the new stream is closed"
    START_AGENT = "run the agent"
    TELL_CONTROL_JOINED = "ControlJoined"
    TELL_CONTROL_LOST = "ControlLost"
    TELL_MEDIA_LOST = "MediaLost"
    TELL_MEDIA_RESUMED = "MediaResumed"
    TELL_HELD = "Held"
    TELL_RESUMED = "Resumed"
    TELL_BRIDGED = "Bridged"
    TELL_UNBRIDGED = "Unbridged"
    TELL_HUNG_UP = "HungUp; always the last the agent is told"
    MUTE = "stop what is being said; no frame in either direction from here on"
    UNMUTE = "audio flows again"
    WARN = "the media leg is late: log, count, start the stream if we can"
    MISSING_MEDIA = "`correlation.on_missing_media`"
    START_GRACE = "call back with GraceOver"
    RECLAIM = "ask the inbound socket whether the channel lives, and have it dial us again"
    RESTART_STREAM = "ask the switch whether the channel lives; stop, start, three tries"
    FINISH = "`agent.when_done`, once what was said has been heard"
    RESCUE = "`agent.when_failed`"
    LEAVE = "stop the stream, set the variables, let go of the socket"
    HANG_UP = "kill the channel"
    END = "stop playout and agent, fail what waits, let go of both legs"


Actions = tuple[Action, ...]
A = Action


def step(state: CallState, event: Event) -> tuple[CallState, Actions]:
    """Decide what `event` means to a call in `state`."""
    if state.phase is Phase.ENDED:
        return _after_the_end(state, event)
    match event:
        case ChannelGone(cause):
            return _end(state, tell=cause is not None)
        case ControlCame():
            return _control_came(state)
        case MediaCame():
            return _media_came(state)
        case ControlClosed():
            return _control_closed(state)
        case MediaClosed():
            return _media_closed(state)
        case GraceOver():
            return _grace_over(state)
        case HoldBegan():
            return (state, ()) if state.held else (state._replace(held=True), (A.TELL_HELD,))
        case HoldEnded():
            return (state._replace(held=False), (A.TELL_RESUMED,)) if state.held else (state, ())
        case Left():
            return _end(state, tell=True) if state.phase is Phase.LEAVING else (state, ())
    if state.phase is Phase.LEAVING:  # whatever else happens now, we are on our way out
        return (state._replace(agent=AgentIs.DONE), ()) if isinstance(event, AgentDone | AgentFailed) else (state, ())
    match event:
        case WarnTime():
            return state, ((A.WARN,) if state.media is Leg.AWAITED else ())
        case GiveUpTime():
            return (_leaving(state), (A.MISSING_MEDIA,)) if state.media is Leg.AWAITED else (state, ())
        case TransferBegan():
            return (state._replace(phase=Phase.TRANSFERRING), ()) if state.phase is Phase.TALKING else (state, ())
        case TransferFailed():
            return (state._replace(phase=_unbridged(state)), ()) if state.phase is Phase.TRANSFERRING else (state, ())
        case BridgeBegan():
            if state.phase is Phase.BRIDGED:
                return state, ()
            return state._replace(phase=Phase.BRIDGED), (A.MUTE, A.TELL_BRIDGED)
        case BridgeEnded():
            return _bridge_ended(state)
        case RestartFailed():
            return (_leaving(state), (A.LEAVE,)) if state.media is Leg.LOST else (state, ())
        case AgentDone():
            state = state._replace(agent=AgentIs.DONE)
            return (state, ()) if state.phase is Phase.BRIDGED else (_leaving(state), (A.FINISH,))
        case AgentFailed():
            state = state._replace(agent=AgentIs.DONE)
            return (state, ()) if state.phase is Phase.BRIDGED else (_leaving(state), (A.RESCUE,))
        case LeaveAsked():
            return _leaving(state), (A.MUTE, A.LEAVE)
        case HangupAsked():
            return _leaving(state), (A.MUTE, A.HANG_UP)
    raise AssertionError(f"undecided: {state}, {event}")


def _after_the_end(state: CallState, event: Event) -> tuple[CallState, Actions]:
    match event:
        case ControlCame():
            return state, (A.REFUSE_CONTROL,)
        case MediaCame():
            return state, (A.REFUSE_MEDIA,)
        case ChannelGone(str()) | GraceOver() | Left() if not state.told:  # the cause, or the end of waiting for it
            return state._replace(told=True), (A.TELL_HUNG_UP,)
        case ControlClosed() if not state.told:  # nobody can name a cause any more
            return state._replace(told=True, control=Leg.LOST), (A.TELL_HUNG_UP,)
        case ControlClosed():
            return state._replace(control=Leg.LOST), ()
        case MediaClosed():
            return state._replace(media=Leg.LOST), ()
        case AgentDone() | AgentFailed():
            return state._replace(agent=AgentIs.DONE), ()
    return state, ()


def _end(state: CallState, *, tell: bool) -> tuple[CallState, Actions]:
    state = state._replace(phase=Phase.ENDED, told=tell)
    return state, ((A.TELL_HUNG_UP, A.END) if tell else (A.START_GRACE, A.END))


def _leaving(state: CallState) -> CallState:
    return state._replace(phase=Phase.LEAVING)


def _unbridged(state: CallState) -> Phase:
    return Phase.WAITING if state.media is Leg.AWAITED else Phase.TALKING


def _control_came(state: CallState) -> tuple[CallState, Actions]:
    known = state.control is not Leg.AWAITED
    retire = (A.RETIRE_CONTROL,) if state.control is Leg.UP else ()
    lost = state.control is Leg.LOST
    state = state._replace(control=Leg.UP)
    if state.phase is Phase.LEAVING:
        return state, retire
    if not known and state.media is Leg.AWAITED:
        return state, (A.EXPECT_MEDIA,)
    if not known:
        return state, (A.PAIRED, A.TELL_CONTROL_JOINED)
    return state, (*retire, *((A.TELL_CONTROL_JOINED,) if lost else ()))


def _media_came(state: CallState) -> tuple[CallState, Actions]:
    if state.phase is Phase.LEAVING:
        return state, (A.REFUSE_MEDIA,)
    was = state.media
    state = state._replace(media=Leg.UP)
    if was is Leg.AWAITED:
        paired = (A.PAIRED,) if state.control is Leg.UP else ()
        if state.phase is Phase.WAITING:
            state = state._replace(phase=Phase.TALKING)
        if state.agent is AgentIs.ABSENT:
            return state._replace(agent=AgentIs.RUNNING), (*paired, A.START_AGENT)
        return state, paired
    if was is Leg.UP:
        return state, (A.RETIRE_MEDIA,)
    return state, ((A.TELL_MEDIA_RESUMED,) if was is Leg.LOST else ())


def _control_closed(state: CallState) -> tuple[CallState, Actions]:
    if state.control is not Leg.UP:
        return state, ()
    if state.phase is Phase.LEAVING:
        return _end(state._replace(control=Leg.LOST), tell=True)
    state = state._replace(control=Leg.DOUBTED)
    if state.media in (Leg.DOUBTED, Leg.LOST):
        return _end(state, tell=True)
    return state, (A.START_GRACE,)


def _media_closed(state: CallState) -> tuple[CallState, Actions]:
    if state.media is not Leg.UP:
        return state, ()
    if state.phase is Phase.LEAVING:
        state = state._replace(media=Leg.LOST)
        return (state, ()) if state.control is Leg.UP else _end(state, tell=True)
    state = state._replace(media=Leg.DOUBTED)
    if state.control is not Leg.UP:  # the other one is gone too, or there never was one: this end is the hangup
        return _end(state, tell=True)
    return state, (A.START_GRACE,)


def _grace_over(state: CallState) -> tuple[CallState, Actions]:
    if state.control is Leg.DOUBTED:
        state = state._replace(control=Leg.LOST)
        if state.media is not Leg.UP:
            return _end(state, tell=True)
        return state, (() if state.phase is Phase.LEAVING else (A.TELL_CONTROL_LOST, A.RECLAIM))
    if state.media is Leg.DOUBTED:
        state = state._replace(media=Leg.LOST)
        if state.phase is Phase.LEAVING:
            return state, ()
        restart = () if state.phase is Phase.BRIDGED else (A.RESTART_STREAM,)
        return state, (A.TELL_MEDIA_LOST, *restart)
    return state, ()


def _bridge_ended(state: CallState) -> tuple[CallState, Actions]:
    if state.phase is not Phase.BRIDGED:
        return state, ()
    state = state._replace(phase=_unbridged(state))
    if state.agent is AgentIs.DONE:
        return _leaving(state), (A.TELL_UNBRIDGED, A.FINISH)
    restart = (A.RESTART_STREAM,) if state.media is Leg.LOST else ()
    return state, (A.UNMUTE, A.TELL_UNBRIDGED, *restart)
