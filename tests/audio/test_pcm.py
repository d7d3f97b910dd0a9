import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.audio import pcm
from dueto.errors import LocalProtocolError

samples = st.lists(st.integers(-32768, 32767), max_size=400)


def l16(values: list[int]) -> bytes:
    return np.array(values, "<i2").tobytes()


def values(data: bytes) -> list[int]:
    return list(np.frombuffer(data, "<i2"))


@pytest.mark.parametrize(("rate_hz", "size"), [(8000, 320), (16000, 640), (24000, 960), (32000, 1280), (48000, 1920)])
def test_a_frame_is_20_ms_of_16_bit_samples(rate_hz: int, size: int) -> None:
    assert pcm.frame_bytes(rate_hz) == size
    assert pcm.duration_ms(pcm.silence(rate_hz), rate_hz) == 20
    assert pcm.frame_bytes(rate_hz, 60) == 3 * size


def test_a_frame_that_would_cut_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of samples"):
        pcm.frame_bytes(11025, 10)


def test_padding_fills_the_last_frame_and_leaves_full_ones_alone() -> None:
    whole = pcm.tone(8000, 40, 440)
    assert pcm.pad_to_frames(whole, 8000) is whole
    assert pcm.pad_to_frames(whole + b"\1\2", 8000) == whole + b"\1\2" + bytes(318)
    assert pcm.pad_to_frames(b"", 8000) == b""


@given(st.binary(max_size=2000))
def test_frames_put_together_are_the_padded_audio(data: bytes) -> None:
    cut = list(pcm.frames(data, 8000))
    assert all(len(frame) == 320 for frame in cut)
    assert b"".join(cut) == pcm.pad_to_frames(data, 8000)


def test_gain_clips_instead_of_turning_over() -> None:
    assert values(pcm.gain(l16([20000, -20000, 100, 0]), 6.0206)) == [32767, -32768, 200, 0]
    assert values(pcm.gain(l16([20000, -20000]), -6.0206)) == [10000, -10000]


@given(samples, samples)
def test_a_mix_is_the_clipped_sum_as_long_as_the_longer(first: list[int], second: list[int]) -> None:
    size = max(len(first), len(second))
    padded = [part + [0] * (size - len(part)) for part in (first, second)]
    wanted = [max(-32768, min(32767, a + b)) for a, b in zip(*padded, strict=True)]
    assert values(pcm.mix(l16(first), l16(second))) == wanted


def test_levels_are_those_of_a_full_scale_sine() -> None:
    sine = pcm.tone(8000, 1000, 440, dbfs=0)
    assert pcm.peak_dbfs(sine) == pytest.approx(0, abs=0.01)
    assert pcm.rms_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert pcm.peak_dbfs(l16([-32768])) == 0
    for nothing in (b"", bytes(320)):
        assert pcm.rms_dbfs(nothing) == pcm.peak_dbfs(nothing) == -math.inf


def test_a_tone_is_found_at_its_own_frequency_only() -> None:
    sound = pcm.mix(pcm.tone(8000, 200, 440, dbfs=-20), pcm.tone(8000, 200, 1000, dbfs=-30))
    assert pcm.level_at(sound, 8000, 440) == pytest.approx(-20, abs=0.05)
    assert pcm.level_at(sound, 8000, 1000) == pytest.approx(-30, abs=0.05)
    assert pcm.level_at(sound, 8000, 700) < -90
    assert pcm.level_at(b"", 8000, 700) == -math.inf


def test_a_tone_made_in_pieces_is_the_tone_made_at_once() -> None:
    pieces = [pcm.tone(8000, 20, 441.3, start_ms=20 * n) for n in range(10)]
    assert b"".join(pieces) == pcm.tone(8000, 200, 441.3)


@given(samples, samples)
def test_stereo_splits_into_what_was_joined(left: list[int], right: list[int]) -> None:
    size = max(len(left), len(right))
    stereo = pcm.join_stereo(l16(left), l16(right))
    assert pcm.split_stereo(stereo) == tuple(l16(part + [0] * (size - len(part))) for part in (left, right))


def test_stereo_with_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        pcm.split_stereo(bytes(6))


@given(samples, st.sampled_from([8000, 16000, 48000]), st.sampled_from([1, 2]))
def test_a_wav_reads_back_as_written(one: list[int], rate_hz: int, channels: int) -> None:
    data = l16(one * channels)
    wav = pcm.read_wav(pcm.write_wav(data, rate_hz, channels))
    assert wav == pcm.Wav(data, rate_hz, channels)
    assert wav.duration_ms == pytest.approx(len(one) * 1000 / rate_hz)


def test_a_wav_that_is_cut_off_gives_what_is_there() -> None:
    whole = pcm.write_wav(pcm.tone(8000, 100, 440), 8000)
    assert pcm.read_wav(whole[:-101]).pcm == pcm.tone(8000, 100, 440)[:-102]


@pytest.mark.parametrize("data", [b"", b"RIFF", b"no wav at all, and much longer than a header would be", bytes(1000)])
def test_what_is_no_wav_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(LocalProtocolError, match=r"not a PCM WAV file: \w"):
        pcm.read_wav(data)


def test_a_wav_of_another_width_or_codec_is_refused() -> None:
    whole = bytearray(pcm.write_wav(bytes(320), 8000))
    eight_bits = whole.copy()
    eight_bits[34] = 8
    eight_bits[32] = 1
    with pytest.raises(LocalProtocolError, match="8 bits"):
        pcm.read_wav(bytes(eight_bits))
    mulaw = whole.copy()
    mulaw[20] = 7
    with pytest.raises(LocalProtocolError, match="7"):
        pcm.read_wav(bytes(mulaw))
