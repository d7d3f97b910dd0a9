"""What was said in a call, as text, for whoever goes on with it: another agent, another session of a provider."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

MOST_LINES: Final = 400
LONGEST_LINE_CHARS: Final = 4000
_DIGITS = re.compile(r"\d(?:[ .-]?\d){3,}")
"Card numbers, PINs: said, understood, and nobody else's business."


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a conversation, as both sides heard it."""

    who: Literal["caller", "agent"]
    text: str


class Transcript:
    """The lines of one call, in order; of a conversation without end the oldest are forgotten.

    Only agents that understand, or know what they say, write into it; others leave it empty.
    """

    def __init__(self, note: Callable[..., None]) -> None:
        self._lines: list[Line] = []
        self._note = note

    def add(self, who: Literal["caller", "agent"], text: str, **facts: object) -> None:
        """Write a line, and note it as `transcript` together with `facts` (`heard_ms`, `interrupted`, ...).

        The note masks runs of four digits and more; who takes the call over gets them.
        """
        text = text.strip()[:LONGEST_LINE_CHARS]
        if text:
            self._lines.append(Line(who, text))
            del self._lines[:-MOST_LINES]
            self._note("transcript", who=who, text=_DIGITS.sub(lambda found: "*" * len(found[0]), text), **facts)

    def release(self) -> None:
        """The call is over: what is written from now on is noted nowhere."""
        self._note = _unnoted

    def __iter__(self) -> Iterator[Line]:
        return iter(tuple(self._lines))

    def __len__(self) -> int:
        return len(self._lines)


def _unnoted(event: str, **facts: object) -> None:
    pass
