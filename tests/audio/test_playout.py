"""The playout ledger, case by case. Times are exact: nothing here waits."""

import random
from weakref import ref

import pytest

from dueto.audio.playout import Playout, Utterance
from dueto.audio.turns import GIVE_WAY_S, HOLD_S, MAX_OPEN
from dueto.errors import LocalProtocolError

FRAME = 320  # 20 ms at 8000 Hz


def audio(ms: int, mark: int = 1) -> bytes:
    return bytes([mark]) * (ms * 16)


def spoken(playout: Playout, ms: int, mark: int = 1) -> Utterance:
    """A finished utterance of `ms`."""
    utterance = playout.open()
    playout.add(utterance, audio(ms, mark))
    playout.finish(utterance)
    return utterance


def play(playout: Playout, start: float, until: float, step: float = 0.02) -> list[bytes]:
    """Tick from `start` to before `until`; return all that was sent."""
    ticks = round((until - start) / step)
    return [frame for n in range(ticks) for frame in playout.due(start + n * step)]


def test_as_much_as_the_lead_is_sent_at_once_then_one_frame_per_frame() -> None:
    playout = Playout(8000)
    spoken(playout, 400)
    assert [len(playout.due(now)) for now in (0.0, 0.0, 0.02, 0.03, 0.04, 0.1)] == [8, 0, 1, 0, 1, 3]


def test_a_tick_that_comes_a_little_early_finds_its_frame() -> None:
    playout = Playout(8000)
    spoken(playout, 400)
    assert [len(playout.due(now)) for now in (0.0, 0.0193, 0.04, 0.0595)] == [8, 1, 1, 1]


def test_after_a_stall_the_clock_starts_anew_and_nothing_bursts() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 2000)
    playout.due(0.0)
    assert len(playout.due(1.0)) == 8
    assert playout.underruns == 1
    assert playout.heard_ms(utterance, 1.0) == 160
    assert playout.heard_ms(utterance, 1.05) == 210


def test_a_bursty_utterance_waits_for_its_start_threshold() -> None:
    playout = Playout(8000)
    utterance = playout.open()
    playout.add(utterance, audio(80))
    assert playout.due(0.0) == []
    playout.add(utterance, audio(20))
    assert len(playout.due(0.02)) == 5


def test_a_short_utterance_goes_as_soon_as_it_is_finished() -> None:
    playout = Playout(8000)
    utterance = playout.open()
    playout.add(utterance, audio(30))
    assert playout.due(0.0) == []
    playout.finish(utterance)
    assert playout.due(0.0) == [audio(20), audio(10) + bytes(160)]


def test_a_held_utterance_goes_after_all_when_no_more_comes() -> None:
    playout = Playout(8000)
    playout.add(playout.open(), audio(40))
    assert playout.next_due(5.0) == 5.0 + HOLD_S
    assert playout.due(5.0 + HOLD_S - 0.01) == []
    assert len(playout.due(5.0 + HOLD_S)) == 2


def test_a_live_frame_is_sent_in_the_same_turn() -> None:
    playout = Playout(8000)
    utterance = playout.open(live=True)
    for n in range(5):
        playout.add(utterance, audio(20, n))
        assert playout.due(0.02 * n) == [audio(20, n)]
    assert playout.underruns == 0


def test_an_underrun_is_counted_once_and_waits_for_the_rearm_threshold() -> None:
    playout = Playout(8000)
    utterance = playout.open()
    playout.add(utterance, audio(100))
    assert len(playout.due(0.0)) == 5
    assert playout.due(0.2) == []
    assert playout.underruns == 0  # it may just be over
    playout.add(utterance, audio(40))
    assert [playout.due(0.22), playout.due(0.24)] == [[], []]
    playout.add(utterance, audio(20))
    assert len(playout.due(0.26)) == 3
    assert playout.underruns == 1


def test_an_utterance_finished_late_is_no_underrun() -> None:
    playout = Playout(8000)
    utterance = playout.open()
    playout.add(utterance, audio(100))
    playout.due(0.0)
    playout.finish(utterance)
    assert playout.due(0.5) == []
    assert playout.underruns == 0
    assert playout.heard_at(utterance) == pytest.approx(0.1)


def test_pieces_of_any_size_come_out_as_whole_frames() -> None:
    playout = Playout(8000)
    utterance = playout.open(live=True)
    data = bytes(range(256)) * 5
    for at in range(0, len(data), 77):
        playout.add(utterance, memoryview(data)[at : at + 77])
    playout.finish(utterance)
    assert b"".join(play(playout, 0.0, 0.2)) == data


def test_half_a_sample_at_the_end_is_left_out() -> None:
    playout = Playout(8000)
    utterance = playout.open()
    playout.add(utterance, b"\1" * 5)
    playout.finish(utterance)
    assert playout.due(0.0) == [b"\1" * 4 + bytes(FRAME - 4)]
    assert playout.waiting_ms == 0


def test_the_silence_that_fills_the_last_frame_is_not_audio_of_the_utterance() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 50)
    playout.due(0.0)
    assert utterance.queued_ms == utterance.sent_ms == playout.sent_ms == 50
    assert playout.heard_ms(utterance, 1.0) == 50
    assert playout.heard_at(utterance) == pytest.approx(0.06)


def test_one_frame_of_the_right_size_is_sent_as_the_very_same_object() -> None:
    playout = Playout(8000)
    frame = audio(20)
    playout.add(playout.open(live=True), frame)
    assert playout.due(0.0)[0] is frame


def test_what_is_heard_follows_the_clock_and_never_passes_what_was_sent() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 400)
    playout.due(10.0)
    assert [playout.heard_ms(utterance, 10 + ms / 1000) for ms in (-5, 0, 7, 160, 500)] == [0, 0, 7, 160, 160]
    play(playout, 10.02, 10.5)
    assert playout.heard_ms(utterance, 10.5) == 400


def test_the_end_is_known_when_the_last_frame_is_sent() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 400)
    playout.due(0.0)
    assert playout.heard_at(utterance) is None
    play(playout, 0.02, 0.3)
    assert playout.heard_at(utterance) == pytest.approx(0.4)
    playout.due(0.5)
    assert playout.heard_at(utterance) == pytest.approx(0.4)


def test_an_open_utterance_has_no_end_yet() -> None:
    playout = Playout(8000)
    utterance = playout.open(live=True)
    playout.add(utterance, audio(20))
    playout.due(0.0)
    assert playout.heard_at(utterance) is None


def test_an_empty_utterance_is_over_when_its_turn_comes() -> None:
    playout = Playout(8000)
    first = spoken(playout, 40)
    empty = spoken(playout, 0)
    assert playout.heard_at(empty) is None
    playout.due(1.0)
    assert playout.heard_at(empty) == playout.heard_at(first) == pytest.approx(1.04)


def test_utterances_play_in_the_order_of_opening_without_a_gap() -> None:
    playout = Playout(8000)
    first, second = playout.open(), playout.open()
    playout.add(second, audio(40, 2))
    playout.finish(second)
    assert playout.due(0.0) == []
    playout.add(first, audio(100, 1))
    playout.finish(first)
    assert playout.due(0.0) == [audio(20, 1)] * 5 + [audio(20, 2)] * 2
    assert playout.heard_ms(first, 0.11) == 100
    assert playout.heard_ms(second, 0.11) == 10
    assert [playout.current(now) for now in (0.05, 0.11, 0.15)] == [first, second, None]


def test_an_abandoned_utterance_gives_way_and_goes_on_afterwards() -> None:
    playout = Playout(8000)
    abandoned = playout.open()
    playout.add(abandoned, audio(100, 1))
    playout.due(0.0)
    live = playout.open(live=True)
    playout.add(live, audio(20, 2))
    assert playout.due(0.04) == []
    assert playout.next_due(0.04) == pytest.approx(0.1 + GIVE_WAY_S)
    assert playout.due(0.05 + GIVE_WAY_S) == []
    assert playout.due(0.1 + GIVE_WAY_S) == [audio(20, 2)]
    playout.add(live, audio(20, 3))
    playout.add(abandoned, audio(100, 1))
    playout.finish(live)
    sent = play(playout, 0.12 + GIVE_WAY_S, 0.3 + GIVE_WAY_S)
    assert sent == [audio(20, 3)] + [audio(20, 1)] * 5


def test_those_who_gave_way_keep_their_order() -> None:
    playout = Playout(8000)
    first, ready, last = playout.open(live=True), spoken(playout, 20, 2), playout.open(live=True)
    assert playout.due(0.0) == []
    assert playout.due(GIVE_WAY_S) == [audio(20, 2)]
    assert playout.heard_at(ready) == pytest.approx(GIVE_WAY_S + 0.02)
    playout.add(last, audio(20, 3))
    playout.add(first, audio(20, 1))
    playout.finish(first)
    assert playout.due(GIVE_WAY_S + 0.01) == [audio(20, 1), audio(20, 3)]


def test_an_utterance_that_was_heard_is_not_kept() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 100)
    playout.due(0.0)
    gone = ref(utterance)
    del utterance
    assert gone() is not None
    playout.due(0.2)
    assert gone() is None


def test_an_unfinished_utterance_keeps_its_turn_while_nobody_else_waits() -> None:
    playout = Playout(8000)
    first = playout.open(live=True)
    playout.add(first, audio(20, 1))
    playout.due(0.0)
    playout.open()
    assert playout.next_due(10.0) is None
    playout.add(first, audio(20, 1))
    assert playout.due(10.0) == [audio(20, 1)]


def test_a_late_live_utterance_drops_its_oldest_audio_and_counts_it() -> None:
    playout = Playout(8000)
    spoken(playout, 400)
    live = playout.open(live=True)
    for n in range(105):
        playout.add(live, audio(20, n))
    assert live.dropped_ms == playout.dropped_ms == 100
    assert live.queued_ms == live.waiting_ms == 2000
    assert playout.waiting_ms == 2400
    sent = play(playout, 0.0, 3.0)
    assert sent[20:] == [audio(20, n) for n in range(5, 105)]


def test_a_bursty_utterance_beyond_the_bound_is_refused_whole() -> None:
    playout = Playout(8000, max_queued_ms=1000)
    utterance = playout.open()
    playout.add(utterance, audio(990))
    with pytest.raises(LocalProtocolError, match="more than 1000 ms"):
        playout.add(utterance, audio(20))
    assert utterance.queued_ms == playout.waiting_ms == 990
    playout.due(0.0)
    playout.add(utterance, audio(20))


def test_finished_and_cleared_utterances_take_no_more() -> None:
    playout = Playout(8000)
    finished = spoken(playout, 20)
    with pytest.raises(LocalProtocolError, match="finished"):
        playout.add(finished, audio(20))
    cleared = playout.open()
    playout.clear(0.0, drops_sent=True)
    with pytest.raises(LocalProtocolError, match="cleared"):
        playout.add(cleared, audio(20))
    playout.finish(cleared)  # the provider's "done" crossed the barge-in
    assert playout.due(0.0) == []


def test_endless_openings_are_refused() -> None:
    playout = Playout(8000)
    for _ in range(MAX_OPEN):
        playout.open()
    with pytest.raises(LocalProtocolError, match="open and not finished"):
        playout.open()


def test_a_clear_that_drops_what_was_sent_counts_only_what_was_heard() -> None:
    playout = Playout(8000)
    utterance, later = spoken(playout, 400), spoken(playout, 100)
    playout.due(0.0)
    assert playout.clear(0.07, drops_sent=True) == [(utterance, 70), (later, 0)]
    assert playout.generation == 1
    assert utterance.cleared
    assert playout.heard_ms(utterance, 1.0) == 70
    assert playout.heard_at(utterance) is None
    assert playout.due(0.07) == []
    assert playout.idle(0.07)
    after = spoken(playout, 100, 9)
    assert playout.due(0.08) == [audio(20, 9)] * 5
    assert playout.heard_ms(after, 0.09) == 10


@pytest.mark.parametrize("drops_sent", [True, False])
def test_a_clear_tells_of_the_oldest_first_even_where_turns_changed(drops_sent: bool) -> None:
    playout = Playout(8000)
    abandoned, overtook = playout.open(), spoken(playout, 400)
    playout.due(0.0)
    assert len(playout.due(GIVE_WAY_S)) == 8
    assert [hit for hit, _ in playout.clear(GIVE_WAY_S, drops_sent=drops_sent)] == [abandoned, overtook]


def test_a_clear_that_cannot_drop_counts_what_was_sent_as_heard() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 400)
    playout.due(0.0)
    assert playout.clear(0.07, drops_sent=False) == [(utterance, 160)]
    assert not playout.idle(0.07)
    after = spoken(playout, 100, 9)
    assert playout.due(0.08) == [audio(20, 9)] * 4  # behind what the far end still holds
    assert playout.heard_ms(after, 0.17) == 10
    assert playout.heard_ms(utterance, 0.17) == 160


def test_the_sent_tail_of_a_finished_utterance_is_cut_only_where_it_can_be() -> None:
    for drops_sent, hit in ((True, 1), (False, 0)):
        playout = Playout(8000)
        utterance = spoken(playout, 100)
        playout.due(0.0)
        assert len(playout.clear(0.04, drops_sent=drops_sent)) == hit
        assert utterance.cleared is drops_sent
        assert playout.heard_ms(utterance, 1.0) == (40 if drops_sent else 100)
        assert playout.heard_at(utterance) == (None if drops_sent else pytest.approx(0.1))


def test_an_utterance_heard_to_its_end_is_not_hit_by_a_later_clear() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 100)
    playout.due(0.0)
    assert playout.clear(0.2, drops_sent=True) == []
    assert playout.heard_ms(utterance, 0.2) == 100
    assert playout.heard_at(utterance) == pytest.approx(0.1)
    assert playout.generation == 1


def test_an_utterance_finished_after_its_last_frame_is_not_hit_either() -> None:
    playout = Playout(8000)
    utterance = playout.open()
    playout.add(utterance, audio(100))
    playout.due(0.0)
    playout.finish(utterance)
    assert playout.clear(0.05, drops_sent=False) == []
    assert playout.heard_at(utterance) == pytest.approx(0.1)


def test_an_open_utterance_is_hit_even_before_it_began() -> None:
    playout = Playout(8000)
    utterance = playout.open(interruptible=False)
    assert playout.clear(0.0, drops_sent=False) == [(utterance, 0)]
    assert not utterance.interruptible


def test_audio_that_the_kernel_holds_is_not_heard() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 400)
    playout.due(0.0)
    assert len(playout.due(0.1, backlog_ms=100)) == 3  # 60 ms left us, 100 did not: the far end has run dry
    assert playout.heard_ms(utterance, 0.1) == 60
    assert playout.heard_ms(utterance, 0.13) == 90
    assert len(playout.due(0.14)) == 2  # it left, and plays until 0.26
    assert playout.heard_ms(utterance, 0.14) == 100


def test_a_peer_that_takes_nothing_stops_the_sending_and_the_hearing() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 4000)
    sent = len(playout.due(0.0))
    for n in range(1, 50):
        sent += len(playout.due(0.02 * n, backlog_ms=160))
        assert playout.heard_ms(utterance, 0.02 * n) == 0
    assert sent == 8


def test_a_backlog_across_two_utterances_puts_both_back() -> None:
    playout = Playout(8000)
    first, second = spoken(playout, 100, 1), spoken(playout, 60, 2)
    playout.due(0.0)
    playout.due(0.1, backlog_ms=80)
    assert playout.heard_at(first) == pytest.approx(0.12)
    assert playout.heard_at(second) == pytest.approx(0.18)
    assert playout.heard_ms(first, 0.11) == 90
    assert playout.heard_ms(second, 0.15) == 30


def test_what_was_once_said_to_be_heard_is_not_taken_back() -> None:
    playout = Playout(8000)
    utterance = spoken(playout, 400)
    playout.due(0.0)
    assert playout.heard_ms(utterance, 0.08) == 80
    playout.due(0.09, backlog_ms=160)
    assert playout.heard_ms(utterance, 0.1) == 80


def test_nothing_is_due_where_nothing_waits() -> None:
    playout = Playout(8000)
    assert playout.next_due(0.0) is None
    assert playout.idle(0.0)
    utterance = playout.open()
    assert playout.next_due(0.0) is None
    playout.add(utterance, audio(300))
    assert playout.next_due(0.0) == 0.0
    assert not playout.idle(0.0)
    playout.due(0.0)
    assert playout.next_due(0.0) == pytest.approx(0.02)
    play(playout, 0.02, 0.2)
    assert playout.next_due(0.2) is None
    assert not playout.idle(0.2)
    assert playout.idle(0.31)


@pytest.mark.parametrize(("rate_hz", "frame_ms", "lead_ms"), [(11025, 10, 160), (8000, 20, 10)])
def test_impossible_settings_are_refused(rate_hz: int, frame_ms: int, lead_ms: int) -> None:
    with pytest.raises(ValueError, match="ms"):
        Playout(rate_hz, frame_ms=frame_ms, lead_ms=lead_ms)


@pytest.mark.parametrize("phase_ms", range(0, 20, 2))
def test_an_uneven_ticker_sends_one_frame_a_tick_whatever_its_phase(phase_ms: int) -> None:
    playout = Playout(8000, lead_ms=160)
    utterance = playout.open()
    playout.add(utterance, bytes(16000 * 8))
    playout.due(100.0)  # a lead, at the moment the audio came
    rng = random.Random(phase_ms)
    sent = []
    for tick in range(1, 300):
        now = 100.0 + tick * 0.02 - phase_ms / 1000 + rng.uniform(-0.0015, 0.0015)
        sent.append(len(playout.due(now, ticks=True)))
    assert set(sent[5:]) == {1}


def test_what_leaves_early_for_the_sake_of_even_steps_is_no_more_than_a_frame_ahead() -> None:
    playout = Playout(8000, lead_ms=160)
    utterance = playout.open()
    playout.add(utterance, bytes(16000 * 8))
    playout.due(100.0)
    for step in range(1, 4000):  # a ticker gone mad: every millisecond
        playout.due(100.0 + step / 1000, ticks=True)
        assert playout.sounds_until - (100.0 + step / 1000) <= 0.160 + 0.001 + 0.015 + 1e-9
