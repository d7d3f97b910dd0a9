"""The one agent that runs any voice provider over a call: it listens for the model, and speaks for it.

What the caller really HEARD decides everything: where the model's sentence is truncated when he interrupts, when a
tool that waits for the goodbye may run, what the transcript says, and how long a turn took.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from dueto.agents.errands import Errands
from dueto.agents.fillers import Filler
from dueto.agents.keypad import Keypad
from dueto.agents.manners import Manners as Manners
from dueto.agents.ports import (
    CallerBegan,
    CallerStopped,
    Connect,
    Cut,
    Line,
    Opening,
    ProviderEvent,
    RolledOver,
    Spoke,
    SpokeLast,
    ToolAsked,
    Tools,
    ToolWithdrawn,
    Transcribed,
    Used,
    VoiceProvider,
)
from dueto.agents.said import Said
from dueto.agents.watch import Watch
from dueto.audio.resample import Resampler
from dueto.call.events import Bridged, Dtmf, Held, HungUp, Resumed, SpeechStarted, Unbridged
from dueto.call.phase import Phase
from dueto.call.ports import forewarned
from dueto.errors import CallEnded, NotCapable, ProviderFailed

if TYPE_CHECKING:
    from dueto.call.call import Call

MOST_EARLY_FRAMES: Final = 100
"What the caller says while the provider connects is kept for it: the last two seconds."

BRIDGED: Final = "The caller is now connected with somebody else and does not hear you. Say nothing until told."
UNBRIDGED: Final = "The caller's conversation with the other person is over and the caller is back with you. Go on."
NOT_CONNECTED: Final = "The caller could not be connected with anybody and is back with you. Say so, and go on."
TAKE_OVER: Final = (
    "You take this conversation over from a colleague. Go on from the caller's last words; "
    "if he has said nothing yet, ask what you can do for him."
)
HELD: Final = "The caller has put you on hold and does not hear you."
RESUMED: Final = "The hold is over: the caller hears you again."


class ProviderAgent:
    """An agent for any number of calls.

    agent = ProviderAgent(openai_realtime(api_key=...), tools=tools)
    await agent(call)

    Raises: ProviderFailed: the provider can't go on; what was said until then is in the transcript.
    """

    def __init__(self, connect: Connect, *, tools: Tools | None = None, manners: Manners | None = None) -> None:
        self._connect = connect
        self._ahead = forewarned(connect)
        self._tools = tools
        self._manners = manners or Manners()

    async def __call__(self, call: "Call") -> None:
        """Serve one call, from its greeting on, or from where another agent had to leave it (`call.transcript`).

        Returns when the caller hung up, or the provider ended the conversation and its last words were heard.
        Raises: ProviderFailed.
        """
        await _Conversation(call, self._connect, self._tools, self._manners).run()

    def expect(self, call_id: str) -> None:
        """Get a connection ready, where the provider can: see `dueto.call.ports.Forewarned`."""
        if self._ahead is not None:
            self._ahead.expect(call_id)

    def forget(self, call_id: str) -> bool:
        """Close it again."""
        return self._ahead is not None and self._ahead.forget(call_id)


class _Conversation:
    """One provider's conversation in one call. Runs once; nothing of it outlives `run`."""

    def __init__(self, call: "Call", connect: Connect, tools: Tools | None, manners: Manners) -> None:
        self._call = call
        self._connect = connect
        self._tools = tools
        self._manners = manners
        self._provider: VoiceProvider | None = None
        self._stop_hearing: Callable[[], None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._here = asyncio.Event()
        "Whether caller and agent hear each other: no hold, nobody else."
        self._here.set()
        self._keypad = Keypad(manners.digits_s, began=self._key_pressed, typed=self._typed)
        self._barge_timer: asyncio.TimerHandle | None = None
        self._usage: dict[str, int] = {}
        self._dropped_ms = 0
        self._watch = Watch(
            manners.patience,
            Filler(call, manners.filler, self._spawn),
            say=self._prompt,
            interrupt=self._hush,
            hears=lambda: call.phase is Phase.TALKING,
            note=call.note,
        )
        self._said = Said(call, manners, self._watch, self._spawn)
        self._errands = Errands(call, tools, self._spawn, self._watch, self._said.heard)

    async def run(self) -> None:
        """Talk until somebody ends it."""
        attending = asyncio.ensure_future(self._attend())
        talking = asyncio.ensure_future(self._talk())
        watching = asyncio.ensure_future(self._watch.run())
        try:
            async with self._ear():
                await asyncio.wait({attending, talking, watching}, return_when=asyncio.FIRST_COMPLETED)
            # the hangup comes first: whatever becomes of the provider, the call is over
            next(task for task in (attending, talking, watching) if task.done()).result()
        finally:
            self._keypad.stop()
            if self._barge_timer is not None:
                self._barge_timer.cancel()
            everything = {attending, talking, watching, *self._tasks}
            for task in everything:
                task.cancel()
            await asyncio.wait(everything)
            for task in everything:
                if not task.cancelled():
                    task.exception()
            self._sum_up()

    # -- the provider's side

    async def _talk(self) -> None:
        """Converse, until the provider ends it; one that goes while nobody hears it is had again when it is needed.

        A transfer that it has begun rings on without it, and its failure counts when that has failed, too.
        """
        welcome, again = await self._said.welcome(), ""
        while True:
            failure = await self._converse(welcome, again)
            connecting = await self._errands.connected()
            away = not self._here.is_set() or self._call.phase is Phase.BRIDGED
            if not away and failure is not None:
                raise failure
            if not (away or connecting):
                return
            self._errands.brought()  # asked by a conversation that is over
            await self._here.wait()
            welcome, again = (), UNBRIDGED if away else NOT_CONNECTED

    async def _converse(self, welcome: tuple[Line, ...], again: str) -> ProviderFailed | None:
        """One conversation with the provider, from its connect on; return why it could not go on, if it could not.

        `welcome`: what is being said to the caller meanwhile. `again`: what a model is told that was gone meanwhile.
        """
        call = self._call
        early: deque[bytes] = deque(maxlen=MOST_EARLY_FRAMES)
        self._stop_hearing = call.audio_to(early.append)
        began = call.clock()
        before = tuple(call.transcript)
        said_so_far = (*before, *welcome)
        opening = Opening(
            rate_hz=call.rate_hz,
            tools=self._tools.specs(call) if self._tools is not None else (),
            said_so_far=said_so_far,
            facts=_facts(call),
            greets=not again and all(line.who == "caller" for line in said_so_far),
            call_id=call.unique_id,
        )
        self._said.greeted_by_model = opening.greets
        try:
            provider = await self._connect(opening)
            try:
                call.note("provider_connected", took_ms=round((call.clock() - began) * 1000))
                self._provider = provider
                self._deaf()
                if self._here.is_set():
                    resampler = Resampler(call.rate_hz, provider.hears_hz)
                    for frame in early:
                        provider.hear(resampler.process(frame))
                    self._hear()
                early.clear()
                if opening.greets and self._manners.greets:
                    self._watch.must_speak()
                if not opening.greets and (again or before):
                    provider.prompt(again or TAKE_OVER)
                async for event in provider.events(self._said.more):
                    self._told(provider, event)
                self._said.finish_all()
                await self._said.heard()
            finally:
                self._provider = None
                self._deaf()
                self._dropped_ms += provider.dropped_ms
                await provider.aclose()
        except ProviderFailed as failure:
            call.note("provider_failed", fault=failure.fault, error=str(failure))
            self._said.finish_all()
            return failure
        return None

    def _prompt(self, text: str) -> None:
        if self._provider is not None:
            self._provider.prompt(text)

    async def _hush(self) -> None:
        if self._provider is not None:
            self._provider.cancel()
        await self._call.stop()

    def _hear(self) -> None:
        """Let the provider hear the caller."""
        if self._provider is not None:
            self._deaf()
            self._stop_hearing = self._call.audio_to(self._provider.hear, self._provider.hears_hz)

    def _deaf(self) -> None:
        if self._stop_hearing is not None:
            self._stop_hearing()
            self._stop_hearing = None

    def _told(self, provider: VoiceProvider, event: ProviderEvent) -> None:
        match event:
            case Spoke():
                self._said.add(provider, event)
            case SpokeLast():
                self._said.finish(event.item_id)
            case CallerBegan():
                self._said.caller_silent_at = None
                self._watch.caller_spoke()
                self._caller_began()
            case CallerStopped():
                self._said.caller_silent_at = self._call.clock() - event.ago_ms / 1000
                self._watch.caller_silent()
                if self._barge_timer is not None:
                    self._barge_timer.cancel()
            case Cut():
                self._said.cut(event.item_id)
            case Transcribed() if event.line.who == "agent":
                self._said.transcribed(event)
            case Transcribed():
                self._call.transcript.add("caller", event.line.text)
                self._watch.caller_said()
            case ToolAsked():
                self._errands.ask(provider, event)
            case ToolWithdrawn():
                self._errands.withdraw(event.ask_id)
            case Used():
                for name, amount in event.amounts.items():
                    self._usage[name] = self._usage.get(name, 0) + amount
            case RolledOver():
                self._call.note("provider_rolled_over", reason=event.reason)

    # -- interruptions

    def _caller_began(self) -> None:
        manners, now = self._manners, self._call.clock()
        if not manners.barge_in:
            return
        delay_s = max(manners.min_speech_ms / 1000, self._said.protected_s())
        if self._barge_timer is not None:
            self._barge_timer.cancel()
        if delay_s > 0:
            self._barge_timer = asyncio.get_running_loop().call_later(delay_s, self._interrupt, "speech", now)
        else:
            self._interrupt("speech", now)

    @contextlib.asynccontextmanager
    async def _ear(self) -> AsyncIterator[None]:
        """Let our own ear listen, if we have one, and there is one left."""
        try:
            ear = self._manners.ear() if self._manners.ear is not None else None
        except NotCapable:
            ear = None
        if ear is None:
            yield
            return
        ear.attach(lambda heard: self._caller_began() if isinstance(heard, SpeechStarted) else None)
        stop = self._call.audio_to(ear.hear, ear.rate_hz)
        try:
            yield
        finally:
            stop()
            await ear.aclose()

    def _interrupt(self, by: str, decided_at: float) -> None:
        """Silence now, and the model stops."""
        if self._said.interrupt(by, decided_at) and self._provider is not None:
            self._provider.cancel()

    # -- the call's side

    async def _attend(self) -> None:
        """See what happens in the call; returns when the caller hung up."""
        events: AsyncIterator[Any] = self._call.events()
        async for event in events:
            if isinstance(event, Bridged | Held | Unbridged | Resumed):
                self._went_or_came(event)
            match event:
                case HungUp():
                    return
                case Dtmf():
                    self._watch.caller_silent()
                    self._keypad.press(event.digit)

    def _went_or_came(self, event: Bridged | Held | Unbridged | Resumed) -> None:
        """The caller talks to somebody else, or is on hold; or he is back."""
        provider, away = self._provider, isinstance(event, Bridged | Held)
        self._watch.away(away)
        if away:
            self._here.clear()
            self._deaf()
        else:
            self._here.set()
            self._hear()
        if provider is None:
            return
        match event:
            case Bridged():
                provider.cancel()
                provider.note(BRIDGED)
            case Unbridged():
                self._back(provider)
            case Held():
                provider.note(HELD)
            case Resumed():
                provider.note(RESUMED)

    def _back(self, provider: VoiceProvider) -> None:
        """The caller is back from somebody else: the model goes on, with what its tool brought if it was one."""
        answers = self._errands.brought()
        (provider.note if answers else provider.prompt)(UNBRIDGED)
        for ask_id, output in answers.items():
            provider.answer(ask_id, output)

    def _key_pressed(self) -> None:
        """The first of several keys is heard as an interruption."""
        if self._manners.barge_in:
            self._interrupt("digit", self._call.clock())

    def _typed(self, digits: str) -> None:
        if self._provider is not None:
            self._provider.press(digits)

    # -- the end

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"{self._call.unique_id} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, CallEnded):
            self._call.log.error("task_failed", task=task.get_name(), exc_info=error)

    def _sum_up(self) -> None:
        with contextlib.suppress(CallEnded):
            self._call.note("provider_ended", dropped_ms=self._dropped_ms, **self._usage)


def _facts(call: "Call") -> dict[str, str]:
    facts = {
        "caller_number": call.caller_number,
        "caller_name": call.caller_name,
        "destination_number": call.destination_number,
    }
    return {name: value for name, value in facts.items() if value}
