"""One caller's conversation with the receptionist: what is asked, what an answer means, when to give up asking."""

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dueto.agents import sentences as words
from dueto.agents.sentences import Sentences
from dueto.agents.speech.vocabulary import GOODBYE, HELLO, NO, THANKS, YES, spoken
from dueto.call.events import (
    CallEvent,
    Dtmf,
    Held,
    HungUp,
    MediaLost,
    MediaResumed,
    Resumed,
    Speech,
    SpeechStarted,
    Unbridged,
)
from dueto.call.ports import Destination, TransferResult
from dueto.errors import CallEnded, CommandRefused, Interrupted, NotCapable, ReplyTimeout

if TYPE_CHECKING:
    from dueto.call.call import Call

MOST_MISSES: Final = 2
"Answers not understood before the keys are offered; one more, and a person takes the call."
MOST_SILENCES: Final = 2
MOST_FAILURES: Final = 3
"Transfers that nobody took before the receptionist says goodbye."
LONGEST_SPEECH_S: Final = 14.0
"From SpeechStarted to its Speech: 8 s of speech at most, the pause, and a queue before the recogniser."


@dataclass(frozen=True, slots=True)
class Temper:
    """How sure and how patient the receptionist is."""

    threshold: float
    objection_s: float
    patience_s: float


@dataclass(frozen=True, slots=True)
class _Silence:
    """Nothing came in time."""


_Answer = Speech | Dtmf | _Silence


class Conversation:
    """Runs once. One task reads the call's events; nothing here outlives `aclose`."""

    def __init__(self, call: "Call", sentences: Sentences, temper: Temper, *, listens: bool = True) -> None:
        self._call = call
        self._sentences = sentences
        self._temper = temper
        self._listens = listens
        self._events = call.events()
        self._next: asyncio.Future[CallEvent] | None = None
        self._phrases = {phrase: one for one in sentences.destinations for phrase in spoken(one)}
        self._digits = {one.digit: one for one in sentences.destinations if one.digit}

    async def run(self) -> None:
        """Greet, and serve the caller until there is nothing more to do. Raises: CallEnded: the caller hung up."""
        prompt = f"{self._sentences.greeting} {words.WHICH}"
        failures = 0
        while (destination := await self._chosen(prompt)) is not None:
            try:
                result = await self._transferred(destination)
            except (NotCapable, CommandRefused):
                await self._say(words.CANNOT_CONNECT)
                break
            if result.ok:
                prompt = words.ELSE
            elif result.outcome == "caller_gone":
                return
            else:
                failures += 1
                await self._say(self._sentences.not_free(destination))
                if failures >= MOST_FAILURES:
                    break
                prompt = words.WHICH
        await self._say(words.GOODBYE)
        await self._call.hangup()

    async def aclose(self) -> None:
        """Stop reading events."""
        if self._next is not None:
            await _end(self._next)
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()

    async def _chosen(self, prompt: str) -> Destination | None:
        """Ask until a destination is chosen and not objected to. None: the caller is done, or silent for too long."""
        misses = silences = 0
        if not self._listens:
            prompt, misses = f"{prompt} {self._sentences.digits}", MOST_MISSES
        while True:
            answer = await self._ask(prompt)
            chosen: Destination | None = None
            match answer:
                case _Silence():
                    silences += 1
                    if silences >= MOST_SILENCES:
                        return None
                    prompt = f"{words.SILENCE} {self._question(misses)}"
                    continue
                case Dtmf(digit):
                    chosen = self._digits.get(digit)
                    if chosen is not None:
                        await self._say(self._sentences.announce(chosen))
                        return chosen
                case Speech():
                    meaning = self._meaning(answer)
                    if meaning == GOODBYE:
                        return None
                    if meaning == NO and prompt.startswith(words.ELSE):
                        return None
                    if meaning in (HELLO, YES, THANKS) and misses < MOST_MISSES:
                        misses += 1
                        prompt = words.WHICH
                        continue
                    chosen = self._phrases.get(meaning)
            if chosen is not None:
                confirmed = await self._confirmed(chosen)
                if confirmed is not None:
                    return confirmed
                misses += 1
                if misses <= MOST_MISSES:
                    prompt = f"{words.ALL_RIGHT} {words.WHICH}"
                    continue
            else:
                misses += 1
            if misses > MOST_MISSES + 1 or (misses > MOST_MISSES and not self._sentences.digits):
                await self._say(words.PERSON)
                return self._person()
            wrong = words.WRONG_KEY if isinstance(answer, Dtmf) else words.AGAIN
            prompt = f"{wrong} {self._question(misses)}"

    def _question(self, misses: int) -> str:
        """The question, or after too many answers that were not understood, the keys."""
        return self._sentences.digits if misses > MOST_MISSES and self._sentences.digits else words.WHICH

    async def _confirmed(self, chosen: Destination) -> Destination | None:
        """Announce `chosen` and leave time to object. Returns where to go: `chosen`, or what the caller said instead.

        None: the caller objected, or said something that was not understood; asking again costs less than a wrong call.
        """
        while True:
            answer = await self._ask(self._sentences.announce(chosen), patience_s=self._temper.objection_s)
            match answer:
                case _Silence():
                    return chosen
                case Dtmf(digit):
                    other = self._digits.get(digit)
                    if other is not None and other is not chosen:
                        await self._say(self._sentences.announce(other))
                    return other
                case Speech():
                    meaning = self._meaning(answer)
                    other = self._phrases.get(meaning)
                    if meaning in (YES, THANKS) or other is chosen:
                        return chosen
                    if other is None:
                        return None
                    chosen = other

    def _meaning(self, speech: Speech) -> str:
        return speech.text if speech.confidence >= self._temper.threshold else ""

    def _person(self) -> Destination:
        everyone = self._sentences.destinations
        return next((one for one in everyone if one.name == "operator"), everyone[0])

    async def _ask(self, prompt: str, *, patience_s: float | None = None) -> _Answer:
        """Say `prompt` and return the caller's answer; speech or a key while it is being said cuts it off.

        Raises: CallEnded: the caller hung up.
        """
        saying = asyncio.create_task(self._say(prompt), name=f"{self._call.unique_id} saying")
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        speaks = False
        try:
            while True:
                if deadline is None and saying.done():
                    if not saying.cancelled():
                        saying.result()
                    patience_s = self._temper.patience_s if patience_s is None else patience_s
                    deadline = loop.time() + (LONGEST_SPEECH_S if speaks else patience_s)
                upcoming = self._upcoming()
                waiting: set[asyncio.Future[Any]] = {upcoming} if saying.done() else {upcoming, saying}
                left = None if deadline is None or deadline == math.inf else max(deadline - loop.time(), 0.0)
                done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    return _Silence()
                if upcoming not in done:
                    continue
                match await self._event():
                    case Held() | MediaLost():
                        deadline = math.inf  # who can't be heard is not silent
                    case Resumed() | MediaResumed():
                        deadline = None
                    case SpeechStarted():
                        speaks = True
                        deadline = loop.time() + LONGEST_SPEECH_S
                        await self._hush(saying, "speech")
                    case (Speech() | Dtmf()) as answer:
                        await self._hush(saying, "digit" if isinstance(answer, Dtmf) else "speech")
                        return answer
        finally:
            await _end(saying)

    async def _hush(self, saying: "asyncio.Task[None]", by: str) -> None:
        """Cut off what is being said, also where it only waits for its synthesiser."""
        await self._call.stop(by=by)
        await asyncio.sleep(0)  # so that it ends by itself and its caller learns how much was heard
        saying.cancel()

    async def _say(self, text: str) -> None:
        """Say `text`; returns when it was heard or cut off."""
        with suppress(Interrupted):
            await self._call.say(text)

    async def _transferred(self, destination: Destination) -> TransferResult:
        """Connect the caller; returns when nobody took the call, or when whoever did has left again.

        What the caller says or presses meanwhile was not said to us: it is forgotten. Raises: CallEnded: the hangup.
        """
        transfer = asyncio.create_task(
            self._call.transfer(destination.name, announce=self._sentences.for_you(destination)),
            name=f"{self._call.unique_id} transfer to {destination.name}",
        )
        left = False
        try:
            while not transfer.done():
                upcoming = self._upcoming()
                waiting: set[asyncio.Future[Any]] = {upcoming, transfer}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if upcoming.done() and not transfer.done():
                    left = isinstance(await self._event(), Unbridged)
            result = transfer.result()
        except ReplyTimeout:
            return TransferResult("failed")
        finally:
            await _end(transfer)
        while result.ok and not left:
            left = isinstance(await self._event(), Unbridged)
        return result

    def _upcoming(self) -> "asyncio.Future[CallEvent]":
        """The next event, which stays the next until `_event` has taken it: a wait that ends loses nothing."""
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._events))
        return self._next

    async def _event(self) -> CallEvent:
        """Take the next event. Raises: CallEnded: it is the hangup, or there is none any more."""
        upcoming = self._upcoming()
        try:
            event = await asyncio.shield(upcoming)
        except StopAsyncIteration:
            raise CallEnded("the call is over") from None
        self._next = None
        if isinstance(event, HungUp):
            raise CallEnded("the caller hung up")
        return event


async def _end(future: "asyncio.Future[Any]") -> None:
    """Cancel, and return when it is over; what it failed with was told elsewhere, or nobody waits for it any more."""
    future.cancel()
    await asyncio.wait({future})
    if not future.cancelled():
        future.exception()
