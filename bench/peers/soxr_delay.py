"""How much soxr HQ holds back of what went in, and how even its frames are: one line of JSON."""

import json

import numpy
import soxr
from _line import say


def delay(from_hz: int, to_hz: int) -> tuple[float, float]:
    """Return what the stream holds back when a 20 ms frame has gone in (on average, in ms), and its unevenness."""
    stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="int16")
    frame, given, taken, held, sizes = numpy.zeros(from_hz // 50, numpy.int16), 0.0, 0.0, [], []
    for _ in range(200):
        out = len(stream.resample_chunk(frame))
        given, taken = given + 20, taken + out * 1000 / to_hz
        held.append(given - taken)
        sizes.append(out * 1000 / to_hz)
    return sum(held[20:]) / len(held[20:]), max(sizes[20:]) - min(sizes[20:])


say(json.dumps({f"{a}>{b}": delay(a, b) for a, b in ((16000, 24000), (24000, 16000), (8000, 24000), (24000, 8000))}))
