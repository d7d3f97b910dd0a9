from collections.abc import Callable

import numpy as np
import pytest

from dueto.audio import g711

Coder = Callable[[bytes], bytes]
CODECS = [
    pytest.param(g711.ulaw_encode, g711.ulaw_decode, id="PCMU"),
    pytest.param(g711.alaw_encode, g711.alaw_decode, id="PCMA"),
]
EVERY_SAMPLE = np.arange(-32768, 32768)
EVERY_CODE = bytes(range(256))


def encoded(encode: Coder) -> np.ndarray:
    return np.frombuffer(encode(EVERY_SAMPLE.astype("<i2").tobytes()), np.uint8)


def decoded(decode: Coder) -> np.ndarray:
    return np.frombuffer(decode(EVERY_CODE), "<i2").astype(np.int64)


# The ends of the segments in G.711's tables 1a and 2a, as 16-bit samples.
@pytest.mark.parametrize(
    ("code", "sample"),
    [(0xFF, 0), (0xFE, 8), (0xF0, 120), (0xEF, 132), (0xE0, 372), (0xDF, 396), (0xA0, 7932), (0x90, 15996),
     (0x8F, 16764), (0x80, 32124), (0x7F, 0), (0x7E, -8), (0x00, -32124)],
)  # fmt: skip
def test_mulaw_codes_read_as_in_the_tables(code: int, sample: int) -> None:
    assert decoded(g711.ulaw_decode)[code] == sample


@pytest.mark.parametrize(
    ("code", "sample"),
    [(0xD5, 8), (0xDA, 248), (0xC5, 264), (0xCA, 504), (0xF5, 528), (0xE5, 1056), (0x80, 5504), (0xAA, 32256),
     (0x55, -8), (0x2A, -32256)],
)  # fmt: skip
def test_alaw_codes_read_as_in_the_tables(code: int, sample: int) -> None:
    assert decoded(g711.alaw_decode)[code] == sample


# Where the segments end, from the same tables (mu-law counts 14-bit samples, A-law 13-bit ones), and the steps in each.
ULAW_SEGMENTS = [(1, 31, 15), *((2**n - 33, 2 ** (n + 1) - 33, 16) for n in range(6, 13))]
ALAW_SEGMENTS = [(0, 64, 32), *((2**n, 2 ** (n + 1), 16) for n in range(6, 12))]


@pytest.mark.parametrize(
    ("encode", "unit", "segments", "first_code"),
    [
        pytest.param(g711.ulaw_encode, 4, ULAW_SEGMENTS, 1, id="PCMU"),
        pytest.param(g711.alaw_encode, 8, ALAW_SEGMENTS, 0, id="PCMA"),
    ],
)
def test_every_sample_gets_the_code_of_the_step_it_lies_in(
    encode: Coder, unit: int, segments: list[tuple[int, int, int]], first_code: int
) -> None:
    decisions = np.concatenate([np.linspace(low, high, steps, endpoint=False) for low, high, steps in segments]) * unit
    number = np.searchsorted(decisions, np.arange(32768), side="right") - 1 + first_code
    plain = ~encoded(encode)[32768:] if encode is g711.ulaw_encode else encoded(encode)[32768:] ^ 0x55
    assert np.array_equal(plain & 0x7F, number)


@pytest.mark.parametrize(
    ("decode", "period", "headroom_db"),
    [
        pytest.param(g711.ulaw_decode, "1E 0B 0B 1E 9E 8B 8B 9E", 3.17, id="PCMU"),
        pytest.param(g711.alaw_decode, "34 21 21 34 B4 A1 A1 B4", 3.14, id="PCMA"),
    ],
)
def test_the_reference_tone_of_the_standard_has_its_level(decode: Coder, period: str, headroom_db: float) -> None:
    samples = np.frombuffer(decode(bytes.fromhex(period)), "<i2").astype(float)
    overload = 8159 * 4 if decode is g711.ulaw_decode else 32768
    level = 20 * np.log10(np.sqrt(np.mean(samples**2)) / (overload / np.sqrt(2)))
    assert level == pytest.approx(-headroom_db, abs=0.01)


@pytest.mark.parametrize(("encode", "decode"), CODECS)
def test_codes_survive_being_read_and_written_again(encode: Coder, decode: Coder) -> None:
    again = bytearray(encode(decode(EVERY_CODE)))
    if encode is g711.ulaw_encode:
        assert again[0x7F] == 0xFF  # the negative zero is a zero
        again[0x7F] = 0x7F
    assert bytes(again) == EVERY_CODE


@pytest.mark.parametrize(("encode", "decode"), CODECS)
def test_the_ones_complement_differs_in_the_sign_bit_alone(encode: Coder, decode: Coder) -> None:
    codes = encoded(encode)
    assert np.array_equal(codes ^ 0x80, codes[::-1])


@pytest.mark.parametrize(("encode", "decode"), CODECS)
def test_louder_samples_never_read_softer(encode: Coder, decode: Coder) -> None:
    assert np.all(np.diff(decoded(decode)[encoded(encode)]) >= 0)


def test_the_signal_to_noise_ratio_of_a_tone_is_that_of_the_telephone() -> None:
    sine = 10000 * np.sin(np.arange(8000) * 0.3)
    for encode, decode in ((g711.ulaw_encode, g711.ulaw_decode), (g711.alaw_encode, g711.alaw_decode)):
        noise = np.frombuffer(decode(encode(sine.astype("<i2").tobytes())), "<i2") - sine
        assert 10 * np.log10(np.mean(sine**2) / np.mean(noise**2)) > 36


def test_silence_codes_are_those_of_zero() -> None:
    assert g711.ulaw_encode(bytes(2)) == bytes([g711.ULAW_SILENCE])
    assert g711.alaw_encode(bytes(2)) == bytes([g711.ALAW_SILENCE])


@pytest.mark.parametrize(("encode", "decode"), CODECS)
def test_half_a_sample_is_refused(encode: Coder, decode: Coder) -> None:
    assert encode(b"") == decode(b"") == b""
    with pytest.raises(ValueError, match="multiple of element size"):
        encode(b"\0\0\0")
