"""Change the sampling rate of live audio: even frames, 0.75 to 3 ms of delay, no clicks where frames meet.

A linear-phase polyphase low-pass (Kaiser window), 48 samples of the lower rate long, as one matrix product per piece.
With N the Nyquist frequency of the lower rate (4 kHz where one side is 8 kHz):

    pass-band    up to 0.85 N (3.4 kHz): within 0.01 dB
    stop-band    from N on (4 kHz): at least 58 dB down, as alias (going down) and as image (going up)
    delay        24 samples of the lower rate: 3 ms at 8 kHz, 1.5 at 16, 1 at 24, 0.75 at 32
"""

import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from dueto.audio.pcm import FRAME_MS

RATES_HZ: Final = (8000, 16000, 24000, 32000, 48000)
"The rates that can be changed into each other."

_DELAY_SAMPLES: Final = 24
"Half the filter's length, in samples of the lower rate: a whole number of samples at the higher one, too."
_TRANSITION: Final = 0.15
"The part of the lower Nyquist band given to the filter's slope."
_MOST_BLOCKS: Final = 100
"Of 1 ms, per matrix product: what providers send at once. Half of a product's cost is that it is one."
_PRODUCT: Final = 1 << 18
"Multiplications per product at most: with more, BLAS starts threads."
_L16: Final = np.dtype("<i2")
_LOWEST, _HIGHEST = np.float32(-32768), np.float32(32767)

Floats = npt.NDArray[np.float32]


class Resampler:
    """Turns a stream of L16 (little-endian, mono) at `from_hz` into one at `to_hz`.

    A whole number of milliseconds in gives as many out, every time: a 20 ms frame becomes a 20 ms frame. What is over
    (a part of a millisecond) waits for the next call. One object per direction and call; not for two threads at once.

    Raises: ValueError: a rate that is not in `RATES_HZ`, unless both are the same.
    """

    __slots__ = ("_all_windows", "_block_bytes", "_fresh", "_head", "_input", "_kernel", "_most_bytes", "_rest",
                 "_size_bytes", "_tail", "_windows", "delay_ms", "from_hz", "to_hz")  # fmt: skip

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self.from_hz = from_hz
        self.to_hz = to_hz
        self.delay_ms: float = 0.0
        "What passing through here costs, the same at all frequencies."
        self._rest = b""
        self._size_bytes = -1
        if from_hz == to_hz:
            return
        if from_hz not in RATES_HZ or to_hz not in RATES_HZ:
            raise ValueError(f"can't resample {from_hz} Hz to {to_hz} Hz: each must be one of {RATES_HZ}")
        block = from_hz // 1000
        self.delay_ms = _DELAY_SAMPLES * 1000 / min(from_hz, to_hz)
        self._block_bytes = 2 * block
        self._kernel = _kernel(from_hz, to_hz)
        blocks = min(_MOST_BLOCKS, _PRODUCT // self._kernel.size)
        self._most_bytes = blocks * self._block_bytes
        width = len(self._kernel)
        history = width - block
        self._input: Floats = np.zeros(history + blocks * block, np.float32)
        step = self._input.itemsize
        self._all_windows = np.lib.stride_tricks.as_strided(
            self._input, shape=(blocks, width), strides=(block * step, step), writeable=False
        )
        self._head = self._input[:history]
        self._expect(FRAME_MS * self._block_bytes)

    def process(self, frame: bytes) -> bytes:
        """Return the next piece of the stream at `to_hz`. With equal rates: `frame` itself, the very same object."""
        if len(frame) != self._size_bytes or self._rest:
            return self._in_pieces(frame)
        self._fresh[...] = np.frombuffer(frame, _L16)  # nearly always, it has the size of the last one
        output: Floats = self._windows.copy().dot(self._kernel)  # BLAS does not take rows that overlap
        self._head[...] = self._tail
        np.rint(output, output)
        output.clip(_LOWEST, _HIGHEST, output)
        return output.astype(_L16).tobytes()

    def reset(self) -> None:
        """Forget what came before: the next frame starts out of silence."""
        if self.from_hz != self.to_hz:
            self._input[:] = 0
            self._rest = b""

    def _in_pieces(self, frame: bytes) -> bytes:
        """Process whole blocks, as many at a time as may be; what is over waits."""
        if self.from_hz == self.to_hz:
            return frame
        data, self._rest = self._rest + frame, b""
        whole, most, out = len(data) - len(data) % self._block_bytes, self._most_bytes, []
        for at in range(0, whole, most):
            piece = data[at : min(at + most, whole)]
            self._expect(len(piece))
            out.append(self.process(piece))
        self._rest = data[whole:]
        return out[0] if len(out) == 1 else b"".join(out)

    def _expect(self, size_bytes: int) -> None:
        """Look at the input as pieces of that size need it."""
        self._size_bytes = size_bytes
        history, samples = len(self._head), size_bytes // 2
        self._fresh = self._input[history : history + samples]
        self._tail = self._input[samples : samples + history]
        self._windows = self._all_windows[: size_bytes // self._block_bytes]


def resample_all(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    """Return a whole utterance at `to_hz`, not shifted in time: as long as `pcm`, rounded up to a whole sample.

    With equal rates `pcm` itself. L16, little-endian, mono; a half sample at the end is cut off.

    Raises: ValueError: a rate that is not in `RATES_HZ`, unless both are the same.
    """
    if from_hz == to_hz:
        return pcm
    resampler = Resampler(from_hz, to_hz)
    samples = len(pcm) // 2
    late = _DELAY_SAMPLES * to_hz // min(from_hz, to_hz)
    wanted = -(-samples * to_hz // from_hz)
    flush_ms = math.ceil(resampler.delay_ms) + 1
    out = resampler.process(pcm[: 2 * samples] + bytes(2 * (from_hz // 1000) * flush_ms))
    return out[2 * late : 2 * (late + wanted)]


@lru_cache(maxsize=len(RATES_HZ) ** 2)
def _kernel(from_hz: int, to_hz: int) -> Floats:
    """Return the matrix that turns (history + 1 ms) of input into 1 ms of output; shared, so read-only."""
    common = math.gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    taps = up * _low_pass(from_hz * up, min(from_hz, to_hz))
    history = (len(taps) - 1) // up
    block, out_block = from_hz // 1000, to_hz // 1000
    at = np.arange(out_block)[None, :] * down - (np.arange(history + block) - history)[:, None] * up
    kernel = np.where((at >= 0) & (at < len(taps)), taps[np.clip(at, 0, len(taps) - 1)], 0.0)
    # Each phase passes a constant level unchanged, so that silence with an offset does not become a tone.
    kernel /= kernel.sum(axis=0)
    result = np.ascontiguousarray(kernel, np.float32)
    result.flags.writeable = False
    return result


def _low_pass(rate_hz: int, lower_hz: int) -> npt.NDArray[np.float64]:
    """Return the taps, at `rate_hz`, of the filter that keeps what a stream of `lower_hz` can carry."""
    half = _DELAY_SAMPLES * rate_hz // lower_hz
    cut_off = (1 - _TRANSITION / 2) * lower_hz / rate_hz  # the middle of the slope, in half-cycles per sample
    # Kaiser's formulas: the attenuation that this length and slope allow, and the window's shape for it.
    attenuation_db = 7.95 + 2.285 * math.pi * _TRANSITION * 2 * half * lower_hz / rate_hz
    beta = 0.1102 * (attenuation_db - 8.7)
    n = np.arange(-half, half + 1)
    taps: npt.NDArray[np.float64] = np.sinc(cut_off * n) * np.kaiser(2 * half + 1, beta)
    taps /= taps.sum()
    return taps
