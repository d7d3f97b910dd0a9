"""Live audio that a stall has delayed becomes live again."""

import pytest

from dueto.audio.playout import Playout, Utterance

RATE_HZ = 8000
FRAME = bytes(320)


def write(playout: Playout, live: Utterance, now: float) -> int:
    """What a player does with a live frame; returns how many frames were sent."""
    if playout.pass_on(live, FRAME, now):
        return 1
    if playout.catches_up(live, FRAME, now):
        return 0
    playout.add(live, FRAME)
    return len(playout.due(now))


def ahead_ms(playout: Playout, now: float) -> float:
    return (playout.plays_until - now) * 1000 + playout.waiting_ms


def test_after_a_stall_the_delay_is_gone_within_two_seconds() -> None:
    playout = Playout(RATE_HZ, max_live_ms=400)
    live = playout.open(live=True)
    now = 10.0
    for _ in range(20):  # 400 ms come at once
        write(playout, live, now)
    assert ahead_ms(playout, now) > 300
    for _ in range(100):
        now += 0.02
        write(playout, live, now)
        playout.due(now)  # the ticker
    assert ahead_ms(playout, now) <= 80
    assert 200 <= playout.dropped_ms <= 400


def test_live_audio_in_time_loses_nothing() -> None:
    playout = Playout(RATE_HZ)
    live = playout.open(live=True)
    sent = sum(write(playout, live, 10.0 + number * 0.02) for number in range(500))
    assert sent == 500
    assert playout.dropped_ms == 0


def test_a_module_that_sends_200_ms_at_a_time_is_not_late() -> None:
    playout = Playout(RATE_HZ)
    live = playout.open(live=True)
    sent, now = 0, 10.0
    for _ in range(50):
        sent += sum(write(playout, live, now) for _ in range(10))
        for _ in range(10):
            now += 0.02
            sent += len(playout.due(now))
    assert sent == 500
    assert playout.dropped_ms == 0


def test_what_is_said_before_it_does_not_count_as_a_delay_of_live_audio() -> None:
    playout = Playout(RATE_HZ)
    spoken = playout.open()
    playout.add(spoken, bytes(RATE_HZ * 2 * 3))
    playout.finish(spoken)
    live = playout.open(live=True)
    now = 10.0
    for _ in range(140):
        playout.due(now)
        assert not playout.catches_up(live, FRAME, now)
        now += 0.02


@pytest.mark.parametrize("late_frames", range(10, 18))
def test_samples_that_come_in_halves_are_whole_after_some_were_dropped(late_frames: int) -> None:
    playout = Playout(RATE_HZ, max_live_ms=400)
    live, given = playout.open(live=True), b"\x01\x02" * 200_000
    now, at, sent = 10.0, 0, list[bytes]()
    for turn in range(200):
        for _ in range(late_frames if turn == 0 else 1):
            piece, at = given[at : at + 321], at + 321
            if not playout.catches_up(live, piece, now):
                playout.add(live, piece)
        sent += playout.due(now)
        now += 0.02
    assert playout.dropped_ms >= 20
    assert {frame[:2] for frame in sent} == {b"\x01\x02"}
    assert live.queued_ms + live.dropped_ms == pytest.approx(at // 16, abs=1)
