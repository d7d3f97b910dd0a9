"""One telephone call, as its agent sees it: what is known of it, what happens in it, and what may be done with it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

from dueto.call.events import CallEvent, HungUp
from dueto.call.gather import Gathered, Prompt, gather
from dueto.call.phase import Event as Happening
from dueto.call.phase import HangupAsked, LeaveAsked, Phase
from dueto.call.playback import play
from dueto.call.ports import Accept, Announce, Destination, Ear, Mode, Mouth, TransferResult
from dueto.call.presence import Presence, presence
from dueto.call.recording import Recording
from dueto.call.session import Session
from dueto.call.transcript import Transcript
from dueto.call.transfer import REFERRED
from dueto.call.utterance import Utterance
from dueto.clock import Clock
from dueto.errors import CallEnded, CommandRefused, LocalProtocolError, NotCapable
from dueto.wire.esl import Event, checked

Verb = Literal[
    "answer",
    "api",
    "execute",
    "gather",
    "hold",
    "listen",
    "park",
    "play",
    "pre_answer",
    "record",
    "ring_ready",
    "say",
    "send_dtmf",
    "set_variables",
    "transfer",
    "write",
]
Happened = TypeVar("Happened", bound=CallEvent)
DTMF = re.compile(r"[0-9A-D*#wW]{1,128}")


class Call:
    """A call in the hands of its agent. Every verb tells the switch's real outcome, or raises typed.

    Verbs raise CallEnded once the call is over, whatever they were waiting for, and NotCapable where a leg is missing
    or can't do it. All of them are safe to cancel.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.switch_recording = ""
        "The switch's file that `record` began last."

    def __repr__(self) -> str:
        return f"<Call {self.unique_id} {self._session.state.phase.value}>"

    # -- what is

    @property
    def log(self) -> Any:
        """A logger bound to the call."""
        return self._session.log

    @property
    def unique_id(self) -> str:
        """The channel's `Unique-ID`."""
        return self._session.unique_id

    @property
    def secretary(self) -> str:
        """The free routing key of the stream's path."""
        return self._session.secretary

    @property
    def caller_number(self) -> str:
        """`Caller-Caller-ID-Number`, or what the stream's path says. Anybody can write anything here."""
        return self._session.caller_number

    @property
    def caller_name(self) -> str:
        """`Caller-Caller-ID-Name`; empty without a control leg."""
        return self._session.caller_name

    @property
    def destination_number(self) -> str:
        """`Caller-Destination-Number`: what was dialled; empty without a control leg."""
        return self._session.destination_number

    @property
    def rate_hz(self) -> int:
        """The sample rate of the call's audio: that of its stream."""
        return self._session.rate_hz

    @property
    def phase(self) -> Phase:
        """Where the call stands."""
        return self._session.state.phase

    @property
    def ended(self) -> bool:
        """Whether the call is over."""
        return self._session.ended

    @property
    def destinations(self) -> Mapping[str, Destination]:
        """Where this caller can be transferred to, by name."""
        return self._session.house.destinations

    @property
    def tenant(self) -> str:
        """Whose call it is, by the `[[route]]` that it came by; empty: nobody's in particular."""
        return self._session.house.tenant

    def local_time(self) -> datetime:
        """What the clock on the wall says here, for opening hours."""
        return self._session.house.local_time()

    @property
    def clock(self) -> Clock:
        """The clock, in seconds, that everything in the call is measured by."""
        return self._session.house.clock

    def note(self, event: str, **fields: object) -> None:
        """Note something for the log, the metrics and whoever else keeps record: a name in snake case, plain values.

        Fields named like a secret or like digits (`..._digits`, `token`, ...) are masked.
        """
        self._session.journal(event, **fields)

    @property
    def transcript(self) -> Transcript:
        """What was said so far, as far as the agents wrote it down."""
        return self._session.transcript

    @property
    def mouth(self) -> Mouth | None:
        """What `say(text)` speaks with; an agent that brings its own voice may set it."""
        return self._session.mouth

    @mouth.setter
    def mouth(self, mouth: Mouth | None) -> None:
        self._session.mouth = mouth

    @property
    def heard_ms(self) -> int:
        """How much the caller has heard of all that was said to him, as far as it is over."""
        return self._session.voice.heard_ms

    def can(self, verb: Verb) -> bool:
        """Whether `verb` could work right now."""
        return self._session.can(verb)

    def variable(self, name: str) -> str:
        """A channel variable as it was when the control leg came; empty if unset, or without a control leg."""
        control = self._session.control
        return "" if control is None else control.channel.variable(name)

    # -- what happens

    def events(self) -> AsyncIterator[CallEvent]:
        """What happens, typed and in order; HungUp is the last. One reader at a time."""
        return self._session.seat.events()

    async def audio(self, rate_hz: int | None = None) -> AsyncIterator[bytes]:
        """Yield what the caller says: L16 mono, 20 ms a frame, at `rate_hz` (the call's own by default).

        A reader that falls behind by more than `media.max_lag_ms` loses the oldest.
        """
        voice = self._session.voice
        queue = voice.open_queue()
        stop = self.audio_to(queue.put, rate_hz)
        try:
            async for frame in queue.frames():
                yield frame
        finally:
            stop()
            voice.close_queue(queue)

    def audio_to(self, sink: Callable[[bytes], object], rate_hz: int | None = None) -> Callable[[], None]:
        """Call `sink` with every frame, in the same turn of the loop it came in; call what is returned to stop.

        Raises: NotCapable: there is no media leg yet. (An agent starts when there is one.)
        """
        return self._session.voice.add_sink(sink, rate_hz or self.rate_hz)

    def listen(self, ear: Ear) -> None:
        """Attach an ear: from now on its Speech and SpeechStarted come with the other events."""
        self._session.voice.attach(ear)

    # -- what may be done

    async def say(self, what: str | bytes, *, interruptible: bool = True) -> None:
        """Say a text (through the gateway's mouth) or L16 mono at the call's rate; return when it was HEARD.

        On hold it waits for the end of the hold. Cancelling it is silence.
        Raises: Interrupted: `stop()` cut it off; NotCapable: no mouth, no way down, or the caller is bridged.
        """
        async with self._session.alive():
            pcm = what
            if isinstance(pcm, str):
                mouth = self._session.mouth
                if mouth is None:
                    raise NotCapable("no mouth is configured: say() takes audio only")
                pcm = await mouth.speak(pcm, self.rate_hz)
            await self._session.voice.say(pcm, interruptible=interruptible)

    def utterance(self, *, rate_hz: int | None = None, interruptible: bool = True) -> Utterance:
        """Begin to say something that is still being made: L16 mono at `rate_hz` (the call's own by default).

        It is said behind what is being said already, in the order of the opening; `stop()` cuts it.
        Raises: NotCapable: no media leg yet, or the caller is bridged. CallEnded. ValueError: no such rate.
        """
        if self.ended:
            raise CallEnded(f"the call {self.unique_id} is over")
        return Utterance(self._session.voice.utter(interruptible=interruptible), rate_hz or self.rate_hz, self.rate_hz)

    async def write(self, frame: bytes) -> None:
        """Send live audio: L16 mono at the call's rate, as it comes. Where too much waits, the oldest is dropped."""
        self._session.voice.write(frame)

    @property
    def write_now(self) -> Callable[[bytes], None]:
        """`write` as a plain callable, for speed: `call.audio_to(call.write_now)` is an echo."""
        voice = self._session.voice
        return voice.write if voice.player is None else voice.player.write

    async def stop(self, *, by: str = "agent", decided_at: float | None = None) -> int:
        """Silence now: whoever waits in `say` gets Interrupted, unless it is not interruptible.

        Returns how many ms of what was cut had been heard. How long the silence took counts as a barge-in: `by` says
        what interrupted (`speech`, `digit`, ...), `decided_at` when that was detected (now by default), on the loop's
        monotonic clock.
        """
        return self.stop_now(by=by, decided_at=decided_at)

    def stop_now(self, *, by: str = "agent", decided_at: float | None = None) -> int:
        """`stop` for who can't wait in the middle of something: of a message that came, of a timer."""
        return self._session.voice.interrupt(by, decided_at)

    async def silence(self) -> None:
        """Cut everything that is being said, interruptible or not: who said it is not there any more."""
        self._session.voice.silence()

    async def joined(self, timeout_s: float) -> bool:
        """Wait for the control leg where media came first and it may still come; return whether it is here."""
        async with self._session.alive():
            return await self._session.control_soon(timeout_s) is not None

    async def hangup(self, cause: str = "NORMAL_CLEARING") -> None:
        """End the call; returns when the channel is gone. One that is gone already is success."""
        checked(cause, "cause", forbidden=" ")
        await self._until_ended(HangupAsked(cause))

    async def return_to_dialplan(self, **variables: str) -> None:
        """Let go: the stream stops, `variables` are set, the dialplan goes on. For the agent the call is over then."""
        for name, value in variables.items():
            checked(name, "variable", forbidden=" =")
            checked(value, name)
        self._session.conduct.result(**variables)
        await self._until_ended(LeaveAsked(variables.get("dueto_result", "")))

    async def transfer(
        self,
        target: str | Destination,
        *,
        mode: Mode | None = None,
        announce: str | bytes | Announce | None = None,
        accept: Accept | None = None,
        introduce: str | Callable[["Call"], Awaitable[None]] | None = None,
        ringback: str = "",
        timeout_s: float = 30.0,
    ) -> TransferResult:
        """Connect the caller with a destination of the configuration, in the `mode` that it names, or this one.

        A `Destination` made by a program will do, too; its dial string must never be what somebody said or sent.

        `blind`: the other side rings while the caller waits; busy, no answer or unreachable bring him back.
        `announced`: the caller hears hold music (`ringback`: another sound of the switch, or `silence`) while the other
        side is called and told `announce`: a text, L16, or a coroutine that gets that side's own Call. `accept` says
        how it takes the call. Declined, gone or not reached, the caller is the agent's again, with the reason.

        `attended`: as announced, then all three talk: `introduce` (a text that both hear, or a coroutine that gets this
        Call) is the agent's part, and when it is over the agent leaves and the two stay together.

        Returns when the two talk (`result.ok`), or when it is known why not. The caller's hangup meanwhile cancels the
        other side at once and raises CallEnded; cancelling this does the same and leaves the caller with the agent.
        """

        async def meet() -> None:
            if callable(introduce):
                await introduce(self)
            elif introduce:
                await self.say(introduce)

        try:
            async with self._session.alive():
                return await self._session.conduct.transfer(
                    target,
                    mode,
                    announce=announce,
                    accept=accept or Accept(),
                    introduce=meet,
                    ringback=ringback,
                    timeout_s=timeout_s,
                )
        except CallEnded:
            if await self._followed_refer(target):
                return TransferResult("let_go", REFERRED)
            raise

    async def bridge(self, target: str, *, timeout_s: float = 30.0) -> TransferResult:
        """Call a destination and connect the caller with it: the blind transfer, by the switch's own word."""
        return await self.transfer(target, timeout_s=timeout_s)

    async def hold(self, music: str = "") -> None:
        """Put the caller on hold: he hears the switch's hold music, another sound of its own, or `silence`.

        Returns when the switch has done it; a caller who is on hold already is success. Raises: ReplyTimeout.
        """
        async with self._session.alive():
            await self._session.hold.begin(music)

    async def unhold(self) -> None:
        """Take the caller back; returns when the switch has done it. Raises: ReplyTimeout."""
        async with self._session.alive():
            await self._session.hold.end()

    async def answer(self) -> None:
        """Answer the call; one that is answered already is success. Raises: CommandRefused: it is not answered."""
        completion = await self.execute("answer", timeout_s=10.0)
        if completion.get("Answer-State") != "answered":
            raise CommandRefused(f"answer left the channel {completion.get('Answer-State', 'as it was')}")

    async def pre_answer(self) -> None:
        """Begin early media: the caller hears us, and the call costs nothing yet."""
        await self.execute("pre_answer", timeout_s=10.0)

    async def ring_ready(self) -> None:
        """Have the caller hear ringing."""
        await self.execute("ring_ready", timeout_s=10.0)

    async def play(self, sound: str, *, loops: int = 1, timeout_s: float = 600.0) -> int:
        """Have the switch play a file of its own, or `tone_stream://...`; return how many ms of it were played.

        Cancelling it is silence. Raises: CommandRefused: there is no such file, or it can't be played.
        """
        async with self._session.alive():
            return await play(self._session, sound, loops=loops, timeout_s=timeout_s)

    async def stop_playing(self) -> None:
        """Stop what the switch plays for us; `play` returns what was heard of it, or raises Dropped."""
        async with self._session.alive():
            await (await self._session.switch()).break_all()

    async def gather(
        self,
        *,
        min_digits: int = 1,
        max_digits: int = 1,
        terminators: str = "#",
        first_timeout_s: float = 5.0,
        inter_timeout_s: float = 3.0,
        prompt: Prompt | None = None,
        barge_in: bool = True,
    ) -> Gathered:
        """Collect digits: say `prompt`, then wait; with `barge_in` the first digit cuts the prompt.

        A terminator before `min_digits` are there counts for nothing. Meanwhile digits come neither as events nor to
        the DTMF map. Raises: NotCapable: digits are being gathered already.
        """
        async with self._session.alive():
            return await gather(
                self,
                self._session,
                min_digits=min_digits,
                max_digits=max_digits,
                terminators=terminators,
                first_timeout_s=first_timeout_s,
                inter_timeout_s=inter_timeout_s,
                prompt=prompt,
                barge_in=barge_in,
            )

    async def send_dtmf(self, digits: str) -> None:
        """Send digits to the caller's side; `w` waits half a second, `W` one."""
        if not DTMF.fullmatch(digits):
            raise LocalProtocolError("digits are 0 to 9, A to D, * and #, with w or W for pauses; at most 128")
        await self.api("uuid_send_dtmf", f"{self.unique_id} {digits}")

    async def record(self, path: str, *, limit_s: int = 0) -> None:
        """Have the switch record the call to a file of its own. Raises: CommandRefused: it can't be written."""
        checked(path, "path", forbidden=" '\"`$;")
        limit = f" {limit_s}" if limit_s else ""
        await self.api("uuid_record", f"{self.unique_id} start {path}{limit}")
        self.switch_recording = path

    async def stop_recording(self, path: str = "all") -> None:
        """Stop one recording of the switch, or all of them."""
        checked(path, "path", forbidden=" '\"`$;")
        await self.api("uuid_record", f"{self.unique_id} stop {path}")

    def start_recording(self) -> Recording:
        """Begin a recording of our own: stereo, caller left, agent right as heard, and the events beside it.

        It ends with the call, or by `await recording.stop()`; `pause` and `resume` keep a card number out of it. What
        the caller says to somebody he was bridged to is not in it: have the switch record that (`record`).
        Raises: NotCapable: `[recording]` names no directory, or the call is being recorded already. CallEnded.
        """
        if self.ended:
            raise CallEnded(f"the call {self.unique_id} is over")
        return self._session.record()

    @property
    def recording(self) -> Recording | None:
        """Our own recording that runs, by whosever wish."""
        return self._session.recording

    async def park(self) -> None:
        """Leave the channel in the switch's park: silent, alive, without us. For the agent the call is over then.

        Raises: NotCapable: no control leg, or one without `full`.
        """
        if self.ended:
            return
        async with self._session.alive():
            await self._session.switch()
        self._session.conduct.park()
        await self._until_ended(LeaveAsked("parked"))

    async def set_variables(self, **variables: str) -> None:
        """Set channel variables."""
        for name, value in variables.items():
            checked(name, "variable", forbidden=" =")
            await self.api("uuid_setvar", f"{self.unique_id} {name} {value}")

    async def wait_for(
        self,
        kind: type[Happened],
        *,
        where: Callable[[Happened], bool] = lambda event: True,
        timeout_s: float | None = None,
    ) -> Happened:
        """Wait for an event of `kind`, from now on; who reads `events` gets it all the same.

        Raises: TimeoutError; CallEnded: the call ended first (HungUp can be waited for until it was told).
        """
        found: asyncio.Future[Happened] = asyncio.get_running_loop().create_future()

        def look(event: CallEvent) -> None:
            if isinstance(event, kind) and not found.done() and where(event):
                found.set_result(event)

        if self._session.state.told:
            raise CallEnded(f"the call {self.unique_id} is over")
        with self._session.seat.tapped(look):
            async with asyncio.timeout(timeout_s):
                if kind is HungUp:
                    return await found
                async with self._session.alive():
                    return await found

    async def api(self, command: str, argument: str = "", *, timeout_s: float = 5.0) -> str:
        """Run an api command, on the control leg or over the inbound socket. Raises: CommandRefused: -ERR."""
        async with self._session.alive():
            return await self._session.api(command, argument, timeout_s=timeout_s)

    async def extension(self, extension: str) -> Presence:
        """Whether an extension is registered, and idle. Raises: NotCapable: no inbound event socket is configured."""
        async with self._session.alive():
            link = self._session.house.switch
            if link is None:
                raise NotCapable("presence needs the switch's own event socket: [switch] address and password")
            return await presence(link, extension)

    async def bgapi(self, command: str, argument: str = "", *, timeout_s: float = 30.0) -> str:
        """Run an api command that takes its time, as a background job, and return its result.

        Raises: CommandRefused: the result begins with -ERR.
        """
        async with self._session.alive():
            return await self._session.job(command, argument, timeout_s=timeout_s)

    async def execute(self, application: str, argument: str = "", *, timeout_s: float | None = None) -> Event:
        """Run a dialplan application and return its own CHANNEL_EXECUTE_COMPLETE."""
        async with self._session.alive():
            control = await self._session.control_soon(self._session.house.rules.warn_after_s)
            if control is None:
                raise NotCapable("the call has no control leg")
            with self._session.application(application):
                return await control.execute(application, argument, timeout_s=timeout_s)

    async def _followed_refer(self, target: str | Destination) -> bool:
        """Whether the call ended because the caller's telephone went to `target`: that is how a REFER succeeds."""
        known = self._session.house.destinations
        destination = target if isinstance(target, Destination) else known.get(target)
        if destination is None or destination.via != "refer":
            return False
        with contextlib.suppress(CallEnded, TimeoutError):
            await self.wait_for(HungUp, timeout_s=1.0)  # the cause may come a moment later
        return self._session.hangup_cause == REFERRED

    async def _until_ended(self, event: Happening) -> None:
        if self.ended:
            return
        with contextlib.suppress(CallEnded):
            async with self._session.alive():
                self._session.happen(event)
                await asyncio.get_running_loop().create_future()  # the end of the call wakes it
