"""The numbers that speak for and against a phrase."""

import math

from hypothesis import given
from hypothesis import strategies as st

from dueto.agents.speech.evidence import Span, weigh
from dueto.agents.speech.judge import confidence
from dueto.agents.speech.phones import likeness

PHONES = st.lists(st.sampled_from(["S", "EY", "L", "Z", "P", "AO", "R", "T", "N"]), min_size=1, max_size=12)


@given(PHONES, PHONES, PHONES)
def test_phones_are_wholly_like_themselves_wherever_they_stand(
    before: list[str], wanted: list[str], after: list[str]
) -> None:
    assert likeness(wanted, before + wanted + after) == 1.0


@given(PHONES, PHONES)
def test_likeness_is_a_part_of_one(wanted: list[str], heard: list[str]) -> None:
    assert 0.0 <= likeness(wanted, heard) <= 1.0


def test_a_like_sound_counts_half() -> None:
    assert likeness(["S"], ["Z"]) == 0.5
    assert likeness(["S"], ["AO"]) < 0.5
    assert likeness(["S"], []) < 0.5


def _spoken(fit: float, frames: int = 9) -> list[Span]:
    names = ("S", "EY", "L", "Z")
    return [Span(name, 20 + at * frames, 20 + (at + 1) * frames, fit * frames) for at, name in enumerate(names)]


def _word(phones: list[Span]) -> Span:
    return Span("sales", phones[0].start, phones[-1].end, sum(phone.score for phone in phones))


@given(st.floats(-200.0, -31.0), st.floats(1.0, 60.0))
def test_a_better_fit_is_surer(fit: float, better: float) -> None:
    free = _spoken(-30.0)
    worse, good = _spoken(fit), _spoken(min(fit + better, -30.0))
    assert confidence(weigh([_word(worse)], worse, free, 0, 0)) <= confidence(weigh([_word(good)], good, free, 0, 0))


def test_a_phrase_that_fits_as_well_as_any_phones_is_sure_and_one_that_does_not_is_not() -> None:
    right, wrong = _spoken(-40.0), _spoken(-120.0, frames=3)
    assert confidence(weigh([_word(right)], right, right, 0, 0)) > 0.95
    other = [Span("AO", 20, 32, -400.0)]
    assert confidence(weigh([_word(wrong)], wrong, other, 0, 0)) < 0.05


def test_only_the_keyword_counts_as_the_keyword() -> None:
    phones = [*_spoken(-40.0), Span("P", 56, 66, -900.0)]
    words = [_word(phones[:4]), Span("please", 56, 66, -900.0)]
    evidence = weigh(words, phones, phones, 0, 0)
    assert evidence.keyword_fit == -40.0
    assert evidence.worst_word == -90.0
    assert math.isclose(evidence.phones, math.log(4))
