from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dueto.audio import pcm
from dueto.audio.resample import RATES_HZ, Resampler, resample_all

PAIRS = list(permutations(RATES_HZ, 2))
DOWN = [(high, low) for high, low in PAIRS if high > low]
UP = [(low, high) for low, high in PAIRS if high > low]
every_pair = pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)


def in_frames(data: bytes, from_hz: int, to_hz: int) -> bytes:
    """Resample frame by frame, as a call does, and leave out the first 100 ms."""
    resampler = Resampler(from_hz, to_hz)
    out = [resampler.process(frame) for frame in pcm.frames(data, from_hz)]
    return b"".join(out[5:])


def array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.int64)


def rest_after_tone(data: bytes, rate_hz: int, hz: float) -> float:
    """Return the level of what remains when the best sine at `hz` is taken out: noise, clicks, images."""
    samples = array(data).astype(float)
    turn = 2 * np.pi * hz / rate_hz * np.arange(len(samples))
    basis = np.stack([np.sin(turn), np.cos(turn)], axis=1)
    fit, *_ = np.linalg.lstsq(basis, samples, rcond=None)
    return 20 * np.log10(np.abs(samples - basis @ fit).max() / 32768)


@every_pair
def test_a_20_ms_frame_becomes_a_20_ms_frame_every_time(from_hz: int, to_hz: int) -> None:
    resampler = Resampler(from_hz, to_hz)
    sizes = {len(resampler.process(pcm.silence(from_hz))) for _ in range(10)}
    assert sizes == {pcm.frame_bytes(to_hz)}


@every_pair
def test_a_1_khz_tone_keeps_its_level_and_joints_make_no_click(from_hz: int, to_hz: int) -> None:
    out = in_frames(pcm.tone(from_hz, 1000, 1000, dbfs=-6), from_hz, to_hz)
    assert pcm.level_at(out, to_hz, 1000) == pytest.approx(-6, abs=0.02)
    assert rest_after_tone(out, to_hz, 1000) < -62


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.8, 0.85])
@every_pair
def test_the_pass_band_is_flat(from_hz: int, to_hz: int, part: float) -> None:
    hz = part * min(from_hz, to_hz) / 2
    out = in_frames(pcm.tone(from_hz, 1000, hz, dbfs=-6), from_hz, to_hz)
    assert pcm.level_at(out, to_hz, hz) == pytest.approx(-6, abs=0.02)


@pytest.mark.parametrize("part", [0.0, 0.02, 0.1, 0.37, 0.9])
@pytest.mark.parametrize(("from_hz", "to_hz"), DOWN)
def test_what_the_lower_rate_cannot_carry_is_58_db_down(from_hz: int, to_hz: int, part: float) -> None:
    hz = to_hz / 2 + part * (from_hz - to_hz) / 2
    out = in_frames(pcm.tone(from_hz, 1000, hz + 1, dbfs=-1), from_hz, to_hz)
    assert pcm.rms_dbfs(out) < -4.01 - 58


@pytest.mark.parametrize("part", [0.1, 0.5, 0.85])
@pytest.mark.parametrize(("from_hz", "to_hz"), UP)
def test_mirror_images_are_58_db_down(from_hz: int, to_hz: int, part: float) -> None:
    hz = part * from_hz / 2
    out = in_frames(pcm.tone(from_hz, 1000, hz, dbfs=0), from_hz, to_hz)
    for image in np.arange(from_hz, to_hz / 2 + from_hz, from_hz):
        for mirrored in (image - hz, image + hz):
            if mirrored < to_hz / 2:
                assert pcm.level_at(out, to_hz, mirrored) < -58


@every_pair
def test_an_impulse_comes_out_after_the_stated_delay(from_hz: int, to_hz: int) -> None:
    resampler = Resampler(from_hz, to_hz)
    impulse = np.zeros(from_hz // 10, "<i2")
    impulse[from_hz // 50] = 20000
    out = array(resampler.process(impulse.tobytes()))
    late = np.abs(out).argmax() - to_hz // 50
    assert late * 1000 / to_hz == pytest.approx(resampler.delay_ms)
    assert resampler.delay_ms <= 3


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(PAIRS),
    st.lists(st.integers(1, 3000), max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_any_cut_of_the_stream_sounds_the_same(pair: tuple[int, int], sizes: list[int], seed: int) -> None:
    from_hz, to_hz = pair
    total = 2 * (sum(sizes) // 2)
    data = np.random.default_rng(seed).integers(-32768, 32768, total // 2).astype("<i2").tobytes()
    whole = array(Resampler(from_hz, to_hz).process(data))
    resampler, at, pieces = Resampler(from_hz, to_hz), 0, []
    for size in sizes:
        pieces.append(resampler.process(data[at : at + size]))
        at += size
    cut = array(b"".join(pieces))
    assert len(cut) == len(whole) == total // 2 // (from_hz // 1000) * (to_hz // 1000)
    assert np.abs(cut - whole).max(initial=0) <= 1  # sums in another order may round the other way


@every_pair
def test_a_whole_utterance_is_neither_shifted_nor_cut(from_hz: int, to_hz: int) -> None:
    out = array(resample_all(pcm.tone(from_hz, 333, 700, dbfs=-6), from_hz, to_hz))
    wanted = array(pcm.tone(to_hz, 333, 700, dbfs=-6))
    assert abs(len(out) - len(wanted)) <= 1
    middle = slice(to_hz // 50, len(wanted) - to_hz // 50)
    assert np.abs(out[middle] - wanted[middle]).max() < 30


def test_the_end_of_a_whole_utterance_is_kept() -> None:
    loud_at_the_end = bytes(2 * 1600) + pcm.tone(16000, 5, 1000)
    out = resample_all(loud_at_the_end + b"\1", 16000, 8000)
    assert len(out) == len(loud_at_the_end) // 2
    assert pcm.peak_dbfs(out[-80:]) > -16
    assert resample_all(b"", 8000, 16000) == b""


@every_pair
def test_a_constant_level_stays_constant(from_hz: int, to_hz: int) -> None:
    out = in_frames(np.full(from_hz // 5, 12345, "<i2").tobytes(), from_hz, to_hz)
    assert set(array(out)) == {12345}


@every_pair
def test_overshoot_is_clipped_instead_of_turning_over(from_hz: int, to_hz: int) -> None:
    square = np.where(np.arange(from_hz) // (from_hz // 100) % 2, 32767, -32768).astype("<i2")
    out = array(in_frames(square.tobytes(), from_hz, to_hz))
    steps = np.abs(np.diff(out)) > 40000
    assert out.max() == 32767
    assert out.min() == -32768
    assert not np.any(np.abs(np.diff(out[1:])[steps[:-1]]) > 40000)


def test_equal_rates_hand_back_the_very_same_frame() -> None:
    frame = pcm.tone(11025, 20, 440)
    assert Resampler(11025, 11025).process(frame) is frame
    assert resample_all(frame, 11025, 11025) is frame
    assert Resampler(8000, 8000).delay_ms == 0
    Resampler(8000, 8000).reset()


def test_a_reset_forgets_the_sound_before() -> None:
    resampler = Resampler(16000, 8000)
    resampler.process(pcm.tone(16000, 20, 440) + b"\1\2\3")
    resampler.reset()
    assert resampler.process(pcm.silence(16000)) == pcm.silence(8000)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 11025), (44100, 8000), (0, 8000)])
def test_rates_it_does_not_know_are_refused(from_hz: int, to_hz: int) -> None:
    with pytest.raises(ValueError, match="each must be one of"):
        Resampler(from_hz, to_hz)
