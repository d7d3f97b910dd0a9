"""A listener at the caller's end: what of a known sound was heard, in what order, and with what gaps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dueto.audio import resample_all

Samples = npt.NDArray[np.float64]
RATE_HZ = 8000
SILENT = 60
"Samples below this (of 32768) are silence."
SHORTEST_GAP = 40
"Samples: 5 ms. A sound of 300 Hz is quiet for less around each zero."
SEARCH = 800
"Samples by which a stretch may begin earlier or later than the one before it ended."


def sweep(rate_hz: int, seconds: float, *, from_hz: float = 300.0, to_hz: float = 3000.0) -> bytes:
    """L16 whose pitch tells where in it one is."""
    t = np.arange(round(rate_hz * seconds)) / rate_hz
    phase = 2 * np.pi * (from_hz * t + (to_hz - from_hz) / (2 * seconds) * t * t)
    return bytes((8000 * np.sin(phase)).astype("<i2").tobytes())


@dataclass(frozen=True)
class Heard:
    """What of a sound was heard."""

    first_ms: float
    "Where in the sound the hearing began."
    last_ms: float
    gaps_ms: tuple[float, ...]
    "Silences in the middle."
    missing_ms: float
    "Lost at those gaps; negative: heard twice."
    off_db: float
    "Level, as heard and as meant."
    worst_error: float
    "The largest difference within 20 ms, as a share of the level: 0 is perfect, a frame out of place is over 1."


def compare(heard: bytes, sound: bytes, rate_hz: int) -> Heard:
    """Find `sound` (L16 at `rate_hz`) in what was `heard` (8 kHz), best one whose pitch tells where in it one is."""
    meant = _samples(resample_all(sound, rate_hz, RATE_HZ))
    got = _samples(heard)
    stretches = _stretches(got)
    if not stretches:
        return Heard(0.0, 0.0, (), len(meant) / 8, float("-inf"), float("inf"))
    expected, first, missing, worst, gaps = 0, -1, 0, 0.0, []
    energy = np.zeros(2)
    before_end = 0
    for start, end in stretches:
        piece = got[start:end]
        at = _find(piece, meant, expected)
        if first < 0:
            first = at
        else:
            gaps.append((start - before_end) / 8)
            missing += at - expected
        wanted = meant[at : at + len(piece)]
        piece = piece[: len(wanted)]
        edge = min(32, len(piece) // 4)  # where a resampler rings
        worst = max(worst, _worst(piece[edge:-edge], wanted[edge:-edge]))
        energy += (np.square(piece).sum(), np.square(wanted).sum())
        expected, before_end = at + len(piece), end
    return Heard(first / 8, expected / 8, tuple(gaps), missing / 8, float(10 * np.log10(energy[0] / energy[1])), worst)


def ends_at(heard: bytes) -> int:
    """The number of the last sample that is no silence."""
    loud = np.flatnonzero(np.abs(_samples(heard)) > SILENT)
    return int(loud[-1]) if len(loud) else 0


def _samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def _stretches(got: Samples) -> list[tuple[int, int]]:
    loud = np.flatnonzero(np.abs(got) > SILENT)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > SHORTEST_GAP)
    starts = [int(loud[0]), *(int(loud[at + 1]) for at in breaks)]
    ends = [*(int(loud[at]) + 1 for at in breaks), int(loud[-1]) + 1]
    return list(zip(starts, ends, strict=True))


def _find(piece: Samples, meant: Samples, expected: int) -> int:
    """Where in `meant` the piece begins, near where it should."""
    probe = piece[: min(len(piece), 1600)]
    lowest = max(expected - SEARCH, 0)
    field = meant[lowest : expected + SEARCH + len(probe)]
    if len(field) < len(probe):
        return lowest
    match = np.correlate(field, probe, "valid")
    power = np.convolve(np.square(field), np.ones(len(probe)), "valid")
    return lowest + int(np.argmax(match / np.sqrt(power + 1)))


def _worst(piece: Samples, wanted: Samples) -> float:
    whole = len(piece) // 160 * 160
    if not whole:
        return 0.0
    error = np.square(piece[:whole] - wanted[:whole]).reshape(-1, 160).mean(axis=1)
    level = np.square(wanted[:whole]).reshape(-1, 160).mean(axis=1)
    return float(np.sqrt((error / (level + 1)).max()))
