"""PCMU and PCMA, the telephone's two codecs: one byte per sample, to and from L16 (little-endian). ITU-T G.711.

Mu-law looks at the upper 14 bits of a sample, A-law at the upper 13. Negative samples are taken by their ones'
complement, as in the ITU's reference program (G.191), so that the code of `~x` is the code of `x` with the sign
turned. (Older programs shift a negative sample before they take its magnitude; they differ by one step in 508 places.)
"""

from typing import Final

import numpy as np
import numpy.typing as npt

ULAW_SILENCE: Final = 0xFF
"The mu-law code of 0. There is a negative zero, too: 0x7F."
ALAW_SILENCE: Final = 0xD5
"The A-law code next to 0, which A-law does not have: it reads as 8."

Codes = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.int16]


def ulaw_encode(pcm: bytes) -> bytes:
    """Turn L16 into PCMU.

    Raises: ValueError: half a sample at the end.
    """
    return _ULAW_ENCODE.take(np.frombuffer(pcm, "<u2")).tobytes()


def ulaw_decode(codes: bytes) -> bytes:
    """Turn PCMU into L16."""
    return _ULAW_DECODE.take(np.frombuffer(codes, np.uint8)).tobytes()


def alaw_encode(pcm: bytes) -> bytes:
    """Turn L16 into PCMA.

    Raises: ValueError: half a sample at the end.
    """
    return _ALAW_ENCODE.take(np.frombuffer(pcm, "<u2")).tobytes()


def alaw_decode(codes: bytes) -> bytes:
    """Turn PCMA into L16."""
    return _ALAW_DECODE.take(np.frombuffer(codes, np.uint8)).tobytes()


def _every_sample() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the magnitude and the sign of each sample, in the order of its 16 bits read as unsigned."""
    bits = np.arange(0x10000)
    negative = bits >= 0x8000
    return np.where(negative, 0xFFFF - bits, bits), negative


def _ulaw_encode_table() -> Codes:
    magnitude, negative = _every_sample()
    biased = np.minimum((magnitude >> 2) + 33, 0x1FFF)  # 33 makes every segment begin at a power of two, from 32 on
    segment = np.log2(biased).astype(np.int64) - 5
    step = (biased >> (segment + 1)) & 0x0F
    codes: npt.NDArray[np.int64] = np.where(negative, 0x7F, 0xFF) ^ (segment << 4 | step)
    return codes.astype(np.uint8)


def _ulaw_decode_table() -> Samples:
    code = ~np.arange(256) & 0xFF
    segment, step = code >> 4 & 7, code & 0x0F
    magnitude = ((2 * step + 33 << segment) - 33) << 2
    return np.where(code & 0x80, -magnitude, magnitude).astype("<i2")


def _alaw_encode_table() -> Codes:
    magnitude, negative = _every_sample()
    level = magnitude >> 4
    segment = np.log2(np.maximum(level, 16)).astype(np.int64) - 3  # 0 is linear with the steps of segment 1
    segment = np.where(level < 16, 0, segment)
    step = (level >> np.maximum(segment - 1, 0)) & 0x0F
    codes: npt.NDArray[np.int64] = np.where(negative, 0x00, 0x80) ^ (segment << 4 | step) ^ 0x55
    return codes.astype(np.uint8)


def _alaw_decode_table() -> Samples:
    code = np.arange(256) ^ 0x55
    segment, step = code >> 4 & 7, code & 0x0F
    magnitude = np.where(segment == 0, 2 * step + 1 << 3, 2 * step + 33 << np.maximum(segment, 1) + 2)
    return np.where(code & 0x80, magnitude, -magnitude).astype("<i2")


_ULAW_ENCODE: Final = _ulaw_encode_table()
_ULAW_DECODE: Final = _ulaw_decode_table()
_ALAW_ENCODE: Final = _alaw_encode_table()
_ALAW_DECODE: Final = _alaw_decode_table()
