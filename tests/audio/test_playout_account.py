"""The account in its rarer moments: asked while frames go by a lane, and after a far end was lost."""

from collections.abc import Callable

import pytest

from dueto.audio.playout import Playout, Utterance
from dueto.audio.turns import HOLD_S

RATE_HZ = 8000


def frames(count: int, first: int = 1) -> list[bytes]:
    """Frames that can be told from each other."""
    return [bytes([first + number, 1]) * 160 for number in range(count)]


def speaking(by_lane: int) -> tuple[Playout, Utterance]:
    """A sentence of 20 frames of which 12 are sent, the last `by_lane` of them by the lane."""
    ledger = Playout(RATE_HZ)
    utterance = ledger.open()
    ledger.add(utterance, b"".join(frames(20)))
    assert len(ledger.due(5.0)) == 8
    for turn in range(1, 5):
        if turn == 5 - by_lane:
            ledger.open_voice_lane(0.145, 0.04)
        now = 5.016 + 0.02 * (turn - 1)
        frame = ledger.voice_lane.next(now) if turn > 4 - by_lane else ledger.carry_on(now)
        assert frame == frames(20)[7 + turn]
    return ledger, utterance


def echoing(by_lane: int) -> tuple[Playout, Utterance]:
    """Four frames of live audio, the last `by_lane` of them by the lane."""
    ledger = Playout(RATE_HZ)
    live = ledger.open(live=True)
    for turn in range(4):
        if turn == 4 - by_lane:
            ledger.open_lane()
        now = 5.0 + 0.019 * turn
        assert ledger.lane.takes(320, now) if turn >= 4 - by_lane else ledger.pass_on(live, frames(1)[0], now)
    return ledger, live


QUESTIONS: dict[str, Callable[[Playout, Utterance], object]] = {
    "sent_ms": lambda ledger, one: ledger.sent_ms,
    "waiting_ms": lambda ledger, one: ledger.waiting_ms,
    "plays_until": lambda ledger, one: round(ledger.plays_until, 6),
    "sounds_until": lambda ledger, one: round(ledger.sounds_until, 6),
    "heard_ms": lambda ledger, one: ledger.heard_ms(one, 9.0),
    "current": lambda ledger, one: ledger.current(5.07) is one,
    "idle": lambda ledger, one: ledger.idle(5.07),
    "next_due": lambda ledger, one: ledger.next_due(5.08),
    "lost": lambda ledger, one: (ledger.far_end_lost(5.07), ledger.waiting_ms, ledger.due(5.2)),
    "clear": lambda ledger, one: [ms for _, ms in ledger.clear(9.0, drops_sent=True)],
    "finish": lambda ledger, one: (ledger.finish(one), ledger.sent_ms, ledger.heard_ms(one, 9.0)),
    "open": lambda ledger, one: (ledger.open().id, ledger.heard_ms(one, 9.0)),
    "add": lambda ledger, one: (ledger.add(one, bytes(320)), ledger.waiting_ms, one.queued_ms),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("way", [speaking, echoing])
def test_every_answer_counts_what_went_by_the_lane(
    way: Callable[[int], tuple[Playout, Utterance]], question: str
) -> None:
    asked = QUESTIONS[question]
    assert asked(*way(2)) == asked(*way(0))


@pytest.mark.parametrize("by_lane", [0, 1, 4])
def test_what_a_lost_far_end_took_along_is_sent_again_however_it_had_gone(by_lane: int) -> None:
    ledger, utterance = speaking(by_lane)
    ledger.far_end_lost(5.07)  # in mid-frame: three are over
    assert ledger.plays_until == 5.07
    assert (ledger.sent_ms, ledger.waiting_ms) == (60, 340)
    assert (utterance.sent_ms, utterance.waiting_ms) == (60, 340)
    assert ledger.due(5.2) == frames(20)[3:11]
    assert ledger.heard_ms(utterance, 5.25) == 110


def test_a_sentence_that_was_over_when_the_far_end_was_lost_has_its_end_and_is_not_sent_again() -> None:
    ledger = Playout(RATE_HZ)
    utterance = ledger.open()
    ledger.add(utterance, b"".join(frames(5)))
    ledger.finish(utterance)
    ledger.due(5.0)
    ledger.far_end_lost(5.2)
    assert ledger.heard_at(utterance) == pytest.approx(5.1)
    assert ledger.heard_ms(utterance, 5.2) == 100
    assert ledger.due(5.3) == []
    assert ledger.heard_at(utterance) == pytest.approx(5.1)


def test_what_could_not_be_cut_is_not_sent_again_to_the_next_far_end() -> None:
    ledger = Playout(RATE_HZ)
    utterance = ledger.open()
    ledger.add(utterance, b"".join(frames(20)))
    ledger.due(5.0)
    ledger.clear(5.01, drops_sent=False)
    ledger.far_end_lost(5.02)
    assert ledger.due(5.2) == []
    assert ledger.idle(5.2)


def test_a_sentence_begins_later_where_the_kernel_holds_all_of_it() -> None:
    ledger = Playout(RATE_HZ)
    utterance = ledger.open()
    ledger.add(utterance, b"".join(frames(5)))
    ledger.due(5.0)
    assert utterance.began_at == 5.0
    ledger.due(5.05, 100)
    assert utterance.began_at == pytest.approx(5.05)
    ledger.add(utterance, b"".join(frames(5)))
    ledger.due(5.1)
    assert utterance.began_at == pytest.approx(5.05)


def test_an_utterance_is_held_back_at_each_underrun_and_not_only_at_its_first() -> None:
    ledger = Playout(RATE_HZ)
    utterance = ledger.open()
    ledger.add(utterance, b"".join(frames(5)))
    assert len(ledger.due(5.0)) == 5
    for number, now in enumerate((10.0, 15.0), 1):
        ledger.add(utterance, b"".join(frames(2)))
        assert ledger.due(now) == []
        assert ledger.next_due(now) == now + HOLD_S
        ledger.add(utterance, b"".join(frames(1)))
        assert len(ledger.due(now + 0.1)) == 3
        assert ledger.underruns == number


def test_halves_of_samples_that_are_left_out_do_not_add_up() -> None:
    ledger = Playout(RATE_HZ)
    for _ in range(20):
        utterance = ledger.open()
        ledger.add(utterance, bytes(321))
        ledger.finish(utterance)
    assert sum(len(ledger.due(5.0 + 0.02 * turn)) for turn in range(20)) == 20
    assert ledger.waiting_ms == 0


def test_silence_is_made_up_behind_a_word_that_is_shorter_than_the_warm_up_and_behind_no_other() -> None:
    for ms, sent_ms in ((100, 400), (380, 400), (420, 420), (2000, 2000)):
        ledger = Playout(RATE_HZ, lead_ms=480, warm_up_ms=400)
        utterance = ledger.open()
        ledger.add(utterance, bytes(16 * ms))
        ledger.finish(utterance)
        assert sum(len(ledger.due(5.0 + 0.02 * turn)) for turn in range(150)) * 20 == sent_ms


def test_after_a_cut_nothing_is_made_up_for_what_the_far_end_has_dropped() -> None:
    ledger = Playout(RATE_HZ, lead_ms=480, warm_up_ms=400)
    utterance = ledger.open()
    ledger.add(utterance, bytes(16 * 400))
    assert len(ledger.due(5.0)) == 20
    ledger.add(utterance, bytes(16 * 20))
    assert len(ledger.due(5.37)) == 1  # so late that the far end may wait for more
    ledger.clear(5.38, drops_sent=True)
    assert ledger.due(5.5) == []


def test_live_audio_that_is_finished_goes_by_no_lane_any_more() -> None:
    ledger, live = echoing(1)
    ledger.finish(live)
    assert not ledger.lane.takes(320, 5.07)
    assert live.sent_ms == live.queued_ms == 80
