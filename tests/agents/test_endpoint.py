"""Where speech begins and ends: properties over any stream of windows, and the cases people notice."""

from hypothesis import given
from hypothesis import strategies as st

from dueto.agents.speech.endpoint import (
    WINDOW_BYTES,
    WINDOW_MS,
    Began,
    Endpointer,
    EndpointRules,
    Paused,
    Utterance,
)

LIKELY = st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]), max_size=400)


def _window(number: int) -> bytes:
    return number.to_bytes(4, "big") * (WINDOW_BYTES // 4)


def _fed(likely: list[float], rules: EndpointRules | None = None) -> list[tuple[int, Began | Utterance]]:
    endpointer = Endpointer(rules)
    events = ((number, endpointer.feed(_window(number), one)) for number, one in enumerate(likely))
    return [(number, event) for number, event in events if isinstance(event, Began | Utterance)]


def _numbers(utterance: Utterance) -> list[int]:
    starts = range(0, len(utterance.pcm), WINDOW_BYTES)
    return [int.from_bytes(utterance.pcm[at : at + 4], "big") for at in starts]


@given(LIKELY)
def test_a_beginning_and_an_utterance_take_turns(likely: list[float]) -> None:
    kinds = [type(event) for _, event in _fed(likely)]
    assert kinds == [Began, Utterance] * (len(kinds) // 2) + [Began] * (len(kinds) % 2)


@given(LIKELY)
def test_an_utterance_is_one_piece_of_the_stream_around_its_speech(likely: list[float]) -> None:
    rules = EndpointRules()
    for number, event in _fed(likely, rules):
        if isinstance(event, Utterance):
            kept = _numbers(event)
            assert kept == list(range(kept[0], kept[-1] + 1))
            assert kept[0] * WINDOW_MS <= event.started_ms < event.ended_ms <= (kept[-1] + 1) * WINDOW_MS
            assert kept[-1] <= number
            assert event.started_ms - kept[0] * WINDOW_MS <= rules.before * WINDOW_MS
            assert len(kept) <= rules.longest + rules.before


@given(LIKELY)
def test_utterances_do_not_overlap_and_begin_where_it_was_said(likely: list[float]) -> None:
    events = [event for _, event in _fed(likely)]
    ended_ms = 0
    for began, utterance in zip(events[::2], events[1::2], strict=False):
        assert isinstance(utterance, Utterance)
        assert began.started_ms == utterance.started_ms
        assert utterance.started_ms >= ended_ms
        ended_ms = utterance.ended_ms


@given(LIKELY)
def test_what_is_recognised_early_is_the_utterance_unless_speech_went_on(likely: list[float]) -> None:
    endpointer = Endpointer()
    paused, spoke_since = b"", False
    for number, one in enumerate(likely):
        match endpointer.feed(_window(number), one):
            case Paused(pcm):
                paused, spoke_since = pcm, False
            case Utterance(pcm) if number + 1 < EndpointRules().longest:
                assert spoke_since or pcm == paused
        spoke_since = spoke_since or one >= 0.35


def test_a_click_is_no_speech() -> None:
    assert _fed([0.0] * 20 + [1.0, 1.0] + [0.0] * 40) == []


def test_a_pause_within_a_phrase_does_not_end_it() -> None:
    likely = [0.0] * 10 + [1.0] * 10 + [0.0] * 9 + [1.0] * 10 + [0.0] * 20
    [_, (_, utterance)] = _fed(likely)
    assert isinstance(utterance, Utterance)
    assert (utterance.started_ms, utterance.ended_ms) == (10 * WINDOW_MS, 39 * WINDOW_MS)


def test_a_phrase_is_over_soon_after_its_last_word() -> None:
    [_, (number, utterance)] = _fed([1.0] * 10 + [0.0] * 30)
    assert isinstance(utterance, Utterance)
    assert (number + 1) * WINDOW_MS - utterance.ended_ms <= 480


def test_speech_without_an_end_is_cut_and_goes_on() -> None:
    rules = EndpointRules(longest=20)
    utterances = [event for _, event in _fed([1.0] * 100, rules) if isinstance(event, Utterance)]
    assert len(utterances) == 3
    assert all(len(_numbers(utterance)) <= 28 for utterance in utterances)
