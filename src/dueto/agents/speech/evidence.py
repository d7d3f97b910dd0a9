"""What speaks for and against a recognised phrase: numbers drawn from three looks at one utterance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dueto.agents.speech.phones import likeness

SILENCE: Final = "SIL"
"What any-phones calls it."
_END_SLACK: Final = 3
"Frames by which two looks may disagree about where a phone begins or ends."
_SHORTEST: Final = 3
"Frames of the shortest phone that the model can see: one for each of its three states."
_STRETCH: Final = 25


@dataclass(frozen=True, slots=True)
class Span:
    """A word or a phone in the utterance. Frames are of 10 ms."""

    name: str
    start: int
    end: int
    "The first frame after it."
    score: float
    "How well the sound fits, summed over its frames, against the best sound of each frame: 0 is perfect."

    @property
    def frames(self) -> int:
        """How long it is."""
        return self.end - self.start

    @property
    def fit(self) -> float:
        """The score of an average frame."""
        return self.score / max(self.frames, 1)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The numbers `judge` weighs. Fits are scores of an average frame: higher is better, 0 is perfect."""

    keyword_fit: float
    "Of the words that decide."
    worst_word: float
    "Of the worst word of the whole phrase."
    worst_margin: float
    "The phrase's fit, less that of the best sequence of any phones, where it is worst for a quarter of a second."
    alike: float
    "How like the keyword's phones are to those that any-phones heard there: 1.0 the same."
    squeezed: float
    "The part of the phrase's phones that are as short as the model allows: a phrase forced into too little sound."
    phones: float
    "ln of the number of phones in the keyword: a longer word is harder to mistake."


def weigh(words: Sequence[Span], phones: Sequence[Span], free: Sequence[Span], first: int, last: int) -> Evidence:
    """Return the evidence for the keyword `words[first..last]`.

    `words` come from the grammar and `phones` from their alignment, both without silence; `free` from any-phones.
    """
    start, end = words[0].start, words[-1].end
    key = Span("", words[first].start, words[last].end, sum(word.score for word in words[first : last + 1]))
    key_phones = _within(phones, key) or list(phones)
    return Evidence(
        keyword_fit=key.fit,
        worst_word=min(word.fit for word in words),
        worst_margin=_worst_stretch(_per_frame(words, end)[start:], _per_frame(free, end)[start:]),
        alike=likeness([phone.name for phone in key_phones], [phone.name for phone in _within(free, key)]),
        squeezed=sum(phone.frames <= _SHORTEST for phone in phones) / len(phones),
        phones=math.log(len(key_phones)),
    )


def _within(spans: Sequence[Span], whole: Span) -> list[Span]:
    """Return the sounds whose middle lies within `whole`."""
    first, last = 2 * (whole.start - _END_SLACK), 2 * (whole.end + _END_SLACK)
    return [span for span in spans if first <= span.start + span.end <= last and span.name != SILENCE]


def _per_frame(spans: Sequence[Span], end: int) -> list[float]:
    """Return the score of each frame up to `end`; within a span it is spread evenly."""
    scores = [0.0] * end
    for span in spans:
        for frame in range(max(span.start, 0), min(span.end, end)):
            scores[frame] = span.fit
    return scores


def _worst_stretch(said: Sequence[float], free: Sequence[float]) -> float:
    """Return the lowest mean difference of any `_STRETCH` frames on end."""
    differences = [one - other for one, other in zip(said, free, strict=True)]
    size = max(min(_STRETCH, len(differences)), 1)
    total = worst = sum(differences[:size])
    for at in range(size, len(differences)):
        total += differences[at] - differences[at - size]
        worst = min(worst, total)
    return worst / size
