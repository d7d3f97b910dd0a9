"""`carry_on` is a shorter way to where `due` leads: nobody can tell afterwards which one was taken."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from dueto.audio.playout import Playout, Utterance

RATE_HZ = 8000
LEAD_MS = 160


def piece(frames: int, number: int) -> bytes:
    """So many frames of sound, to be told from others; half a frame more, where the number is odd."""
    return bytes([number % 256, 1]) * (160 * frames + 80 * (number % 2))


@dataclass
class Way:
    """A ledger, what was opened on it, and what was sent."""

    ledger: Playout = field(default_factory=lambda: Playout(RATE_HZ, lead_ms=LEAD_MS, start_ms=40))
    opened: list[Utterance] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    def current(self) -> Utterance:
        """What is being said; a new one, where the last is finished or cut."""
        if not self.opened or self.opened[-1].finished or self.opened[-1].cleared:
            self.opened.append(self.ledger.open())
        return self.opened[-1]

    def told(self, now: float) -> tuple[object, ...]:
        """All that the ledger says at `now`."""
        ledger = self.ledger
        return (
            _moment(ledger.next_due(now)),
            ledger.idle(now),
            ledger.sent_ms,
            ledger.waiting_ms,
            ledger.underruns,
            _moment(ledger.plays_until),
            _moment(ledger.sounds_until),
            [
                (ledger.heard_ms(one, now), one.sent_ms, _moment(ledger.heard_at(one)), _moment(one.began_at))
                for one in self.opened
            ],
        )


def _moment(at: float | None) -> float | None:
    """A moment, to the microsecond: sums of the same times in another order differ in the last digits."""
    return None if at is None else round(at, 6)


STEPS = st.one_of(
    st.tuples(st.just("tick"), st.integers(1, 4)),
    st.tuples(st.just("say"), st.integers(1, 12)),
    st.tuples(st.just("say"), st.just(5)),
    st.tuples(st.just("finish"), st.just(0)),
    st.tuples(st.just("backlog"), st.integers(0, 400).map(lambda ms: ms and ms + 0.41)),
    st.tuples(st.just("live"), st.just(1)),
    st.tuples(st.just("lost"), st.just(0)),
    st.tuples(st.just("clear"), st.integers(0, 1)),
    st.tuples(st.just("lag"), st.integers(0, 40).map(lambda ms: ms and ms + 0.37)),
)
GAPS = st.sampled_from([0.0, 0.00507, 0.01943, 0.02003, 0.02003, 0.02057, 0.03519, 0.20011])
"No sum of them is what a decision is made at, where those last digits would make it."


@given(st.lists(st.tuples(GAPS, STEPS), max_size=60))
def test_to_carry_on_is_the_same_as_to_ask_what_is_due(steps: list[tuple[float, tuple[str, Any]]]) -> None:
    short, long = Way(), Way()
    now, carried, lag_ms = 100.0, 0, 0.0
    for number, (gap, (what, value)) in enumerate([(0.0, ("say", 10)), *steps]):
        now += gap
        ticks = [now + 0.02003 * turn for turn in range(value)] if what == "tick" else [now]
        for way in (short, long):
            ledger = way.ledger
            match what:
                case "tick":
                    for at in ticks:
                        frame = ledger.carry_on(at, lag_ms=lag_ms) if way is short else None
                        carried += frame is not None
                        way.sent += ledger.due(at, ticks=True, lag_ms=lag_ms) if frame is None else [frame]
                case "backlog":
                    frame = ledger.carry_on(now, value, lag_ms=lag_ms) if way is short else None
                    way.sent += ledger.due(now, value, ticks=True, lag_ms=lag_ms) if frame is None else [frame]
                case "say":
                    ledger.add(way.current(), piece(value, number))
                    way.sent += ledger.due(now)
                case "live":
                    way.opened.append(ledger.open(live=True))
                    ledger.add(way.opened[-1], piece(1, 0))
                case "finish":
                    ledger.finish(way.current())
                case "lost":
                    ledger.far_end_lost(now)
                case "lag":
                    lag_ms = value
                case "clear":
                    ledger.clear(now, drops_sent=bool(value))
        now = ticks[-1]
        assert short.sent == long.sent
        assert short.told(now) == long.told(now)
    event(f"carried on {min(carried, 3)} times or more")


@pytest.mark.parametrize("late_ms", [-10, 0, 10])
def test_a_ticker_that_comes_about_in_time_carries_on(late_ms: int) -> None:
    ledger = Playout(RATE_HZ, lead_ms=LEAD_MS)
    utterance = ledger.open()
    ledger.add(utterance, piece(20, 0))
    assert len(ledger.due(5.0)) == LEAD_MS // 20
    assert ledger.carry_on(5.0) is None  # the lead is full
    assert ledger.carry_on(5.02 + late_ms / 1000) == piece(1, 0)
    assert ledger.carry_on(5.1) is None  # two are due and more
    assert ledger.sent_ms == LEAD_MS + 20


def test_the_lane_gives_a_sentences_frames_while_the_far_end_holds_what_the_lead_has_to() -> None:
    ledger = Playout(RATE_HZ, lead_ms=LEAD_MS)
    utterance = ledger.open()
    ledger.add(utterance, piece(20, 0))
    assert len(ledger.due(5.0)) == LEAD_MS // 20
    assert ledger.carry_on(5.02) is not None
    ledger.open_voice_lane(0.1, 0.04)
    assert ledger.voice_lane.next(5.04) is None  # it holds so little that two were due
    ledger.open_voice_lane(0.145, 0.04)
    assert ledger.voice_lane.next(5.02) is None  # the lead is full
    assert ledger.voice_lane.next(5.036) == ledger.voice_lane.next(5.056) == piece(1, 0)
    assert ledger.voice_lane.next(5.116) is None  # it holds more than it can
    assert ledger.sent_ms == LEAD_MS + 60
    ledger.add(utterance, piece(2, 0))
    assert ledger.voice_lane.next(5.076) is not None
    ledger.clear(5.08, drops_sent=True)
    assert ledger.voice_lane.next(5.096) is None
    assert ledger.heard_ms(utterance, 6.0) == 80
