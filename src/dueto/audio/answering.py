"""Person or machine: what the first seconds after an answer sound like. 20 ms frames in, a verdict out."""

from typing import Literal

import numpy as np

AnsweredBy = Literal["person", "machine", "unknown"]

FRAME_MS = 20
GREETING_MS = 1800
"A person says a word or two and waits; who talks longer than this is an announcement."
PAUSE_MS = 700
"How long the other side has to be silent for its greeting to be over."
SILENT_MS = 2500
"Nobody says anything: nothing is known."
WORD_MS = 80
"Shorter than this is a click."
GAP_MS = 300
"A pause within a greeting."
BEEP_MS = 240
"How long one pure tone has to stand to be a mailbox's beep."
FLOOR = 150.0
"RMS below which a frame is silence, whatever the noise."


class AnswerEar:
    """Listens to L16 mono frames until `verdict` is there. At most 1 ms a second of CPU; holds no audio."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._noise = FLOOR
        self._elapsed_ms = self._speech_ms = self._silence_ms = self._run_ms = 0
        self._tone_ms = 0
        self._tone_bin = -1
        self._window = np.hanning(rate_hz * FRAME_MS // 1000)
        self.verdict: AnsweredBy | None = None

    def hear(self, frame: bytes) -> AnsweredBy | None:
        """Take 20 ms; return the verdict once there is one. What comes after it changes nothing."""
        if self.verdict is None:
            samples = np.frombuffer(frame, "<i2").astype(np.float64)
            if len(samples) == len(self._window):
                self._take(samples)
        return self.verdict

    def _take(self, samples: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> None:
        self._elapsed_ms += FRAME_MS
        rms = float(np.sqrt(np.mean(samples * samples)))
        loud = rms > max(3.0 * self._noise, FLOOR)
        if loud:
            self._run_ms += FRAME_MS
            self._silence_ms = 0
            if self._run_ms == WORD_MS:
                self._speech_ms += WORD_MS
            elif self._run_ms > WORD_MS:
                self._speech_ms += FRAME_MS
        else:
            self._noise = min(0.95 * self._noise + 0.05 * rms, 1000.0)
            self._silence_ms += FRAME_MS
            self._run_ms = 0
            if self._speech_ms and self._silence_ms <= GAP_MS:
                self._speech_ms += FRAME_MS  # a short pause belongs to the greeting
        if self._is_beep(samples, loud) or self._speech_ms > GREETING_MS + GAP_MS:
            self.verdict = "machine"
        elif self._speech_ms and self._silence_ms >= PAUSE_MS:
            self.verdict = "person"
        elif not self._speech_ms and self._elapsed_ms >= SILENT_MS:
            self.verdict = "unknown"

    def _is_beep(self, samples: "np.ndarray[tuple[int], np.dtype[np.float64]]", loud: bool) -> bool:
        if not loud:
            self._tone_ms, self._tone_bin = 0, -1
            return False
        power = np.abs(np.fft.rfft(samples * self._window)) ** 2
        peak = int(np.argmax(power))
        share = float(power[max(peak - 2, 0) : peak + 3].sum() / max(power.sum(), 1.0))
        same = abs(peak - self._tone_bin) <= 1
        self._tone_ms = (self._tone_ms + FRAME_MS if same else FRAME_MS) if share > 0.9 and peak > 5 else 0
        self._tone_bin = peak
        return self._tone_ms >= BEEP_MS
