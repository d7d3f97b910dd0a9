"""The three parts of a cascade. Shared by all calls of an agent; what belongs to one call is passed in."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from dueto.agents.ports import ToolSpec


@dataclass(frozen=True, slots=True)
class Want:
    """The model wants a tool run."""

    ask_id: str
    name: str
    arguments: str
    "JSON, as the model wrote it: unchecked."


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a conversation, as a chat model reads it."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    wants: tuple[Want, ...] = ()
    "An assistant's: the tools it wanted, whose outcomes follow."
    ask_id: str = ""
    "A tool's: which want it answers."


class Transcriber(Protocol):
    """Speech to text, an utterance at a time."""

    async def transcribe(self, pcm: bytes, rate_hz: int) -> str:
        """Return what was said in `pcm` (L16 mono, one utterance); empty: nothing that it understood. Safe to cancel.

        Raises: ProviderFailed, within a deadline of its own.
        """
        ...


class Thinker(Protocol):
    """A model that reads a conversation and writes what the agent says next."""

    def think(self, conversation: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncIterator[str | Want]:
        """Yield pieces of the answer as they come, and the tools it wants. Closing the iterator breaks it off.

        Raises: ProviderFailed, within a deadline of its own between two pieces.
        """
        ...


class Speaker(Protocol):
    """Text to speech, a sentence at a time."""

    @property
    def rate_hz(self) -> int:
        """The rate of what it speaks."""
        ...

    def speak(self, text: str) -> AsyncIterator[bytes]:
        """Yield `text` spoken, as it comes: L16 mono at `rate_hz`. Closing the iterator breaks it off.

        Raises: ProviderFailed, within a deadline of its own between two pieces.
        """
        ...
