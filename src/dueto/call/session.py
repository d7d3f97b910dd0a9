"""One call from the inside: its two legs, its phase machine, and all that lives and dies with them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from dueto.call import phase
from dueto.call.actions import PERFORMERS
from dueto.call.conduct import Conduct
from dueto.call.dialects import DialectFinder
from dueto.call.ending import Ending, close_if_over, delivered, note_hangup
from dueto.call.events import Dtmf
from dueto.call.hold import Hold
from dueto.call.house import WORKER, House
from dueto.call.latch import Latch
from dueto.call.life import Life
from dueto.call.phase import Action, CallState, Phase, step
from dueto.call.reach import Reach
from dueto.call.recording import Recording
from dueto.call.registry import Registry
from dueto.call.seat import Seat
from dueto.call.switch_events import ChannelEvents
from dueto.call.tasks import Tasks
from dueto.call.timers import Timers
from dueto.call.transcript import Transcript
from dueto.call.unicast import UnicastStream
from dueto.call.voice import Voice
from dueto.errors import DuetoError, NotCapable
from dueto.legs.ports import DEAF, ControlLeg, MediaLeg
from dueto.wire.esl import Api, Event

_AUDIBLE = (Phase.TALKING, Phase.TRANSFERRING)


class Session(Reach):
    """The inside of one call. Made by the desk; both legs report here, the agent acts through `Call`."""

    # What most calls leave as it is stands here: with at most 30 attributes of its own a session needs no dict.
    secretary = ""
    caller_number = ""
    caller_name = ""
    destination_number = ""
    tokens: frozenset[str] = frozenset()
    "Tokens of the streams we started ourselves."
    sealed = False
    waiting_tone = False
    bridged: asyncio.Future[str] | None = None
    "Who waits for CHANNEL_BRIDGE."
    module_event: Callable[[str, str], bool] | None = None
    "Who is asked first about the audio module's events; true: it was his."
    gather_digit: Callable[[Dtmf], None] | None = None
    "Who gets the digits, in place of the DTMF map and the agent."
    recording: Recording | None = None
    _log: Any = None

    def __init__(self, unique_id: str, house: House, registry: Registry) -> None:
        self.unique_id = unique_id
        self.house = house
        self.registry = registry
        self.born_at = house.clock()
        self.rate_hz = house.rules.rate_hz
        self.state = CallState()
        self.media_up = Latch()
        self.control_up = Latch()
        self.conduct = Conduct(self)
        self.unicast = UnicastStream(self, house.unicast) if house.unicast is not None else None
        self.voice = Voice(self)
        self.mouth = house.mouth
        self.transcript = Transcript(self.journal)
        self.hold = Hold(self)
        self.seat = Seat(self)
        self.life = Life(unique_id, house.rules.hangup_grace_s)
        self.ending = Ending()
        self.tasks = Tasks(unique_id, self._task_failed, self.check_over)
        self.timers = Timers(self)
        self.channel_events = ChannelEvents(self)
        self._happening = False
        self._to_happen: list[phase.Event] = []

    def __repr__(self) -> str:
        return f"<Session {self.unique_id} {self.state.phase.value}>"

    # -- for the call's two faces: the agent's and the conduct's

    @property
    def leaving(self) -> bool:
        """Whether we are letting go of the channel."""
        return self.state.phase is Phase.LEAVING

    @property
    def hung_up(self) -> bool:
        """Whether the channel is gone, or was given up for want of a stream: nothing may join it any more."""
        return self.ending.witness != "left" or self.conduct.gave_up

    @property
    def hangup_cause(self) -> str:
        """Why the channel was hung up, as far as we were told."""
        return self.ending.cause or ""

    def let_go_within(self, seconds: float) -> None:
        """Call the letting go done after `seconds`, whatever became of it: a dead switch answers nothing."""
        self.timers.start("let_go", (seconds, phase.Left()))

    def leave(self, **variables: str) -> None:
        """Give the channel back to the dialplan."""
        self.conduct.result(**variables)
        self.happen(phase.LeaveAsked(variables.get("dueto_result", "")))

    def abort(self) -> None:
        """Break off both connections: the last resort of a gateway that closes."""
        if self.control is not None:
            self.control.abort()
        if self.media is not None:
            self.media.close()

    def check_over(self) -> None:
        """Somebody let go: perhaps nothing of the call is left."""
        close_if_over(self)

    def release(self) -> None:
        """Nothing of the call is left: undo the circles in which its objects hold each other."""
        self.tasks.release()
        self.transcript.release()
        self.voice.release()
        self.control = self.media = self.recording = None

    def alive(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Bound a verb to the call's life: the end of the call wakes it with CallEnded."""
        return self.life.bound()

    def seal(self, sealed: bool) -> None:
        """Let no frame pass in either direction, whatever the phase: the caller is about to talk to somebody else."""
        self.sealed = sealed
        self.audio_changed()
        if self.unicast is not None and not sealed:
            self.unicast.unsealed()

    def audio_changed(self) -> None:
        """The call's state is another, or its stream: from the next frame on audio takes other ways."""
        self.voice.call_changed(self.state.phase in _AUDIBLE and not self.sealed)

    def set_stream_away(self, away: bool) -> None:
        """The stream is over for now, by what the channel is doing; or it is here again."""
        self.stream_away = away
        self.audio_changed()

    def application(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Wrap the run of a dialplan application: some end the stream, which comes back after them."""
        return contextlib.nullcontext() if self.unicast is None else self.unicast.application(name)

    @contextlib.contextmanager
    def gathering(self, take: Callable[[Dtmf], None]) -> Iterator[None]:
        """Hand the caller's digits to `take` as long as the block runs. Raises: NotCapable: somebody else gathers."""
        if self.gather_digit is not None:
            raise NotCapable("digits are being gathered already")
        self.gather_digit = take
        try:
            yield
        finally:
            self.gather_digit = None

    def has_playback(self) -> bool:
        """Whether the switch may be playing something for us."""
        return self.waiting_tone or self.hold.audible or self.voice.in_the_switch

    @property
    def log(self) -> Any:
        """A logger bound to the call."""
        if self._log is None:
            self._log = self.house.logger(self.unique_id)
        return self._log

    def journal(self, event: str, **fields: object) -> None:
        """Note something worth a log line."""
        if self.ending.to_note:
            note_hangup(self)
        self.house.journal(self.unique_id, event, fields)
        if self.recording is not None:
            self.recording.note(event, fields)

    def hangup_delivered(self) -> None:
        """The agent is about to be handed HungUp."""
        delivered(self)

    def record(self) -> Recording:
        """Begin a recording, and say so to the caller where the rules want it. Raises: NotCapable: says why not."""
        recorder = self.house.recorder
        if recorder is None:
            raise NotCapable("the gateway keeps no recordings: set [recording] directory")
        if self.recording is not None:
            raise NotCapable("the call is being recorded already")
        self.recording = Recording(self, recorder)
        self.recording.announcement()
        return self.recording

    # -- the legs' side

    def control_came(self, leg: ControlLeg) -> None:
        """The desk found this call for a control leg: the first, or a newer one."""
        _, actions = step(self.state, phase.ControlCame())
        if Action.REFUSE_CONTROL in actions:
            leg.notify_session_ended("the call is over")
            return
        old, self.control = self.control, leg
        self.control_up.set()
        channel = leg.channel
        self.caller_number = channel.get("Caller-Caller-ID-Number") or self.caller_number
        self.caller_name = channel.get("Caller-Caller-ID-Name") or self.caller_name
        self.destination_number = channel.get("Caller-Destination-Number") or self.destination_number
        self.journal("control_connected", peer=leg.peer, engine=leg.capabilities.engine)
        if not leg.capabilities.api:
            self.journal("control_not_full", hint="without `full` hardly any verb works: `socket HOST:PORT async full`")
        if not leg.capabilities.at_once:
            self.journal(
                "control_not_async",
                hint="without `async` nothing is told while an application runs: `socket HOST:PORT async full`",
            )
        # else a caller's `*` ends a prompt that then reads FILE PLAYED
        leg.post(Api("uuid_setvar", f"{self.unique_id} playback_terminators none"))
        if worker := self.house.worker:
            leg.post(Api("uuid_setvar", f"{self.unique_id} {WORKER} {worker}"))
        if mark := self.house.mark:
            leg.post(Api("uuid_setvar", f"{self.unique_id} dueto_owner {mark}"))
            self.note_state("agent")
        self.happen(phase.ControlCame())
        if old is not None and Action.RETIRE_CONTROL in actions:
            old.notify_session_ended("a newer control leg came")
        self.channel_events.newer_leg()
        leg.attach(self)
        if self.unicast is not None:
            self.unicast.control_came(leg)

    def media_came(self, leg: MediaLeg) -> None:
        """The desk let a stream in."""
        finder = self.house.finder
        if finder is not None and not self.ended:
            known = self.media.dialect if self.media is not None else finder.known(self, leg.peer)
            if known is None:
                self.tasks.start("find dialect", self._find_dialect(finder, leg))
                return
            leg.dialect = known
        self._join(leg)

    async def _find_dialect(self, finder: DialectFinder, leg: MediaLeg) -> None:
        """At the first call of a switch its stream waits for this; the caller's first words of that call are lost."""
        joined = False
        leg.attach(self)
        try:
            leg.dialect = await finder.find(self, leg)
            self._join(leg)
            joined = True
        finally:
            if not joined:
                leg.close(1000, "the call is over")

    def _join(self, leg: MediaLeg) -> None:
        _, actions = step(self.state, phase.MediaCame())
        if Action.REFUSE_MEDIA in actions:
            leg.close(1000, "the call is over")
            return
        old, self.media = self.media, leg
        if old is not None:
            old.listener = DEAF
            if not old.closed:
                self.voice.stream_lost(stopped=True)
        if self.voice.hearing is None:
            self.rate_hz = leg.request.rate_hz
            self.voice.begin(leg)
        self.secretary = self.secretary or leg.request.secretary
        self.caller_number = self.caller_number or leg.request.caller
        leg.attach(self)
        self.audio_changed()
        self.media_up.set()
        self.journal("media_connected", peer=leg.peer, rate_hz=leg.request.rate_hz, dialect=leg.dialect.name)
        self.happen(phase.MediaCame())
        if old is not None and Action.RETIRE_MEDIA in actions:
            old.close(1000, "a newer stream came")
        self.voice.pause(self.state.held)
        if old is not None:
            self.voice.stream_came()

    def control_event(self, leg: ControlLeg, event: Event) -> None:
        """An event of the channel. Once the agent knows that it was hung up, and why, none means anything any more."""
        if self.ending.cause is None or not self.state.told:
            self.channel_events.by_leg(leg, event)

    def control_lingering(self, leg: ControlLeg) -> None:
        """The switch lingers: the channel is gone. It can come before CHANNEL_HANGUP, which brings the cause."""
        if not self.ended:
            self.happen(phase.ChannelGone(None, "linger"))

    def control_closed(self, leg: ControlLeg, reason: str) -> None:
        """A control leg ended; only the current one means anything."""
        if self.state.told:  # it can wait until other calls that end in this turn of the loop are told so
            asyncio.get_running_loop().call_soon(self._control_closed, leg, reason)
        else:
            self._control_closed(leg, reason)

    def _control_closed(self, leg: ControlLeg, reason: str) -> None:
        if leg is self.control:
            self.journal("control_closed", reason=reason)
            if self.unicast is not None:
                self.unicast.control_gone()
            self.happen(phase.ControlClosed())
        self.check_over()

    def media_text(self, leg: MediaLeg, text: str) -> None:
        """Metadata, or what the dialplan had the module send."""
        if not self.voice.text(text):
            self.journal("media_text", length=len(text))

    def media_closed(self, leg: MediaLeg, code: int, reason: str) -> None:
        """A stream ended; only the current one means anything."""
        if leg is self.media:
            self.journal("media_closed", code=code, reason=reason)
            self.voice.stream_lost(stopped=code != 1006)
            self.happen(phase.MediaClosed())
        self.check_over()

    def notify_session_ended(self, reason: str) -> None:
        """The session side is over, whatever the switch thinks: end the call, and tell the control leg so, once."""
        self.happen(phase.ChannelGone(None, reason))

    # -- the machine

    def happen(self, event: phase.Event) -> None:
        """Take a step and do what follows. What happens meanwhile waits for its turn."""
        self._to_happen.append(event)
        if self._happening:
            return
        self._happening = True
        try:
            while self._to_happen:
                event = self._to_happen.pop(0)
                if isinstance(event, phase.ChannelGone):
                    self.ending.proved(event.cause, event.witness)
                before = self.state
                self.state, actions = step(before, event)
                if self.state is not before:
                    self.audio_changed()
                for action in actions:
                    PERFORMERS[action](self, event, before)
        finally:
            self._happening = False
        if self.ended:
            self.check_over()

    def _task_failed(self, name: str, error: BaseException) -> None:
        if not (self.ended and isinstance(error, DuetoError)):
            self.log.error("task_failed", task=name, error=f"{type(error).__name__}: {error}")
