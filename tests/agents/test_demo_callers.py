"""The recorded callers of the demo, through the real detector and recogniser. Nothing knows the files' names."""

import pytest

from dueto.agents.speech.judge import THRESHOLD
from dueto.audio.pcm import gain

from .conftest import Listener, over_the_telephone

UNDERSTOOD = {
    "sales": "sales",
    "support": "support",
    "billing": "billing",
    "yes": "yes",
    "no": "no",
    "hello": "hello",
    "goodbye": "goodbye",
}


@pytest.mark.parametrize(("name", "meaning"), UNDERSTOOD.items())
def test_a_caller_is_understood(listener: Listener, name: str, meaning: str) -> None:
    [(text, confidence)] = listener.understand(over_the_telephone(name))
    assert text == meaning
    assert confidence >= THRESHOLD


@pytest.mark.parametrize("name", ["pizza", "story"])
def test_a_caller_who_wants_something_else_is_not_taken_for_a_department(listener: Listener, name: str) -> None:
    heard = listener.understand(over_the_telephone(name))
    assert heard
    assert all(confidence < THRESHOLD for _, confidence in heard)


def test_a_muted_caller_says_nothing(listener: Listener) -> None:
    assert listener.understand(bytes(len(over_the_telephone("sales")))) == []


@pytest.mark.parametrize("db", [-18.0, 6.0])
def test_a_soft_and_a_loud_line_are_understood_alike(listener: Listener, db: float) -> None:
    [(text, confidence)] = listener.understand(gain(over_the_telephone("sales"), db))
    assert text == "sales"
    assert confidence >= THRESHOLD


def test_the_same_utterance_is_understood_the_same_whatever_came_before_it(listener: Listener) -> None:
    before = listener.understand(over_the_telephone("sales"))
    listener.understand(over_the_telephone("pizza"))
    assert listener.understand(over_the_telephone("sales")) == before
