"""L16 audio: signed 16-bit samples, little-endian. Mono unless a name says otherwise; levels in dBFS.

0 dBFS is an amplitude of 32768, so a full-scale sine has a peak of 0 and an RMS of -3.01 dBFS. Everything that takes
L16 expects whole samples; `ValueError` tells of half ones.
"""

import io
import math
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dueto.errors import LocalProtocolError

FRAME_MS: Final = 20
"The length of a telephone's audio packet, and of every frame inside dueto."
FULL_SCALE: Final = 32768

Samples = npt.NDArray[np.int16]


def frame_bytes(rate_hz: int, ms: int = FRAME_MS) -> int:
    """Return the size of `ms` of audio: 20 ms at 8000 Hz is 320 bytes.

    Raises: ValueError: that is not a whole number of samples.
    """
    samples, over = divmod(rate_hz * ms, 1000)
    if over:
        raise ValueError(f"{ms} ms at {rate_hz} Hz is not a whole number of samples")
    return 2 * samples


def duration_ms(pcm: bytes, rate_hz: int) -> float:
    """Return how long `pcm` plays, in ms."""
    return len(pcm) * 500 / rate_hz


def silence(rate_hz: int, ms: int = FRAME_MS) -> bytes:
    """Return `ms` of digital silence."""
    return bytes(frame_bytes(rate_hz, ms))


def pad_to_frames(pcm: bytes, rate_hz: int, ms: int = FRAME_MS) -> bytes:
    """Return `pcm` with silence after it up to the end of its last frame; `pcm` itself where that is full."""
    missing = -len(pcm) % frame_bytes(rate_hz, ms)
    return pcm + bytes(missing) if missing else pcm


def frames(pcm: bytes, rate_hz: int, ms: int = FRAME_MS) -> Iterator[bytes]:
    """Cut `pcm` into frames; the last one is filled up with silence."""
    size = frame_bytes(rate_hz, ms)
    for at in range(0, len(pcm), size):
        yield pcm[at : at + size].ljust(size, b"\0")


def gain(pcm: bytes, db: float) -> bytes:
    """Return `pcm` louder by `db` (negative: softer); what passes full scale is clipped."""
    return _clipped(_samples(pcm) * 10.0 ** (db / 20))


def mix(first: bytes, *others: bytes) -> bytes:
    """Return the sum of all, as long as the longest; what passes full scale is clipped."""
    total = np.zeros(max(len(pcm) for pcm in (first, *others)) // 2, np.int64)
    for pcm in (first, *others):
        total[: len(pcm) // 2] += _samples(pcm)
    return _clipped(total)


def rms_dbfs(pcm: bytes) -> float:
    """Return the RMS level in dBFS; minus infinity for silence and for nothing."""
    samples = _samples(pcm).astype(np.float64)
    return _db(math.sqrt(np.mean(samples * samples)) / FULL_SCALE) if samples.size else -math.inf


def peak_dbfs(pcm: bytes) -> float:
    """Return the peak level in dBFS; minus infinity for silence and for nothing."""
    samples = _samples(pcm).astype(np.int32)
    return _db(int(np.abs(samples).max()) / FULL_SCALE) if samples.size else -math.inf


def tone(rate_hz: int, ms: float, hz: float, dbfs: float = -12.0, start_ms: float = 0.0) -> bytes:
    """Return `ms` of a sine whose peak is at `dbfs`; `start_ms` continues one that already ran that long."""
    n = np.arange(round(rate_hz * ms / 1000)) + rate_hz * start_ms / 1000
    return _clipped(FULL_SCALE * 10.0 ** (dbfs / 20) * np.sin(2 * np.pi * hz / rate_hz * n))


def level_at(pcm: bytes, rate_hz: int, hz: float) -> float:
    """Return the peak level in dBFS of the sine at `hz` in `pcm`, what `tone` took as `dbfs`. For measuring.

    A Hann window keeps other tones out: more than 70 dB from one that is 10 or more periods of `pcm`'s length away.
    """
    samples = _samples(pcm).astype(np.float64)
    if not samples.size:
        return -math.inf
    window = 1 - np.cos(2 * np.pi * (np.arange(samples.size) + 0.5) / samples.size)
    turn = np.exp(-2j * np.pi * hz / rate_hz * np.arange(samples.size))
    return _db(2 * abs(complex(np.mean(samples * window * turn))) / FULL_SCALE)


def split_stereo(pcm: bytes) -> tuple[bytes, bytes]:
    """Return the left and the right channel of interleaved stereo.

    Raises: ValueError: it does not end with a whole pair of samples.
    """
    pairs = _samples(pcm).reshape(-1, 2)
    return pairs[:, 0].tobytes(), pairs[:, 1].tobytes()


def join_stereo(left: bytes, right: bytes) -> bytes:
    """Return both channels interleaved, as long as the longer one."""
    pairs = np.zeros((max(len(left), len(right)) // 2, 2), "<i2")
    pairs[: len(left) // 2, 0] = _samples(left)
    pairs[: len(right) // 2, 1] = _samples(right)
    return pairs.tobytes()


@dataclass(frozen=True, slots=True)
class Wav:
    """What a WAV file holds."""

    pcm: bytes
    "L16; interleaved where `channels` is 2."
    rate_hz: int
    channels: int

    @property
    def duration_ms(self) -> float:
        """How long it plays."""
        return duration_ms(self.pcm, self.rate_hz) / self.channels


def read_wav(data: bytes) -> Wav:
    """Read a WAV file: 16-bit PCM, mono or stereo, any rate. A cut-off file gives what is there.

    Raises: LocalProtocolError: it is no WAV file, or one of another format; the text says which.
    """
    try:
        with wave.open(io.BytesIO(data), "rb") as file:
            channels, width, rate_hz = file.getnchannels(), file.getsampwidth(), file.getframerate()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError, RuntimeError) as error:
        raise LocalProtocolError(f"not a PCM WAV file: {str(error) or 'its header is cut off'}") from error
    if width != 2 or channels not in (1, 2) or rate_hz <= 0:
        text = f"WAV of {channels} channels, {8 * width} bits, {rate_hz} Hz; 16 bits, mono or stereo is wanted"
        raise LocalProtocolError(text)
    return Wav(pcm[: len(pcm) - len(pcm) % (2 * channels)], rate_hz, channels)


def write_wav(pcm: bytes, rate_hz: int, channels: int = 1) -> bytes:
    """Return a WAV file of L16 audio (interleaved for `channels=2`)."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    return out.getvalue()


def _samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2")


def _clipped(samples: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> bytes:
    return np.clip(np.rint(samples), -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes()


def _db(ratio: float) -> float:
    return 20 * math.log10(ratio) if ratio > 0 else -math.inf
