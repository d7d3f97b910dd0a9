"""Two tracks on one time line."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dueto.audio.pcm import split_stereo
from dueto.audio.tracks import TwoTracks

RATE_HZ = 8000
FRAME = 160


def frame(value: int, frames: int = 1) -> bytes:
    return np.full(FRAME * frames, value, "<i2").tobytes()


def tracks(stereo: bytes) -> tuple[list[int], list[int]]:
    """The value of each 20 ms of both tracks."""
    left, right = (np.frombuffer(one, "<i2") for one in split_stereo(stereo))
    return left[::FRAME].tolist(), right[::FRAME].tolist()


def test_caller_and_agent_stand_beside_each_other_and_silence_is_filled_in() -> None:
    line = TwoTracks(RATE_HZ, 100.0)
    line.caller(frame(1, 2), 100.0)
    line.agent(frame(2, 2), 100.04)
    assert tracks(line.take(100.1)) == ([1, 1, 0, 0, 0], [0, 0, 2, 2, 0])


def test_uneven_frames_of_the_caller_follow_each_other_without_a_hole() -> None:
    line = TwoTracks(RATE_HZ, 0.0)
    for number, jitter in enumerate((0.0, 0.013, -0.004, 0.019, 0.002)):
        line.caller(frame(number + 1), number * 0.02 + jitter)
    assert tracks(line.take(0.1))[0] == [1, 2, 3, 4, 5]


def test_after_a_hold_the_burst_is_kept_behind_the_hole() -> None:
    line = TwoTracks(RATE_HZ, 0.0)
    line.caller(frame(1), 0.0)
    for _ in range(3):
        line.caller(frame(2), 1.0)
    left, _ = tracks(line.take(1.2))
    assert left[0] == 1
    assert left[1:50] == [0] * 49
    assert left[50:54] == [2, 2, 2, 0]


def test_a_caller_who_runs_ahead_for_good_is_kept_within_half_a_second() -> None:
    line = TwoTracks(RATE_HZ, 0.0)
    for _ in range(500):
        line.caller(frame(3), 0.0)
    left, _ = tracks(line.take(2.0))
    assert 25 <= left.count(3) <= 31


def test_what_was_cut_off_is_not_there() -> None:
    line = TwoTracks(RATE_HZ, 0.0)
    line.agent(frame(7, 10), 0.0)
    line.cut(0.06)
    line.agent(frame(8), 0.1)
    assert tracks(line.take(0.2))[1] == [7, 7, 7, 0, 0, 8, 0, 0, 0, 0]


def test_what_comes_after_it_was_taken_is_lost_and_the_rest_keeps_its_place() -> None:
    line = TwoTracks(RATE_HZ, 0.0)
    assert tracks(line.take(0.04)) == ([0, 0], [0, 0])
    line.agent(frame(5, 4), 0.0)
    assert tracks(line.take(0.1))[1] == [5, 5, 0]


@given(
    pieces=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=12),
    takes=st.lists(st.integers(0, 60), max_size=6),
)
def test_however_it_is_taken_it_is_as_long_as_the_time_that_passed(
    pieces: list[tuple[int, int]], takes: list[int]
) -> None:
    line = TwoTracks(RATE_HZ, 50.0)
    for start, length in pieces:
        line.agent(frame(1, length), 50.0 + start * 0.02)
        line.caller(frame(1, length), 50.0 + start * 0.02)
    taken = b"".join(line.take(50.0 + at * 0.02) for at in [*sorted(takes), 60])
    assert len(taken) == 60 * FRAME * 4
