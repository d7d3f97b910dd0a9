"""What can be understood, and what a wrong configuration is told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dueto.agents.speech.model import find_model
from dueto.agents.speech.vocabulary import Vocabulary, build_vocabulary
from dueto.call.ports import Destination
from dueto.errors import SettingsError

from .conftest import DESTINATIONS

DICTIONARY = find_model().dictionary


def _vocabulary(*words: str, name: str = "x") -> Vocabulary:
    return build_vocabulary([Destination(name, "user/1", words)], DICTIONARY)


def test_the_name_is_the_word_where_none_is_given() -> None:
    assert _vocabulary(name="customer_service").phrases == ("customer service",)


def test_an_unknown_word_is_named_with_what_to_write_instead() -> None:
    with pytest.raises(SettingsError, match=r'\[destinations.help\] words: .*"helpdesk".*near are "help desk"'):
        build_vocabulary([Destination("help", "user/1", ("helpdesk",))], DICTIONARY)


def test_a_misspelt_word_is_told_its_neighbour() -> None:
    with pytest.raises(SettingsError, match='"billing"'):
        _vocabulary("biling")


@pytest.mark.parametrize("word", ["24 hours", "sales;", "<sales>", "", "sales | support", "vertrieb\npublic <x> = no"])
def test_what_is_no_word_never_reaches_the_grammar(word: str) -> None:
    with pytest.raises(SettingsError):
        build_vocabulary([Destination("7", "user/1", (word,))], DICTIONARY)


def test_an_answer_to_any_question_cannot_name_a_department() -> None:
    with pytest.raises(SettingsError, match="answer that callers give"):
        _vocabulary("yes")


def test_one_word_for_two_destinations_is_refused() -> None:
    two = [Destination("a", "user/1", ("sales",)), Destination("b", "user/2", ("Sales",))]
    with pytest.raises(SettingsError, match=r"also a word of \[destinations.a\]"):
        build_vocabulary(two, DICTIONARY)


def test_no_destination_at_all_is_refused() -> None:
    with pytest.raises(SettingsError, match="nobody to transfer to"):
        build_vocabulary([], DICTIONARY)


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("sales please", ("sales", 0, 0)),
        ("hello the sales department please", ("sales department", 2, 3)),
        ("can i speak to technical support", ("technical support", 4, 5)),
        ("yes please", ("yes", 0, 1)),
        ("no thank you", ("no", 0, 2)),
        ("thank you goodbye", ("goodbye", 0, 2)),
        ("hold on", ("", 0, 1)),
    ],
)
def test_the_meaning_is_the_longest_phrase_or_the_whole_answer(said: str, meaning: tuple[str, int, int]) -> None:
    assert build_vocabulary(DESTINATIONS, DICTIONARY).meaning(said.split()) == meaning


@settings(max_examples=10)
@given(st.lists(st.sampled_from(["sales", "support", "billing", "technical support", "front desk"]), min_size=1))
def test_a_vocabulary_survives_the_way_to_another_process(words: list[str]) -> None:
    vocabulary = _vocabulary(*words)
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
