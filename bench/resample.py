"""Microseconds per 20 ms and delay of the resampler, for every pair of rates. Run: python bench/resample.py

In frames of 20 ms, as a telephone sends them, and in pieces of 100 ms, as providers do.

The delay is measured: an impulse goes in frame by frame, and the peak of what comes out is looked for.
"""

import time
from itertools import permutations

import numpy as np

from dueto.audio.pcm import FRAME_MS, frame_bytes, frames
from dueto.audio.resample import RATES_HZ, Resampler

ROUNDS = 7
FRAMES = 300


def frame_us(from_hz: int, to_hz: int, ms: int = FRAME_MS) -> float:
    """Return the time 20 ms take in pieces of `ms`: the best of several rounds, as the machine is busy."""
    resampler = Resampler(from_hz, to_hz)
    noise = np.random.default_rng(7).integers(-9000, 9000, frame_bytes(from_hz, ms) // 2).astype("<i2").tobytes()
    best_s = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(FRAMES):
            resampler.process(noise)
        best_s = min(best_s, time.perf_counter() - began)
    return best_s / FRAMES * 1e6 * FRAME_MS / ms


def delay_ms(from_hz: int, to_hz: int) -> float:
    """Return how much later the peak of an impulse comes out than it went in."""
    at = from_hz // 50
    impulse = np.zeros(from_hz // 10, "<i2")
    impulse[at] = 20000
    resampler = Resampler(from_hz, to_hz)
    out = b"".join(resampler.process(frame) for frame in frames(impulse.tobytes(), from_hz))
    peak = int(np.abs(np.frombuffer(out, "<i2").astype(np.int32)).argmax())
    return peak * 1000 / to_hz - at * 1000 / from_hz


def main() -> None:
    """Print the table."""
    print(f"{'from Hz':>8} {'to Hz':>8} {'us/20 ms':>9} {'in 100 ms':>9} {'delay ms':>9}")
    for from_hz, to_hz in permutations(RATES_HZ, 2):
        frame, piece = frame_us(from_hz, to_hz), frame_us(from_hz, to_hz, 100)
        print(f"{from_hz:8} {to_hz:8} {frame:9.1f} {piece:9.1f} {delay_ms(from_hz, to_hz):9.2f}")


if __name__ == "__main__":
    main()
