"""The far end's beats: which of them beat the time, when the ticker stands in, and what the far end still holds."""

from typing import Any

import pytest

from dueto.audio.playout import Playout
from dueto.call.beats import BEAT_S, OFF_BEAT_LAG_MS, Beat


class Far:
    """A far end that beats when it is told to, and whoever decides."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ledger = Playout(8000)
        self.turns = 0
        self.beat = Beat(lambda: self.now, self.ledger, self._turn)

    def beats(self, *after_ms: float) -> int:
        """Beat so much later each; return how often something had to be decided."""
        before = self.turns
        for ms in after_ms:
            self.now += ms / 1000
            self.beat.take(b"")
        return self.turns - before

    def stands_in(self, after_ms: float) -> bool:
        """Whether a tick so much later finds that the beats do not come."""
        before = self.turns
        assert self.beat.tick(self.now + after_ms / 1000)
        return self.turns > before

    def _turn(self, now: float) -> bool:
        self.turns += 1
        return True


@pytest.mark.parametrize("apart_ms", [11, 20, 29])
def test_two_beats_one_by_one_have_the_ticker_wait_until_one_is_missing(apart_ms: float) -> None:
    far = Far()
    far.beats(0)
    assert far.stands_in(0)
    far.beats(apart_ms)
    assert not far.stands_in(0)
    assert not far.stands_in(29)
    assert far.stands_in(31)


@pytest.mark.parametrize("apart_ms", [0, 9, 31, 64])
def test_beats_in_a_bundle_and_beats_that_are_late_begin_no_time(apart_ms: float) -> None:
    far = Far()
    far.beats(0, apart_ms)
    assert far.stands_in(0)


def test_a_beat_that_is_late_is_decided_on_and_the_next_one_beats_the_time_again() -> None:
    far = Far()
    far.beats(0, 20)
    assert far.beats(31) == 1
    assert far.stands_in(0)
    assert far.beats(20) == 1
    assert not far.stands_in(29)


def test_after_a_beat_that_is_missing_a_bundle_beats_no_time_and_all_but_its_first_decide_nothing() -> None:
    far = Far()
    far.beats(0, 20)
    assert far.beats(31, 0, 9) == 1
    assert far.stands_in(0)
    far.beats(20)
    assert not far.stands_in(0)


def test_each_beat_is_a_frame_that_the_far_end_has_begun_to_play_but_for_one_that_was_on_its_way() -> None:
    far = Far()
    far.beat.begins(far.now, 50, beats=True)
    far.beats(2)
    assert far.beat.unplayed_ms == 50
    far.beats(2, 0)
    assert far.beat.unplayed_ms == 10
    far.beats(20)
    assert far.beat.unplayed_ms == 0


def test_out_of_silence_the_ticker_waits_for_the_first_beat_where_beats_are_to_be_had() -> None:
    far = Far()
    far.beat.begins(far.now, 0, beats=True)
    assert not far.stands_in(BEAT_S * 1000 - 1)
    assert far.stands_in(BEAT_S * 1000 + 1)
    far.beat.begins(far.now, 0, beats=False)
    assert far.stands_in(0)


@pytest.mark.parametrize(
    ("unplayed_ms", "lag_ms", "then_ms"),
    [(81, 1, 81), (100, 20, 100), (110, 30, 110), (119, 39, 119), (121, 20, 100), (79, 20, 100), (10, 20, 100)],
)
def test_the_far_end_sounds_as_much_longer_as_it_holds_more_than_the_ledger_thinks(
    unplayed_ms: float, lag_ms: float, then_ms: float
) -> None:
    far = Far()
    far.ledger.add(far.ledger.open(), bytes(1600))
    assert len(far.ledger.due(far.now)) == 5
    assert far.beat.lag_ms(far.now) == OFF_BEAT_LAG_MS
    far.beats(0, 0)
    far.beat.begins(far.now, unplayed_ms, beats=True)
    assert far.beat.lag_ms(far.now) == pytest.approx(lag_ms, abs=1e-6)
    assert far.beat.unplayed_ms == pytest.approx(then_ms)
    assert far.beat.lag_ms(far.now + BEAT_S) == OFF_BEAT_LAG_MS


def test_of_a_far_end_that_the_ledger_thinks_silent_only_what_it_holds_counts() -> None:
    far = Far()
    far.beat.begins(far.now, 15, beats=True)
    assert far.beat.lag_ms(far.now) == 35


class Open:
    """A ledger whose lane, once open, has a frame for everybody."""

    plays_until = 0.0

    def __init__(self) -> None:
        self.voice_lane = self
        self.opened: tuple[float, float] | None = None

    def open_voice_lane(self, held_s: float, slack_s: float) -> None:
        self.opened = held_s, slack_s

    def close_lanes(self) -> None:
        self.opened = None

    def next(self, now: float) -> bytes | None:
        return b"a frame" if self.opened else None


class Flowing(Far):
    """The same while something is said: every decision opens the lane for another 200 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes, self.sent = Open(), list[bytes]()
        ledger: Any = self.lanes
        self.beat = Beat(lambda: self.now, ledger, self._turn)
        self.beat.unplayed_ms = 140
        self.beats(0, 20)

    def _turn(self, now: float) -> bool:
        self.beat.open_lane(now, self.sent.append, now + 0.2)
        return super()._turn(now)


def test_a_beat_in_its_time_takes_a_frame_from_the_lane_and_asks_nobody() -> None:
    far = Flowing()
    assert far.lanes.opened == (0.1, 0.04)
    assert far.beats(20, 11, 29) == 0
    assert far.sent == [b"a frame"] * 3
    assert not far.stands_in(29)


@pytest.mark.parametrize("after_ms", [[31], [29] * 7])
def test_a_beat_that_is_late_and_a_lane_that_was_open_for_long_have_somebody_decide(after_ms: list[float]) -> None:
    far = Flowing()
    assert far.beats(*after_ms) == 1
    assert len(far.sent) == len(after_ms) - 1


def test_a_beat_right_behind_another_takes_no_frame() -> None:
    far = Flowing()
    assert far.beats(9) == 0
    assert far.sent == []


def test_only_a_beat_in_its_time_opens_the_lane() -> None:
    far = Flowing()
    far.beats(100)
    assert far.lanes.opened is None
    far.beats(20)
    assert far.lanes.opened is not None


def test_after_the_end_a_beat_sends_nothing_and_nobody_decides() -> None:
    far = Flowing()
    far.beat.release()
    assert far.lanes.opened is None
    assert far.beats(20, 20) == 0
    assert far.sent == []
    assert not far.beat.tick(far.now + 1)
