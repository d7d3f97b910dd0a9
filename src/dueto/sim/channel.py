"""A channel of the simulated switch: its state, its events, and the queue of what applications are to run on it."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from dueto.sim.counters import Counters
from dueto.sim.faults import Faults
from dueto.sim.headers import (
    Q850,
    ChannelEvent,
    Pairs,
    Piece,
    caller_pairs,
    end_variables,
    event_piece,
    sip_variables,
)
from dueto.sim.messages import MAX_WAITING, Message
from dueto.sim.sounds import Sound

if TYPE_CHECKING:
    from dueto.sim.audio_module import AudioStream
    from dueto.sim.control import ControlConnection
    from dueto.sim.core import Core

STATES = {"CS_ROUTING": 2, "CS_EXECUTE": 4, "CS_HANGUP": 10, "CS_REPORTING": 11}
_WITHOUT_VARIABLES = frozenset({"CHANNEL_STATE", "CHANNEL_CALLSTATE", "DTMF"})


class Record(Protocol):
    """Is told of what happens to a channel."""

    def note(self, leg: str, name: str, **fields: Any) -> None:
        """Put something on the call's time line."""
        ...


class Channel:
    """One call leg inside the switch.

    Its applications are coroutines; they wait in `idle`, which ends with the next 20 ms frame in which something
    happened (`stir`), as a channel's thread looks at its queue once per frame.
    """

    def __init__(
        self,
        core: "Core",
        unique_id: str,
        *,
        number: str,
        name: str,
        destination: str,
        rate_hz: int,
        counters: Counters,
        faults: Faults,
        record: Record,
    ) -> None:
        self.core = core
        self.unique_id = unique_id
        self.number, self.caller_name, self.destination = number, name or number, destination
        self.rate_hz = rate_hz
        self.codec = "PCMU" if rate_hz == 8000 else "G722"
        self.counters = counters
        self.faults = faults
        self.record = record
        self.port = 5000 + core.next_session() % 60000
        self.channel_name = f"sofia/internal/{number}@127.0.0.1:{self.port}"
        self.started_epoch = core.epoch()
        self.answered_epoch = self.hung_up_epoch = self.progress_epoch = self.early_epoch = 0.0
        self.variables = sip_variables(
            unique_id=unique_id,
            session=core.session,
            number=number,
            name=name,
            destination=destination,
            port=self.port,
            codec=self.codec,
            epoch=self.started_epoch,
        )
        self.up = True
        "Until the hangup."
        self.running_state = "CS_EXECUTE"
        self.call_state = "RINGING"
        self.answer_state = "ringing"
        self.hangup_cause = ""
        self.hung_up_by_caller = False
        self.held = False
        self.stream: AudioStream | None = None
        self.controls: list[ControlConnection] = []
        self.playing: Sound | None = None
        self.b_leg: Any = None
        self.next_actions: list[tuple[str, str]] | None = None
        "Where a transfer sends the channel; the running applications end."
        self.media_ready = asyncio.Event()
        "Set by the answer, by early media, and by the hangup."
        self.control_ready = asyncio.Event()
        "Set by the first `connect`."
        self.on_hangup: list[Callable[[], None]] = []
        self._messages: deque[Message] = deque()
        self._locks = 0
        self._break = False
        self._interruptible = 0  # applications that `uuid_break` ends, one inside the other
        self._digits: deque[tuple[str, int, str]] = deque()
        self._pending_hangup: str | None = None
        self._stirred = False
        self._waiter: asyncio.Future[None] | None = None
        self._caller_piece: Piece | None = None
        self._variables_piece: Piece | None = None
        self._last = ("", "")

    # -- state and events ------------------------------------------------------------------------------------------

    @property
    def answered(self) -> bool:
        return self.answer_state == "answered"

    @property
    def has_media(self) -> bool:
        """Whether audio flows: answered, or early media."""
        return self.answer_state in ("answered", "early")

    def set_variable(self, name: str, value: str | None) -> None:
        """Set a channel variable; None or an empty value removes it."""
        self._variables_piece = None
        self.variables.pop(name, None)
        if value:
            self.variables[name] = value

    def state_pairs(self) -> Pairs:
        """Return the headers that tell the channel's state."""
        number = STATES[self.running_state] if self.up else max(STATES[self.running_state], 10)
        rate = str(self.rate_hz)
        codec = [("Name", self.codec), ("Rate", rate), ("Bit-Rate", "64000")]
        return (
            ("Channel-State", self.running_state),
            ("Channel-Call-State", self.call_state),
            ("Channel-State-Number", str(number)),
            ("Channel-Name", self.channel_name),
            ("Unique-ID", self.unique_id),
            ("Call-Direction", "inbound"),
            ("Presence-Call-Direction", "inbound"),
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
            ("Direction", "inbound"),
            ("Logical-Direction", "inbound"),
            ("Username", self.number),
            ("Dialplan", "XML"),
            ("Caller-ID-Name", self.caller_name),
            ("Caller-ID-Number", self.number),
            ("Orig-Caller-ID-Name", self.caller_name),
            ("Orig-Caller-ID-Number", self.number),
            ("Network-Addr", "127.0.0.1"),
            ("ANI", self.number),
            ("Destination-Number", self.destination),
            ("Unique-ID", self.unique_id),
            ("Source", "mod_sofia"),
            ("Context", "default"),
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

    def snapshot(self) -> list[tuple[str, str]]:
        """Return the headers of the connect answer, without its reply lines."""
        head = event_piece("CHANNEL_DATA", self.core.epoch(), self.core.next_sequence())
        profile = self.profile()
        return [
            *head.pairs,
            *caller_pairs("Channel", profile),
            *self.state_pairs(),
            *caller_pairs("Caller", profile),
            *self._variable_pairs(),
        ]

    def profile_changed(self) -> None:
        """Have the caller headers written anew."""
        self._caller_piece = None

    def _variable_pairs(self) -> Iterable[tuple[str, str]]:
        return ((f"variable_{name}", value) for name, value in self.variables.items())

    def emit(
        self,
        name: str,
        extra: Iterable[tuple[str, str]] = (),
        *,
        second: Pairs = (),
        other: Pairs = (),
        last: Pairs = (),
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
        for control in tuple(self.controls):
            if not control.wants(name, subclass):
                continue
            if event is None:
                event = self._build(name, sequence, (*last, *extra), second, other, subclass, body)
            control.offer(event)

    def _build(
        self, name: str, sequence: int, extra: Pairs, second: Pairs, other: Pairs, subclass: str, body: bytes
    ) -> ChannelEvent:
        first: Pairs = (("Event-Subclass", subclass),) if subclass else ()
        if self._caller_piece is None:
            self._caller_piece = Piece(caller_pairs("Caller", self.profile()))
        pieces = [event_piece(name, self.core.epoch(), sequence, first), Piece(second), Piece(self.state_pairs())]
        pieces += [self._caller_piece, Piece(other)]
        if name not in _WITHOUT_VARIABLES:
            if self._variables_piece is None:
                self._variables_piece = Piece(self._variable_pairs())
            pieces.append(self._variables_piece)
        pieces.append(Piece(extra))
        return ChannelEvent(name, pieces, subclass=subclass, body=body)

    def set_call_state(self, state: str) -> None:
        """Change the call state and fire CHANNEL_CALLSTATE."""
        before, self.call_state = self.call_state, state
        if before != state:
            self.emit("CHANNEL_CALLSTATE", second=(("Original-Channel-Call-State", before),))

    def set_running_state(self, state: str) -> None:
        """Change the state and fire CHANNEL_STATE."""
        self.running_state = state
        self.profile_changed()
        self.emit("CHANNEL_STATE")

    # -- what others do to the channel -----------------------------------------------------------------------------

    def hang_up_soon(self, cause: str) -> None:
        """Hang up with the next frame: how a caller's BYE reaches the channel."""
        if self.up and self._pending_hangup is None:
            self._pending_hangup = cause
            self.stir()

    def hang_up(self, cause: str = "NORMAL_CLEARING", *, by_caller: bool = False) -> None:
        """End the call: CHANNEL_HANGUP now, the rest when the applications have unwound."""
        if not self.up:
            return
        self.up = False
        self.hangup_cause = cause if cause in Q850 else "NORMAL_CLEARING"
        self.answer_state = "hangup"
        self.hung_up_epoch = self.core.epoch()
        if by_caller:
            status = "487" if cause == "ORIGINATOR_CANCEL" else "200"
            self.set_variable("sip_term_status", status)
            self.set_variable("proto_specific_hangup_cause", f"sip:{status}")
            self.set_variable("sip_term_cause", status if status == "487" else "16")
        self.hung_up_by_caller = by_caller
        self.emit("CHANNEL_HANGUP")
        if by_caller:
            disposition = "recv_cancel" if cause == "ORIGINATOR_CANCEL" else "recv_bye"
            self.set_variable("sip_hangup_disposition", disposition)
        self.media_ready.set()
        for tell in self.on_hangup:
            tell()
        self.stir()

    def transfer(self, actions: list[tuple[str, str]]) -> None:
        """Leave what is running and go on with `actions`."""
        self.next_actions = actions
        self.stir()

    def queue(self, message: Message) -> bool:
        """Put a sendmsg in the queue; False: it is full, which costs the sender its socket."""
        if not self.up:
            return True
        if len(self._messages) >= MAX_WAITING:
            return False
        self._messages.append(message)
        self.stir()
        return True

    def break_(self, *, everything: bool) -> None:
        """`uuid_break`: end what is playing; with `everything` also forget, without a word, what waits."""
        if everything:
            self._messages.clear()
        if self._interruptible:
            self._break = True
            self.stir()

    def press(self, digit: str, duration: int, source: str) -> None:
        """Receive a digit; `duration` in samples at 8 kHz."""
        self._digits.append((digit, duration, source))

    def hold(self, on: bool, *, by_caller: bool) -> None:
        """Hold, or take back."""
        if on == self.held or not self.up:
            return
        self.held = on
        self.set_call_state("HELD" if on else "UNHELD")
        if by_caller:
            self._hold_told()
        else:
            self.core.loop.call_later(self.core.frame_s, self._hold_told)

    def _hold_told(self) -> None:
        if not self.up:
            return
        self.emit("CHANNEL_HOLD" if self.held else "CHANNEL_UNHOLD")
        if not self.held:
            self.set_call_state("ACTIVE")

    def answer(self) -> None:
        """Answer, if that is still to be done, and run `api_on_answer`."""
        if self.answered or not self.up:
            return
        self.answer_state = "answered"
        self.answered_epoch = self.core.epoch()
        self.media_ready.set()
        self.profile_changed()
        self.emit("CHANNEL_ANSWER")
        self.set_call_state("ACTIVE")
        self.set_variable("endpoint_disposition", "ANSWER")
        if command := self.variables.get("api_on_answer"):
            self.core.run_api(self, command)

    def pre_answer(self) -> None:
        """Begin early media, if there is none yet."""
        if self.has_media or not self.up:
            return
        self.answer_state = "early"
        self.early_epoch = self.core.epoch()
        self.media_ready.set()
        self.profile_changed()
        self.set_variable("endpoint_disposition", "EARLY MEDIA")
        self.emit("CHANNEL_PROGRESS_MEDIA")
        self.set_call_state("EARLY")

    # -- the channel's own thread, so to speak ---------------------------------------------------------------------

    def stir(self) -> None:
        """Have the waiting application look around at the next frame."""
        self._stirred = True

    def frame(self) -> None:
        """One frame has passed: digits, the hangup of the caller, and whoever waits in `idle`."""
        if self._digits and self.up:
            self._take_digit(*self._digits.popleft())
        if self._pending_hangup is not None:
            cause, self._pending_hangup = self._pending_hangup, None
            self.hang_up(cause, by_caller=True)
        if self._stirred and self._waiter is not None and not self._waiter.done():
            self._stirred = False
            self._waiter.set_result(None)

    def _take_digit(self, digit: str, duration: int, source: str) -> None:
        self.emit("DTMF", (("DTMF-Digit", digit), ("DTMF-Duration", str(duration)), ("DTMF-Source", source)))
        terminators = self.variables.get("playback_terminators", "*")
        if self.playing is not None and terminators != "none" and (terminators == "any" or digit in terminators):
            self.set_variable("playback_terminator_used", digit)
            self._break = True
            self.stir()

    async def idle(self) -> None:
        """Wait for the next frame in which something has happened."""
        self._waiter = self.core.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    @property
    def staying(self) -> bool:
        """Whether applications go on: not hung up, not transferred."""
        return self.up and self.next_actions is None

    async def attend(self, done: Callable[[], bool], *, breakable: bool = True) -> bool:
        """Wait until `done`, the end or a transfer, running what is queued meanwhile inside. Returns False: broken off.

        A break ends the innermost application first, and then one by one those around it.
        """
        self._interruptible += breakable
        try:
            while self.staying and not done():
                if breakable and self._break:
                    self._break = False
                    return False
                message = self._take_message()
                if message is None:
                    await self.idle()
                elif not await self._run(message) and breakable:
                    self.stir()
                    await self.idle()
                    return False
            return True
        finally:
            self._interruptible -= breakable
            if not self._interruptible:
                self._break = False

    def _take_message(self) -> Message | None:
        return self._messages.popleft() if self._messages and not self._locks else None

    async def _run(self, message: Message) -> bool:
        self._locks += message.lock
        try:
            if message.command == "hangup":
                self.hang_up(message.cause)
                return True
            return await self.execute(message.application, message.argument, message.uuid, message.loops)
        finally:
            self._locks -= message.lock

    async def execute(self, application: str, argument: str, uuid: str = "", loops: int = 1) -> bool:
        """Run an application between its EXECUTE and EXECUTE_COMPLETE. Returns False: it was broken off."""
        run = self.core.applications.get(application)
        if run is None:
            self.set_variable("app_uuid", uuid or None)
            self.hang_up("DESTINATION_OUT_OF_ORDER")
            return True
        done = 0
        while True:
            done += 1
            self._last = (application, argument)
            uuid = uuid or self.core.new_uuid()
            told = [("Application", application), *([("Application-Data", argument)] if argument else [])]
            self.set_variable("current_loop", str(done))
            self.set_variable("total_loops", str(loops))
            self.set_variable("current_application", application)
            self.set_variable("current_application_data", argument)
            self.set_variable("current_application_response", None)
            self.emit("CHANNEL_EXECUTE", (*told, ("Application-UUID", uuid)))
            began = self.core.now()
            whole = await run(self, argument)
            response = self.variables.get("current_application_response", "_none_")
            complete = (*told, ("Application-Response", response), ("Application-UUID", uuid))
            self.emit("CHANNEL_EXECUTE_COMPLETE", complete)
            if done == loops or not whole or not self.staying or self.core.now() - began < 0.5:
                return whole

    def respond(self, text: str) -> None:
        """Say how the application went: its `Application-Response`."""
        self.set_variable("current_application_response", text)

    def finish(self) -> None:
        """Fire what comes between the hangup and the end of the media."""
        self._messages.clear()
        if not self.hung_up_by_caller:
            self.set_variable("sip_hangup_disposition", "send_bye" if self.answered_epoch else "send_refuse")
        self.set_running_state("CS_HANGUP")
        if self.stream is not None:
            self.emit("MEDIA_BUG_STOP", second=(("Media-Bug-Function", "audio_stream"), ("Media-Bug-Target", "N/A")))
        self.set_call_state("HANGUP")

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
