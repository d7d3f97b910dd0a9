"""The clock of a conversation: nobody is kept in silence, nobody is waited for without end, and no call is endless.

It knows only whose turn it is, and since when; what follows is said by the model itself, in its own voice.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from dueto.errors import ProviderFailed

GOODBYE_S: Final = 15.0
"How long a model may take for its last words."
FINISH_S: Final = 10.0
"How long it may go on with a sentence when the time is up."
OWED_S: Final = 30.0
"A model that has not answered after this does not mean to: it is the caller's turn again."
MUST_S: Final = 15.0
"A model that was asked to speak, and has said nothing after this, is out of order."
WAITS: Final = "The caller has spoken and is waiting for your answer."
CLOCK_S: Final = 1e-6
"What a timer may be early."
FILLS: Final = 3
"How often one silence is filled with a sentence."


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may last, in seconds; 0: for ever. The sentences are said by the model, in its language."""

    dead_air_s: float = 0.0
    "Silence of the agent, when it is its turn, before it is filled."
    no_input_s: float = 0.0
    "Silence of the caller, when it is his turn, before he is asked whether he is there."
    no_input_times: int = 2
    "How often he is asked before the call is ended."
    no_input: str = "Are you still there?"
    no_input_goodbye: str = "I can't hear you, so I hang up now. Goodbye."
    max_duration_s: float = 0.0
    "Of the whole conversation; the time in which the caller talks to somebody else counts, but ends nothing."
    max_duration_warning_s: float = 60.0
    "So long before its end the caller is told; 0: he is not."
    max_duration_warning: str = "We have one minute left."
    max_duration_goodbye: str = "I am sorry, our time is up. Goodbye."


NO_PATIENCE: Final = Patience()


def in_its_words(sentence: str) -> str:
    """Return what makes a model say `sentence`, or the same in the caller's language."""
    return f"Say to the caller, in the language of this conversation: {json.dumps(sentence, ensure_ascii=False)}"


class Filling(Protocol):
    """What fills a silence."""

    def begin(self) -> bool:
        """Begin to be heard. Whether it goes on by itself; False: it is one sentence, and can be said again."""
        ...

    def end(self) -> None:
        """Be silent; again: nothing to do."""
        ...


class Watch:
    """Told of every turn by the agent; `run` does what is due, and returns when the conversation is to end."""

    def __init__(
        self,
        patience: Patience,
        filling: Filling,
        *,
        say: Callable[[str], None],
        interrupt: Callable[[], Awaitable[None]],
        hears: Callable[[], bool],
        note: Callable[..., None],
    ) -> None:
        """`say`: have the model say so. `interrupt`: cut what it says. `hears`: the caller hears us, and nobody else.
        `note`: for the log.
        """
        self._patience = patience
        self._filling = filling
        self._say = say
        self._interrupt = interrupt
        self._hears = hears
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._began = now = self._loop.time()
        self._owed: float | None = now
        "Since when the agent is to say something."
        self._quiet: float | None = None
        "Since when the caller is to say something."
        self._caller: float | None = None
        "Since when he speaks."
        self._speaking = False
        self._spoken = 0
        self._came = 0
        "How often the caller gave a sign of life."
        self._words = False
        "Whether it is known what he said, and the agent has not answered."
        self._must: float | None = None
        "When the agent is to have spoken, at the latest."
        self._tools = 0
        self._fills = 0
        self._asked = 0
        self._warned = not patience.max_duration_warning_s
        self._away = False

    # -- what happens

    def must_speak(self) -> None:
        """The agent has been told to say something: if it does not, something is wrong with it."""
        self._must = self._loop.time() + MUST_S
        self._changed.set()

    def agent_spoke(self) -> None:
        """An utterance of the agent begins."""
        self._must, self._words = None, False
        self._turn(speaking=True)
        self._spoken += 1

    def agent_silent(self) -> None:
        """All that the agent has said so far was heard, or was cut."""
        if not self._speaking:
            return
        self._speaking = False
        self._changed.set()
        if self._tools:
            self._turn(owed=self._loop.time())
        elif self._caller is None:
            self._turn(quiet=self._loop.time())

    def caller_spoke(self) -> None:
        """The caller begins to speak."""
        self._sign_of_life()
        self._turn(caller=self._loop.time(), speaking=self._speaking)

    def caller_silent(self) -> None:
        """The caller has finished: the agent owes him an answer."""
        self._sign_of_life()
        self._turn(owed=self._loop.time(), speaking=self._speaking)

    def caller_said(self) -> None:
        """What the caller said is known as text; of some providers it is the only sign that he spoke."""
        self._sign_of_life()
        self._words = not self._speaking
        if self._quiet is not None:
            self._turn(owed=self._loop.time())

    def tool_began(self) -> None:
        """The agent does something that takes its time."""
        self._tools += 1
        if not self._speaking:
            self._turn(owed=self._owed or self._loop.time())

    def tool_ended(self) -> None:
        """It is done; the agent will say what came of it."""
        self._tools -= 1
        self._changed.set()

    def away(self, away: bool) -> None:
        """The caller hears somebody else, or hold music; and is back."""
        self._away = away
        self._must = None
        quiet = None if away or self._speaking else self._loop.time()
        self._turn(quiet=quiet, speaking=self._speaking)  # what was being said goes on after a hold

    def _sign_of_life(self) -> None:
        self._must = None  # a model that hears the caller speak waits
        self._came += 1
        self._asked = 0

    def _turn(
        self,
        *,
        owed: float | None = None,
        quiet: float | None = None,
        caller: float | None = None,
        speaking: bool = False,
    ) -> None:
        if owed is None or speaking:
            self._filling.end()
            self._fills = 0
        self._owed, self._quiet, self._caller, self._speaking = None if speaking else owed, quiet, caller, speaking
        self._changed.set()

    # -- what is due

    async def run(self) -> None:
        """Watch until the conversation is to end. Safe to cancel.

        Raises: ProviderFailed: the model was told to speak, and did not.
        """
        try:
            while True:
                at, what = self._next()
                if what is not None and at <= self._loop.time() + CLOCK_S:
                    if await what():
                        return
                    continue
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(at if what is not None else None):
                        await self._changed.wait()
        finally:
            self._filling.end()

    def _next(self) -> tuple[float, Callable[[], Awaitable[bool]] | None]:
        """What comes first, as things stand now: somebody may have spoken in the very moment at which it was due."""
        return min(self._due(), key=lambda due: due[0], default=(0.0, None))

    def _due(self) -> list[tuple[float, Callable[[], Awaitable[bool]]]]:
        """What is to be done and when, as things stand."""
        if self._away:
            return []
        patience = self._patience
        due: list[tuple[float, Callable[[], Awaitable[bool]]]] = []
        if patience.max_duration_s and not self._tools:  # a transfer that is under way may succeed
            end = self._began + patience.max_duration_s
            due.append((end, self._time_is_up))
            if not self._warned and self._quiet is not None:
                due.append((end - patience.max_duration_warning_s, self._warn))
        if self._must is not None and not self._tools:
            due.append((self._must, self._mute))
        if self._owed is not None:
            due.append((self._owed + OWED_S, self._give_up))
            if patience.dead_air_s and self._fills < FILLS:
                due.append((self._owed + patience.dead_air_s * (2 * self._fills + 1), self._fill))
        if self._quiet is not None and patience.no_input_s:
            due.append((self._quiet + patience.no_input_s, self._nobody_there))
        if self._caller is not None:
            due.append((self._caller + OWED_S, self._give_up))
        return due

    async def _fill(self) -> bool:
        if not self._hears():  # he hears it ring, or hold music
            self._fills += 1
            return False
        self._note("dead_air", after_s=round(self._loop.time() - (self._owed or 0.0), 1))
        self._fills = FILLS if self._filling.begin() else self._fills + 1
        return False

    async def _give_up(self) -> bool:
        """Whoever was to speak does not."""
        if self._speaking:  # he spoke into it, was not heard, and has fallen silent
            self._turn(speaking=True)
            return False
        if self._words and not self._tools:
            self._words = False
            self._ask(WAITS)
            return False
        if not self._tools:
            self._turn(quiet=self._loop.time())
        else:
            self._turn(owed=self._loop.time())
        return False

    async def _mute(self) -> bool:
        text = f"the model was told to speak, and has said nothing for {MUST_S:g} s"
        self._note("provider_failed", fault="timeout", error=text)
        raise ProviderFailed("timeout", text)

    async def _nobody_there(self) -> bool:
        self._asked += 1
        asked = self._asked
        self._note("no_input", times=asked)
        if asked <= self._patience.no_input_times:
            self._ask(in_its_words(self._patience.no_input))
            return False
        return await self._goodbye(self._patience.no_input_goodbye, unless_he_speaks=True)

    async def _warn(self) -> bool:
        self._warned = True
        self._ask(in_its_words(self._patience.max_duration_warning))
        return False

    async def _time_is_up(self) -> bool:
        self._note("max_duration", after_s=round(self._loop.time() - self._began, 1))
        if not await self._until(lambda: self._away or not self._speaking, FINISH_S):
            await self._interrupt()
        if self._away:
            return False  # it is up again when he is back
        return await self._goodbye(self._patience.max_duration_goodbye, unless_he_speaks=False)

    async def _goodbye(self, text: str, *, unless_he_speaks: bool) -> bool:
        """Have the last words said and heard; False: the caller spoke, or left with somebody else, and it goes on."""
        spoken, came = self._spoken, self._came

        def goes_on() -> bool:
            return self._away or (unless_he_speaks and self._came > came)

        self._ask(in_its_words(text))
        await self._until(lambda: goes_on() or (self._spoken > spoken and not self._speaking), GOODBYE_S)
        return not goes_on()

    def _ask(self, text: str) -> None:
        self._say(text)
        self._turn(owed=self._loop.time())
        self.must_speak()

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for something; False: it has not come in time."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
