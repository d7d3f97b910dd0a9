"""Three parts as one voice provider: an utterance is transcribed, thought about, and answered sentence by sentence.

Nothing waits for the end of anything: recognition begins in the pause that may be the end, the first sentence is spoken
while the second is being written, and a caller who speaks again stops all of it at once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, TypeVar

from dueto.agents.cascade.memory import Answer, Memory
from dueto.agents.cascade.ports import Message, Speaker, Thinker, Transcriber, Want
from dueto.agents.cascade.sentences import SentenceCutter
from dueto.agents.cascade.utterances import UtteranceCutter
from dueto.agents.ports import (
    CallerBegan,
    CallerStopped,
    Line,
    Opening,
    ProviderEvent,
    Spoke,
    SpokeLast,
    ToolAsked,
    Transcribed,
)
from dueto.agents.speech.endpoint import Began, Paused, Utterance
from dueto.agents.told import Told
from dueto.errors import ProviderFailed

T = TypeVar("T")
MOST_ROUNDS: Final = 8
"Tools after tools after tools, without a word from the caller."
MOST_AHEAD: Final = 8
"Sentences that may be written and not spoken yet."
MOST_WAITING: Final = 4
"Utterances of the caller that may be with the transcriber."
LONGEST_ANSWER_S: Final = 90.0
"Of speech; more is not said."
MOST_ITEMS: Final = 16


class Cascade:
    """One conversation, a `VoiceProvider`. Made by what `cascade` returns."""

    def __init__(
        self,
        opening: Opening,
        hearing: UtteranceCutter,
        transcriber: Transcriber,
        thinker: Thinker,
        speaker: Speaker,
        *,
        instructions: str = "",
        greeting: str = "",
    ) -> None:
        self.hears_hz = hearing.rate_hz
        self.speaks_hz = speaker.rate_hz
        self.dropped_ms = 0
        self._opening = opening
        self._hearing = hearing
        self._transcriber = transcriber
        self._thinker = thinker
        self._speaker = speaker
        self._told = Told("the cascade")
        self._memory = Memory(instructions, opening.said_so_far)
        self._items: dict[str, Answer] = {}
        self._numbers = 0
        self._early: tuple[bytes, asyncio.Task[str]] | None = None
        self._hearings: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        "All that run, those that were cancelled and are not over yet as well."
        self._turns = asyncio.Lock()
        "Utterances are taken in the order they were said."
        self._answering: asyncio.Task[None] | None = None
        self._speaks = False
        "The answer is being heard already, or tools of it run: a new one comes behind it."
        self._again = False
        self._asked: dict[str, asyncio.Future[str]] = {}
        if opening.greets and greeting:
            self._answer(self._say(greeting))
        elif opening.greets:
            self.prompt("Greet the caller now, in one short sentence.")

    # -- the port

    def hear(self, frame: bytes) -> None:
        """Take 20 ms of the caller."""
        for happening in self._hearing.hear(frame):
            match happening:
                case Began():
                    self._told.put(CallerBegan())
                case Paused(pcm):
                    self._begin_early(pcm)
                case Utterance():
                    self._told.put(CallerStopped(self._hearing.pause_ms))
                    self._take(happening.pcm)

    def events(self, speech: Callable[[Spoke], bool] | None = None) -> AsyncIterator[ProviderEvent]:
        """What is said, and asked for."""
        return self._told.events(speech)

    def cancel(self) -> None:
        """Stop thinking and speaking. Tools that run already run on: what they do is done."""
        self._again = False
        if self._answering is not None and not self._asked:
            self._answering.cancel()
            self._answering = None

    def truncate(self, item_id: str, heard_ms: int) -> None:
        """Remember of an answer what was heard of it."""
        item = self._items.get(item_id)
        if item is not None:
            self._memory.said(item_id, item.words(heard_ms))

    def answer(self, ask_id: str, output: str) -> None:
        """What a tool brought."""
        asked = self._asked.get(ask_id)
        if asked is not None and not asked.done():
            asked.set_result(output)

    def press(self, digits: str) -> None:
        """The caller pressed keys: the model answers them."""
        self._memory.add(Message("user", f"[pressed these keys of the telephone: {digits}]"))
        self._answer_soon()

    def note(self, text: str) -> None:
        """Tell the model what happened."""
        self._memory.add(Message("system", text))

    def prompt(self, text: str) -> None:
        """Have the model speak now."""
        self._memory.add(Message("system", text))
        self._answer_soon()

    async def aclose(self) -> None:
        """Stop everything and give the detector back."""
        self._told.end()
        self._hearing.close()
        for task in self._tasks:
            if not task.cancelling():  # a second time would break off its clean-up
                task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    # -- what the caller says

    def _begin_early(self, pcm: bytes) -> None:
        self._drop_early()
        if len(self._hearings) < MOST_WAITING:
            work = self._transcriber.transcribe(pcm, self._hearing.rate_hz)
            self._early = pcm, self._own(work, "hear early")
            self._early[1].add_done_callback(_retrieve)

    def _drop_early(self) -> None:
        early, self._early = self._early, None
        if early is not None:
            early[1].cancel()

    def _take(self, pcm: bytes) -> None:
        """An utterance is over: have its words, and answer them."""
        early, self._early = self._early, None
        if early is not None and early[0] != pcm:
            early[1].cancel()
            early = None
        if len(self._hearings) >= MOST_WAITING:
            return
        words = early[1] if early is not None else None
        self._spawn(self._hear_out(pcm, words))

    async def _hear_out(self, pcm: bytes, words: asyncio.Task[str] | None) -> None:
        try:
            async with self._turns:
                rate_hz = self._hearing.rate_hz
                text = (await (words or self._transcriber.transcribe(pcm, rate_hz))).strip()
        except ProviderFailed as failure:
            self._told.fail(failure)
            return
        if text:
            self._told.put(Transcribed(Line("caller", text)))
            self._memory.add(Message("user", text))
            self._answer_soon()

    # -- what the model says

    def _answer_soon(self) -> None:
        """Answer all that was said so far: at once, or behind the answer that can be heard already."""
        if self._answering is not None and self._speaks:
            self._again = True
            return
        self._answer(self._think())

    def _answer(self, work: Coroutine[Any, Any, None]) -> None:
        if self._answering is not None:
            self._answering.cancel()  # nothing of it was heard: it did not know yet what was said last
        self._speaks = False
        self._answering = task = self._own(work, "answer")
        task.add_done_callback(self._answered)

    def _answered(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._told.fail(_failure(error))
        if task is not self._answering:
            return
        self._answering = None
        if self._again and not self._told.over:
            self._again = False
            self._answer_soon()

    async def _say(self, text: str) -> None:
        """Say exactly this."""
        item_id, item = self._begin()
        try:
            await self._speak(item_id, item, text)
        finally:
            self._told.put(SpokeLast(item_id))

    async def _think(self) -> None:
        """Answer; while the model wants tools, run them and go on."""
        for _ in range(MOST_ROUNDS):
            item_id, item = self._begin()
            wants = await self._one_round(item_id, item)
            if not wants:
                return
            self._memory.wants(item_id, wants)
            self._speaks = True
            try:
                await self._run(wants)
            finally:
                self._asked.clear()

    async def _one_round(self, item_id: str, item: Answer) -> tuple[Want, ...]:
        """Write and speak at the same time. Returns the tools that are wanted."""
        sentences: asyncio.Queue[str | None] = asyncio.Queue(MOST_AHEAD)
        wants: list[Want] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(sentences, wants))
                tasks.create_task(self._speak_all(item_id, item, sentences))
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            if item.sentences:
                self._told.put(SpokeLast(item_id))
        return tuple(wants)

    async def _write(self, sentences: asyncio.Queue[str | None], wants: list[Want]) -> None:
        cutter = SentenceCutter()
        async with aclosing(self._thinker.think(self._memory.messages(), self._opening.tools)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                if isinstance(piece, Want):
                    wants.append(piece)
                    continue
                for sentence in cutter.add(piece):
                    await sentences.put(sentence)
        for sentence in cutter.rest():
            await sentences.put(sentence)
        await sentences.put(None)

    async def _speak_all(self, item_id: str, item: Answer, sentences: asyncio.Queue[str | None]) -> None:
        while (sentence := await sentences.get()) is not None:
            if sum(ms for _, ms in item.sentences) < LONGEST_ANSWER_S * 1000:
                await self._speak(item_id, item, sentence)

    async def _speak(self, item_id: str, item: Answer, text: str) -> None:
        spoken_bytes, said = 0, False
        item.sentences.append((text, 0))
        async with aclosing(self._speaker.speak(text)) as pieces:  # type: ignore[type-var]
            async for pcm in pieces:
                if not said:
                    said = self._speaks = True
                    self._told.put(Transcribed(Line("agent", text), item_id))
                    self._memory.said(item_id, " ".join(sentence for sentence, _ in item.sentences))
                spoken_bytes += len(pcm)
                item.sentences[-1] = (text, spoken_bytes * 1000 // (2 * self.speaks_hz))
                self._told.put(Spoke(item_id, pcm))

    async def _run(self, wants: tuple[Want, ...]) -> None:
        """Have the tools run, and remember what they brought, in the order they were wanted."""
        loop = asyncio.get_running_loop()
        for want in wants:
            self._asked[want.ask_id] = loop.create_future()
        for want in wants:
            self._told.put(ToolAsked(want.ask_id, want.name, want.arguments))
        for want in wants:
            self._memory.outcome(want.ask_id, await self._asked[want.ask_id])

    # -- inside

    def _begin(self) -> tuple[str, Answer]:
        self._numbers += 1
        item_id = f"a{self._numbers}"
        item = self._items[item_id] = Answer()
        if len(self._items) > MOST_ITEMS:
            del self._items[next(iter(self._items))]
        return item_id, item

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._own(work, "hear out")
        self._hearings.add(task)
        task.add_done_callback(self._heard_out)

    def _own(self, work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work, name=f"cascade: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _heard_out(self, task: "asyncio.Task[None]") -> None:
        self._hearings.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._told.fail(_failure(error))


def _retrieve(task: "asyncio.Task[str]") -> None:
    if not task.cancelled():
        task.exception()


def _failure(error: BaseException) -> ProviderFailed:
    """Any error as a provider's: a part that was plugged in may raise what it likes."""
    if isinstance(error, ProviderFailed):
        return error
    return ProviderFailed("protocol", f"{type(error).__name__}: {error}")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong, of all that did: the provider's own failure before anything else."""
    matching = group.split(ProviderFailed)[0] or group
    error: BaseException = matching
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
