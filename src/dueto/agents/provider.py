"""The one agent that runs any voice provider over a call: it listens for the model, and speaks for it.

What the caller really HEARD decides everything: where the model's sentence is truncated when he interrupts, when a
tool that waits for the goodbye may run, what the transcript says, and how long a turn took.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dueto.agents.errands import Errands
from dueto.agents.fillers import Filler, LearntWelcome, Sound, Welcome
from dueto.agents.keypad import Keypad
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
from dueto.agents.spoken import Spoken
from dueto.agents.watch import NO_PATIENCE, Patience, Watch
from dueto.audio.resample import Resampler
from dueto.call.events import Bridged, Dtmf, Held, HungUp, Resumed, SpeechStarted, Unbridged
from dueto.call.phase import Phase
from dueto.call.ports import Ear
from dueto.errors import CallEnded, NotCapable, ProviderFailed

if TYPE_CHECKING:
    from dueto.call.call import Call

MOST_EARLY_FRAMES: Final = 100
"What the caller says while the provider connects is kept for it: the last two seconds."
MOST_ITEMS: Final = 16
"Utterances that are over and remembered, for words that come late."

BRIDGED: Final = "The caller is now connected with somebody else and does not hear you. Say nothing until told."
UNBRIDGED: Final = "The caller's conversation with the other person is over and the caller is back with you. Go on."
TAKE_OVER: Final = (
    "You take this conversation over from a colleague. Go on from the caller's last words; "
    "if he has said nothing yet, ask what you can do for him."
)
HELD: Final = "The caller has put you on hold and does not hear you."
RESUMED: Final = "The hold is over: the caller hears you again."


@dataclass(frozen=True, slots=True)
class Manners:
    """How the agent behaves in a conversation, whichever provider speaks."""

    ear: Callable[[], Ear] | None = None
    "Hears the caller begin to speak on this machine, besides the provider: sooner than its answer can come back."
    barge_in: bool = True
    "Whether a caller who speaks, or presses a key, cuts what is being said."
    min_speech_ms: int = 0
    "A caller who speaks for less than this does not interrupt: a cough, a word of assent."
    protected_ms: int = 0
    "The beginning of every utterance that can't be cut: for lines with an echo."
    protects_greeting: bool = False
    "Whether the first utterance is heard to its end, whatever the caller does."
    digits_s: float = 1.0
    "Keys that follow each other within this are one input for the model; `#` ends it at once."
    welcome: Welcome | LearntWelcome | None = None
    "What is heard while the provider connects; None, or not learnt yet: the model speaks first."
    greets: bool = False
    "Whether the model is sure to speak first, where nobody has greeted: silence then is a failure."
    patience: Patience = NO_PATIENCE
    filler: str | Sound = ""
    "What fills a silence that is the agent's: a sentence, or a sound to be repeated."


class ProviderAgent:
    """An agent for any number of calls.

    agent = ProviderAgent(openai_realtime(api_key=...), tools=tools)
    await agent(call)

    Raises: ProviderFailed: the provider can't go on; what was said until then is in the transcript.
    """

    def __init__(self, connect: Connect, *, tools: Tools | None = None, manners: Manners | None = None) -> None:
        self._connect = connect
        self._tools = tools
        self._manners = manners or Manners()

    async def __call__(self, call: "Call") -> None:
        """Serve one call, from its greeting on, or from where another agent had to leave it (`call.transcript`).

        Returns when the caller hung up, or the provider ended the conversation and its last words were heard.
        Raises: ProviderFailed.
        """
        await _Conversation(call, self._connect, self._tools, self._manners).run()


class _Conversation:
    """One provider's conversation in one call. Runs once; nothing of it outlives `run`."""

    def __init__(self, call: "Call", connect: Connect, tools: Tools | None, manners: Manners) -> None:
        self._call = call
        self._connect = connect
        self._tools = tools
        self._manners = manners
        self._provider: VoiceProvider | None = None
        self._stop_hearing: Callable[[], None] | None = None
        self._items: dict[str, Spoken] = {}
        self._ahead: dict[str, str] = {}
        "Words that came before the first sound of their utterance."
        self._tasks: set[asyncio.Task[None]] = set()
        self._here = asyncio.Event()
        "Whether caller and agent hear each other: no hold, nobody else."
        self._here.set()
        self._keypad = Keypad(manners.digits_s, began=self._key_pressed, typed=self._typed)
        self._barge_timer: asyncio.TimerHandle | None = None
        self._fell_silent_at: float | None = None
        self._spoke = self._greeted_by_model = False
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
        self._errands = Errands(call, tools, self._spawn, self._watch, self._heard)

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
        """Converse, until the provider ends it; one that goes while nobody hears it is had again when it is needed."""
        welcome, again = await self._welcome(), False
        while True:
            failure = await self._converse(welcome, again)
            if self._here.is_set() and self._call.phase is not Phase.BRIDGED:
                if failure is not None:
                    raise failure
                return
            await self._here.wait()
            welcome, again = (), True

    async def _converse(self, welcome: tuple[Line, ...], again: bool) -> ProviderFailed | None:
        """One conversation with the provider, from its connect on; return why it could not go on, if it could not.

        `welcome`: what is being said to the caller meanwhile. `again`: the provider went while nobody heard it.
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
        )
        self._greeted_by_model = opening.greets
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
                    provider.prompt(UNBRIDGED if again else TAKE_OVER)
                async for event in provider.events():
                    self._told(provider, event)
                for item in tuple(self._items.values()):
                    item.finish()
                    await item.until_over()
            finally:
                self._provider = None
                self._deaf()
                self._dropped_ms += provider.dropped_ms
                await provider.aclose()
        except ProviderFailed as failure:
            call.note("provider_failed", fault=failure.fault, error=str(failure))
            for item in self._items.values():
                item.finish()
            return failure
        return None

    async def _welcome(self) -> tuple[Line, ...]:
        """Greet at once, if that is ours to do; return what will have been said."""
        welcome, call = self._manners.welcome, self._call
        pcm = await welcome.pcm(call) if welcome is not None and not len(call.transcript) else None
        if welcome is None or pcm is None:
            return ()
        interruptible = not self._manners.protects_greeting
        try:
            utterance = call.utterance(interruptible=interruptible)
        except (NotCapable, CallEnded):
            return ()
        self._spoke = True
        item = self._items["welcome"] = Spoken("welcome", utterance, call.rate_hz, interruptible=interruptible)
        item.text, item.cut_by_provider = welcome.text, True  # a provider can't truncate what it has not said
        item.add(pcm)
        item.finish()
        self._watch.agent_spoke()
        self._spawn("welcome", self._follow(None, item))
        return (Line("agent", welcome.text),) if welcome.text else ()

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
                item = self._items.get(event.item_id)
                if item is None:
                    item = self._begins(provider, event.item_id)
                item.add(event.pcm)
            case SpokeLast():
                if event.item_id in self._items:
                    self._items[event.item_id].finish()
            case CallerBegan():
                self._fell_silent_at = None
                self._watch.caller_spoke()
                self._caller_began()
            case CallerStopped():
                self._fell_silent_at = self._call.clock() - event.ago_ms / 1000
                self._watch.caller_silent()
                if self._barge_timer is not None:
                    self._barge_timer.cancel()
            case Cut():
                self._cut(event.item_id)
            case Transcribed():
                self._transcribed(event)
            case ToolAsked():
                self._errands.ask(provider, event)
            case ToolWithdrawn():
                self._errands.withdraw(event.ask_id)
            case Used():
                for name, amount in event.amounts.items():
                    self._usage[name] = self._usage.get(name, 0) + amount
            case RolledOver():
                self._call.note("provider_rolled_over", reason=event.reason)

    # -- what the model says

    def _begins(self, provider: VoiceProvider, item_id: str) -> Spoken:
        """A new utterance of the model."""
        for old in [one for one in self._items.values() if one.over][:-MOST_ITEMS]:
            del self._items[old.item_id]
        interruptible = self._spoke or not self._manners.protects_greeting
        first, self._spoke = not self._spoke, True
        try:
            utterance = self._call.utterance(rate_hz=provider.speaks_hz, interruptible=interruptible)
        except (NotCapable, CallEnded):  # he talks to somebody else, or is gone
            utterance = None
        item = self._items[item_id] = Spoken(item_id, utterance, provider.speaks_hz, interruptible=interruptible)
        item.came_at = self._call.clock()
        item.text = self._ahead.pop(item_id, "")
        item.answers_at, self._fell_silent_at = self._fell_silent_at, None
        if first and self._greeted_by_model and isinstance(self._manners.welcome, LearntWelcome):
            item.tape = bytearray()
        if utterance is None:
            provider.truncate(item_id, 0)
        else:
            self._watch.agent_spoke()
            self._spawn("utterance", self._follow(provider, item))
        return item

    async def _follow(self, provider: VoiceProvider | None, item: Spoken) -> None:
        try:
            await item.follow()
        finally:
            if not self._live():
                self._watch.agent_silent()
            self._note_turn(item)
            if item.text:
                self._record(item)
        welcome = self._manners.welcome
        if provider is not None and item.tape and item.fate == "heard" and isinstance(welcome, LearntWelcome):
            welcome.learn(item.text, bytes(item.tape), provider.speaks_hz)
        if provider is not None and not item.cut_by_provider and (item.fate != "heard" or item.full):
            provider.truncate(item.item_id, item.heard_ms)

    def _note_turn(self, item: Spoken) -> None:
        began_at = item.began_at
        if item.answers_at is not None and began_at is not None and began_at >= item.answers_at:
            latency_ms, model_ms = (round((at - item.answers_at) * 1000) for at in (began_at, item.came_at))
            self._call.note("turn", latency_ms=latency_ms, model_ms=model_ms)

    def _live(self) -> list[Spoken]:
        return [item for item in self._items.values() if not item.over]

    async def _heard(self) -> bool:
        """Wait until the caller has heard all that was said so far; False: some of it was cut."""
        heard = [await item.until_over() for item in self._live()]
        return all(heard)

    def _cut(self, item_id: str) -> None:
        """The provider broke off by itself: what it said already is not to be heard either."""
        hit = [item for item in self._live() if item_id in ("", item.item_id)]
        for item in hit:
            item.cut_by_provider = True
            item.finish()
        if hit:
            self._spawn("cut", self._silence("speech", self._call.clock()))

    # -- interruptions

    def _caller_began(self) -> None:
        manners, now = self._manners, self._call.clock()
        if not manners.barge_in:
            return
        began = [item.began_at for item in self._live() if item.began_at is not None]
        protected_s = max(began) + manners.protected_ms / 1000 - now if began and manners.protected_ms else 0.0
        delay_s = max(manners.min_speech_ms / 1000, protected_s)
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
        """Silence now, and the model stops; each utterance that is cut tells it by itself what of it was heard."""
        live = self._live()
        if any(not item.interruptible for item in live):
            return
        if self._provider is not None:
            self._provider.cancel()
        if live:
            self._spawn("barge-in", self._silence(by, decided_at))

    async def _silence(self, by: str, decided_at: float) -> None:
        await self._call.stop(by=by, decided_at=decided_at)

    # -- words

    def _transcribed(self, event: Transcribed) -> None:
        item = self._items.get(event.item_id)
        if event.line.who == "agent" and item is None and event.item_id:  # not heard yet, and perhaps it never is
            while len(self._ahead) >= MOST_ITEMS:
                del self._ahead[next(iter(self._ahead))]
            self._ahead[event.item_id] = f"{self._ahead.get(event.item_id, '')} {event.line.text}".strip()
            return
        if event.line.who == "caller" or item is None:
            self._call.transcript.add(event.line.who, event.line.text)
            if event.line.who == "caller":
                self._watch.caller_said()
            return
        late = item.over and not item.text
        item.text = f"{item.text} {event.line.text}".strip()
        if late:
            self._record(item)

    def _record(self, item: Spoken) -> None:
        """What of the model's text was heard goes into the transcript."""
        interrupted = item.fate != "heard"
        self._call.transcript.add("agent", item.words, heard_ms=item.heard_ms, interrupted=interrupted)

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
