"""Who calls in the demo, what they do, and what should become of it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dueto.app.demo.story import Outcome
from dueto.call import Destination
from dueto.errors import SettingsError
from dueto.sim import Endpoint, Line

CALLERS = Path(__file__).parent.parent / "demo_callers"
LINES = Path(__file__).parent / "lines"
PAUSE_MS = 700
"A silence this long: the other one has finished."

DESTINATIONS = (
    Destination("sales", "user/1001", ("sales", "sales department"), "1"),
    Destination("support", "user/1002", ("support", "technical support"), "2"),
    Destination("billing", "user/1003", ("billing", "accounting"), "3"),
)


def telephones(busy: Collection[str] = (), announced: Collection[str] = ()) -> dict[str, Endpoint]:
    """Return who can be called, and what they do: answer and speak, be busy, or take an announced call and speak."""
    return {
        destination.dial: Endpoint("busy")
        if destination.name in busy
        else Endpoint(answer_after_s=0.4, script=_takes(destination.name))
        if destination.name in announced
        else Endpoint(answer_after_s=0.4, says=LINES / f"{destination.name}.wav")
        for destination in DESTINATIONS
    }


def _takes(name: str) -> Callable[[Line], Awaitable[None]]:
    """Somebody who hears the announcement out, presses 1, and speaks once connected."""

    async def script(line: Line) -> None:
        await line.hears_speech()
        await line.hears_silence(PAUSE_MS)
        await line.press("1")
        await line.bridged()
        await line.say(LINES / f"{name}.wav")
        await line.until_hangup()

    return script


@dataclass(frozen=True, slots=True)
class Recording:
    """Something a caller says: a WAV, and its words for the reader's sake. Nobody decides anything by the words."""

    file: Path
    words: str


class Actor:
    """A caller on the telephone, as its role sees it."""

    def __init__(self, line: Line, note: Callable[..., None], patience_s: float) -> None:
        self.line = line
        self._note = note
        self._patience_s = patience_s

    async def say(self, recording: Recording) -> None:
        """Say it to the end. Raises: NoSuchSound: the recording is missing."""
        self._note("says", words=recording.words)
        await self.line.say(recording.file)
        self._note("said")

    async def begin_to_say(self, recording: Recording, seconds: float) -> None:
        """Say it for so long, and no longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.say(recording)

    async def hears_speech(self) -> None:
        """Wait until the other side speaks. Raises: NotHeard."""
        await self.line.hears_speech(self._patience_s)

    async def hears_out(self) -> None:
        """Wait until the other side speaks, and has finished. Raises: NotHeard."""
        await self.hears_speech()
        await self.line.hears_silence(PAUSE_MS, self._patience_s)

    async def talks_with_whoever_answers(self) -> None:
        """Wait until connected, and hear what is said. Raises: NotHeard: nobody answered."""
        await self.line.bridged(self._patience_s)
        await self.hears_out()


Lines = Mapping[str, Recording]
Script = Callable[[Actor, Lines], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Role:
    """One call of the demo."""

    key: str
    title: str
    about: str
    number: str
    name: str
    script: Script
    expected: Outcome
    dialect: Literal["audio_stream", "audio_stream-binary", "unicast"] = "audio_stream-binary"
    busy: frozenset[str] = frozenset()
    "Destinations whose telephone is busy."
    announced: frozenset[str] = frozenset()
    "Destinations that are told who is coming, and press 1."
    agent: str = ""
    "The kind of agent that answers this call; empty: the one that the demo is run with."
    patience_s: float = 20.0
    "How long the caller waits for an answer of any kind before hanging up."


async def _asks_for_a_department(actor: Actor, lines: Lines) -> None:
    await actor.hears_out()
    await actor.say(lines["sales"])
    await actor.talks_with_whoever_answers()


async def _speaks_then_presses(actor: Actor, lines: Lines) -> None:
    await actor.hears_out()
    await actor.say(lines["hello"])
    await actor.hears_speech()
    await actor.line.press("2")
    await actor.talks_with_whoever_answers()


async def _asks_for_something_else(actor: Actor, lines: Lines) -> None:
    await actor.hears_out()
    await actor.say(lines["pizza"])
    await actor.hears_out()
    await actor.say(lines["billing"])
    await actor.talks_with_whoever_answers()


async def _asks_for_another_department(actor: Actor, lines: Lines) -> None:
    await actor.hears_out()
    await actor.say(lines["sales"])
    await actor.hears_out()  # "one moment"
    await actor.hears_out()  # "sales is not free"
    await actor.say(lines["billing"])
    await actor.talks_with_whoever_answers()


async def _asks_for_billing(actor: Actor, lines: Lines) -> None:
    await actor.hears_out()
    await actor.say(lines["billing"])
    await actor.talks_with_whoever_answers()


async def _speaks_into_the_greeting(actor: Actor, lines: Lines) -> None:
    await actor.hears_speech()
    await actor.line.wait(0.8)
    await actor.say(lines["sales"])
    await actor.talks_with_whoever_answers()


async def _interrupts_the_model(actor: Actor, lines: Lines) -> None:
    await actor.hears_out()
    await actor.say(lines["hello"])
    await actor.hears_speech()
    await actor.line.wait(1.0)
    await actor.say(lines["sales"])
    await actor.talks_with_whoever_answers()


async def _hangs_up(actor: Actor, lines: Lines) -> None:
    await actor.hears_out()
    await actor.begin_to_say(lines["story"], 1.6)


RECEPTIONIST_ROLES = (
    Role(
        "1-sales",
        "Asks for a department",
        "The caller says a department's name; speech recognition understands it, the call is transferred.",
        "5551001",
        "Alice",
        _asks_for_a_department,
        Outcome(chosen_by="speech", transferred_to="sales"),
    ),
    Role(
        "2-digit",
        "Says something, then presses a key",
        "What the caller says names no department; the digit does, and cuts the agent short.",
        "5551002",
        "Bob",
        _speaks_then_presses,
        Outcome(asked_again=True, chosen_by="key", transferred_to="support", digits="2"),
    ),
    Role(
        "3-again",
        "Asks for something else first",
        "On the community build, whose switch plays files: the first wish is no department, so the agent asks again.",
        "5551003",
        "Carol",
        _asks_for_something_else,
        Outcome(asked_again=True, chosen_by="speech", transferred_to="billing"),
        dialect="audio_stream",
    ),
    Role(
        "4-hangup",
        "Hangs up in mid-sentence",
        "Whoever ends a call, and when: the other leg and the agent learn of it at once.",
        "5551004",
        "Dave",
        _hangs_up,
        Outcome(),
    ),
    Role(
        "5-busy",
        "Asks for somebody who is busy",
        "The transfer meets busy: the caller is the agent's again, which says so and asks on.",
        "5551005",
        "Erin",
        _asks_for_another_department,
        Outcome(asked_again=True, chosen_by="speech", transferred_to="billing", refused_by="sales"),
        busy=frozenset({"sales"}),
    ),
    Role(
        "6-announced",
        "Is announced before being connected",
        "The caller hears ringing while the other side hears who is coming, and takes the call by pressing 1.",
        "5551006",
        "Frank",
        _asks_for_billing,
        Outcome(chosen_by="speech", transferred_to="billing", announced=True),
        announced=frozenset({"billing"}),
    ),
    Role(
        "7-unicast",
        "Interrupts, on a switch without any audio module",
        "A stock FreeSWITCH, audio over UDP. The caller speaks into the greeting: the agent falls silent, and listens.",
        "5551007",
        "Grace",
        _speaks_into_the_greeting,
        Outcome(chosen_by="speech", transferred_to="sales"),
        dialect="unicast",
    ),
    Role(
        "8-cascade",
        "Interrupts a model",
        "Speech to text, a mind of text, text to speech. Of its own sentence it remembers what the caller heard.",
        "5551008",
        "Heidi",
        _interrupts_the_model,
        Outcome(asked_again=True, chosen_by="speech", transferred_to="sales"),
        agent="cascade",
    ),
)


async def _hears_itself(actor: Actor, lines: Lines) -> None:
    await actor.say(lines["sales"])
    await actor.line.hears_silence(PAUSE_MS)


async def _hears_itself_and_presses(actor: Actor, lines: Lines) -> None:
    await actor.say(lines["hello"])
    await actor.line.press("2")
    await actor.line.hears_silence(PAUSE_MS)


async def _hears_itself_late(actor: Actor, lines: Lines) -> None:
    await actor.say(lines["pizza"])
    await actor.line.hears_silence(2 * PAUSE_MS)


async def _hangs_up_on_itself(actor: Actor, lines: Lines) -> None:
    await actor.begin_to_say(lines["story"], 1.6)


ECHO_ROLES = (
    Role(
        "1-echo",
        "Hears itself",
        "Every frame comes back in the same turn of the gateway's loop.",
        "5551001",
        "Alice",
        _hears_itself,
        Outcome(heard_itself=True),
    ),
    Role(
        "2-digit",
        "Speaks, then presses a key",
        "The voice comes back over the media leg, the digit arrives over the control leg.",
        "5551002",
        "Bob",
        _hears_itself_and_presses,
        Outcome(heard_itself=True, digits="2"),
    ),
    Role(
        "3-files",
        "Hears itself, later",
        "On the community build, whose switch plays files: live audio comes back in short pieces.",
        "5551003",
        "Carol",
        _hears_itself_late,
        Outcome(heard_itself=True),
        dialect="audio_stream",
    ),
    Role(
        "4-hangup",
        "Hangs up in mid-sentence",
        "Whoever ends a call, and when: the other leg and the agent learn of it at once.",
        "5551004",
        "Dave",
        _hangs_up_on_itself,
        Outcome(heard_itself=True),
    ),
)


def recorded_lines() -> dict[str, Recording]:
    """Return what the callers say.

    Raises: SettingsError: a recording is missing from the installation.
    """
    lines = {
        "sales": Recording(CALLERS / "sales.wav", "Sales, please."),
        "billing": Recording(CALLERS / "billing.wav", "Billing, please."),
        "hello": Recording(CALLERS / "hello.wav", "Hello, good morning."),
        "pizza": Recording(CALLERS / "pizza.wav", "I would like to order a pizza with mushrooms."),
        "story": Recording(
            CALLERS / "story.wav", "Well, you see, I bought a lawn mower from you last spring, and my neighbour ..."
        ),
    }
    for file in (*(recording.file for recording in lines.values()), *(LINES / f"{d.name}.wav" for d in DESTINATIONS)):
        if not file.is_file():
            raise SettingsError(f"{file} is missing: install dueto again (pip install --force-reinstall dueto)")
    return lines
