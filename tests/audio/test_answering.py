"""Person or machine: verdicts on speech of the synthesiser, on tones, and on what is neither."""

import wave
from importlib.resources import files

import numpy as np
import pytest

from dueto.audio.answering import BEEP_MS, FRAME_MS, SILENT_MS, AnswerEar, AnsweredBy

RATE = 8000
FRAME = RATE * FRAME_MS // 1000


def silence(ms: int) -> np.ndarray:
    return np.zeros(RATE * ms // 1000)


def tone(ms: int, hz: float = 1000.0) -> np.ndarray:
    return 8000 * np.sin(2 * np.pi * hz * np.arange(RATE * ms // 1000) / RATE)


def speech(ms: int, seed: int = 7) -> np.ndarray:
    """Noise in syllables of 160 ms with dips between them, as loud as speech."""
    noise = np.random.default_rng(seed).normal(0, 3000, RATE * ms // 1000)
    return noise * (0.6 + 0.4 * np.sin(2 * np.pi * 6 * np.arange(len(noise)) / RATE))


def hears(*parts: np.ndarray) -> tuple[AnsweredBy | None, int]:
    """Return the verdict and after how many ms it came."""
    samples = np.concatenate(parts).astype("<i2")
    ear = AnswerEar(RATE)
    for number, start in enumerate(range(0, len(samples) - FRAME + 1, FRAME), 1):
        if verdict := ear.hear(samples[start : start + FRAME].tobytes()):
            return verdict, number * FRAME_MS
    return None, len(samples) * 1000 // RATE


def test_a_short_greeting_and_a_pause_is_a_person() -> None:
    verdict, ms = hears(silence(400), speech(600), silence(2000))
    assert verdict == "person"
    assert ms <= 400 + 600 + 800


def test_two_words_with_a_breath_between_them_are_still_a_person() -> None:
    assert hears(silence(200), speech(400), silence(250), speech(500), silence(2000))[0] == "person"


def test_a_long_announcement_is_a_machine_before_it_ends() -> None:
    verdict, ms = hears(silence(300), speech(6000))
    assert verdict == "machine"
    assert ms < 3000


def test_a_beep_is_a_machine_at_once() -> None:
    verdict, ms = hears(silence(200), tone(1000))
    assert verdict == "machine"
    assert ms <= 200 + BEEP_MS + 4 * FRAME_MS


def test_silence_tells_nothing() -> None:
    assert hears(silence(4000)) == ("unknown", SILENT_MS)


def test_a_click_is_no_word() -> None:
    assert hears(silence(200), speech(40), silence(4000))[0] == "unknown"


def test_noise_on_the_line_does_not_hide_the_greeting() -> None:
    hiss = np.random.default_rng(1).normal(0, 60, RATE * 3)
    greeting = np.concatenate([silence(500), speech(700), silence(1800)])
    assert hears(greeting + hiss[: len(greeting)])[0] == "person"


@pytest.mark.parametrize("name", ["hello.wav", "sales.wav", "yes.wav"])
def test_a_recorded_short_phrase_is_a_person(name: str) -> None:
    with (files("dueto.app.demo_callers") / name).open("rb") as file, wave.open(file) as wav:
        rate, data = wav.getframerate(), wav.readframes(wav.getnframes())
    samples = np.frombuffer(data, "<i2").astype(float)[:: max(rate // RATE, 1)]
    assert hears(silence(300), samples, silence(2000))[0] == "person"
