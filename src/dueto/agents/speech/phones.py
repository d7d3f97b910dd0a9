"""The phones of American English as the model names them: which sound alike."""

from collections.abc import Sequence
from typing import Final

_KINDS: Final = (
    "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW",
    "P B T D K G",
    "F V TH DH S Z SH ZH HH CH JH",
    "M N NG",
    "L R W Y",
)
_KIND: Final = {phone: kind for kind, phones in enumerate(_KINDS) for phone in phones.split()}
_GAP: Final = 0.8
_SAME_KIND: Final = 0.5


def likeness(wanted: Sequence[str], heard: Sequence[str]) -> float:
    """Return how well `wanted` is found somewhere within `heard`: 1.0 as it is, 0.0 not a phone of it.

    An edit distance in which a phone of the same kind costs half, and what comes before and after is free.
    """
    if not wanted:
        return 0.0
    costs = [0.0] * (len(heard) + 1)
    for row, phone in enumerate(wanted, start=1):
        line = [row * _GAP]
        for column, other in enumerate(heard):
            line.append(min(costs[column] + _distance(phone, other), costs[column + 1] + _GAP, line[column] + _GAP))
        costs = line
    return max(1.0 - min(costs) / len(wanted), 0.0)


def _distance(one: str, other: str) -> float:
    if one == other:
        return 0.0
    return _SAME_KIND if _KIND.get(one) == _KIND.get(other) else 1.0
