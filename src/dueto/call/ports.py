"""The agent's side of a call: what an agent is, and what it may plug in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

from dueto.call.events import Speech, SpeechStarted

if TYPE_CHECKING:
    from dueto.call.call import Call

Agent = Callable[["Call"], Awaitable[None]]
"All a call runs: it begins when the call can talk, and the call is over (or leaves) when it returns."


class Forewarned(Protocol):
    """An agent that can get ready for a call whose control leg is here, while its stream is still on the way."""

    def expect(self, call_id: str) -> None:
        """That call, by its Unique-ID, is on its way. At once: what takes time is a task of the agent's own."""
        ...

    def forget(self, call_id: str) -> bool:
        """It is over, or somebody else's, whatever came of it; told once of every call that was to be expected.

        Returns whether something was made ready for it and not used.
        """
        ...


def forewarned(anything: object) -> Forewarned | None:
    """Return an agent, or what it works with, as one that can get ready; None: it can't."""
    able = hasattr(anything, "expect") and hasattr(anything, "forget")  # isinstance would cost a call several us
    return cast(Forewarned, anything) if able else None


class Mouth(Protocol):
    """Turns text into speech for `call.say(text)`."""

    async def speak(self, text: str, rate_hz: int) -> bytes:
        """Return `text` spoken: L16, little-endian, mono, at `rate_hz`. Safe to cancel.

        Raises: NotCapable: there is no synthesiser and no recording of this text; the message says what to install.
        """
        ...


class Ear(Protocol):
    """Listens to one caller and tells what was said. `call.listen(ear)` feeds it and closes it at the end."""

    rate_hz: int
    "The rate of the frames it wants; the call resamples where that differs from its own."

    def attach(self, emit: Callable[[Speech | SpeechStarted], None]) -> None:
        """Say where the ear's events go. Called once, on the loop, before the first frame."""
        ...

    def hear(self, frame: bytes) -> None:
        """Take 20 ms of L16 mono at `rate_hz`. On the loop's thread: at most 1 ms, never blocks."""
        ...

    async def aclose(self) -> None:
        """Give back what it borrowed; nothing is emitted afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class Destination:
    """A name one can be transferred to: `[destinations.NAME]`."""

    name: str
    dial: str
    "A dial string, `user/1001`; from the configuration, never from outside."
    words: tuple[str, ...] = ()
    "What a caller may say for it; the name itself where none are given."
    digit: str = ""
    "The key that chooses it; empty: none."
    when: str = ""
    "When somebody is there, `mon-fri 09:00-18:00`, by this machine's clock; empty: always."
    fallback: str = ""
    "The destination that takes its calls outside of these hours; empty: none."
    mode: "Mode" = "blind"
    "How one is transferred to it, where the agent does not say."
    after: Literal["agent", "hangup"] = "agent"
    "What becomes of the caller when the other side hangs up: he is the agent's again, or is hung up."
    via: Literal["bridge", "transfer", "refer"] = "bridge"
    """How a blind transfer goes: `bridge` keeps the caller until the other side answers; `transfer` (`dial` is
    `EXTENSION [DIALPLAN [CONTEXT]]`) hands him over and knows no more, `refer` (`dial` is a SIP URI) what his
    telephone tells."""


Outcome = Literal[
    "bridged",
    "let_go",
    "busy",
    "no_answer",
    "rejected",
    "declined",
    "unreachable",
    "cancelled",
    "caller_gone",
    "failed",
]
"""What became of a transfer. `declined`: the other side answered, heard the announcement and did not take the call;
`let_go`: the switch was handed the caller, and nobody tells us more."""

Mode = Literal["blind", "announced", "attended"]
"How a transfer goes: the other side is just called, is spoken to first, or all three talk before the agent leaves."

Announce = Callable[["Call"], Awaitable[bool | None]]
"Speaks to the other side on its own `Call`: True connects it, False does not, None leaves it to `Accept`."


@dataclass(frozen=True, slots=True)
class Accept:
    """How the other side of an announced transfer takes the call, or declines it."""

    digit: str = "1"
    "The key that takes it; empty: none."
    decline_digit: str = "2"
    "The key that declines it; empty: none."
    words: tuple[str, ...] = ()
    "Words that take it, if `ear` is there to understand them."
    decline_words: tuple[str, ...] = ()
    ear: Callable[[], "Ear"] | None = None
    silence: Literal["accept", "decline"] = "decline"
    "What saying and pressing nothing means, `within_s` after the announcement was heard."
    within_s: float = 10.0
    prompt: str = "Press 1 to take the call."
    "Said after the announcement; empty: nothing."


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What became of a transfer, from the completion of this attempt."""

    outcome: Outcome
    hangup_cause: str = ""
    "Of this attempt, in the switch's words: `SUCCESS`, `USER_BUSY`, `NO_ANSWER`, ..."
    sip_code: int | None = None
    "The SIP status the other side refused with, where the switch told it."
    b_leg: str = ""
    "The other channel's `Unique-ID`, where there was one."

    @property
    def ok(self) -> bool:
        """Whether the caller is in other hands."""
        return self.outcome in ("bridged", "let_go")
