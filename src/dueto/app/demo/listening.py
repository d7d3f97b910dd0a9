"""What can be told from a recording: how loud it was when, and whether it is an echo. All L16 mono."""

import numpy as np
from numpy.typing import NDArray

FRAME_S = 0.02
LOUD = 600
"A peak above this (of 32768; -35 dBFS) is a sound, below it silence."
_WINDOW_S = 0.4
_LONGEST_ECHO_S = 4.0
_ALIKE = 0.8
"Of 1.0: how much of a window must come back unchanged. Resampling there and back leaves more than 0.95."


def peaks(pcm: bytes, rate_hz: int) -> NDArray[np.int32]:
    """Return the loudest sample, 0 to 32768, of every 20 ms."""
    size = int(rate_hz * FRAME_S)
    samples = np.abs(np.frombuffer(pcm, "<i2").astype(np.int32))
    whole = len(samples) // size * size
    loudest: NDArray[np.int32] = samples[:whole].reshape(-1, size).max(axis=1) if whole else np.zeros(0, np.int32)
    return loudest


def sounding_s(pcm: bytes, rate_hz: int, from_s: float = 0.0) -> float:
    """Return for how many seconds something is to be heard, from `from_s` on."""
    return float((peaks(pcm, rate_hz)[int(max(from_s, 0.0) / FRAME_S) :] > LOUD).sum()) * FRAME_S


def echoes(said: bytes, heard: bytes, rate_hz: int) -> bool:
    """Return whether most of what was said came back within 4 s: looked for in pieces, which may be late unevenly."""
    voice, back = (np.frombuffer(pcm, "<i2").astype(np.float64) for pcm in (said, heard))
    size, reach = int(_WINDOW_S * rate_hz), int(_LONGEST_ECHO_S * rate_hz)
    found = []
    for at in range(0, len(voice) - size, size):
        window = voice[at : at + size]
        if np.abs(window).max() > 4 * LOUD:
            found.append(_likeness(window, back[at : at + size + reach]) > _ALIKE)
    return bool(found) and sum(found) * 2 > len(found)


def _likeness(window: NDArray[np.float64], among: NDArray[np.float64]) -> float:
    """Return the best normalised correlation (0 to 1) of `window` at any place of `among`."""
    if len(among) < len(window):
        return 0.0
    length = 1 << (len(among) + len(window)).bit_length()
    product = np.fft.rfft(among, length) * np.conj(np.fft.rfft(window, length))
    places = len(among) - len(window) + 1
    matches = np.fft.irfft(product, length)[:places]
    sums = np.concatenate(([0.0], np.cumsum(among**2)))
    energies = sums[len(window) :] - sums[: -len(window)]
    return float((matches / np.sqrt(np.maximum(energies * (window**2).sum(), 1.0))).max())
