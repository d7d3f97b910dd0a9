"""How often the receptionist understands, and how often it wrongly believes: `python -m bench.recognition`.

    python -m bench.recognition          measure the rule on voices and phrases it was not fitted on
    python -m bench.recognition --fit    fit the weights of `judge.py` anew and print them

Needs flite and espeak-ng. About ten minutes on two cores; spoken phrases are kept for the next run.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import cache

import numpy as np
from bench.recognition_corpus import (
    OFFICE,
    SHOP,
    TEST_VOICES,
    Sample,
    fit_samples,
    missing_programs,
    over_the_telephone,
    test_samples,
    utterances,
    vocabulary,
)

from dueto.agents.speech import DetectorPool, RecogniserPool, SpeechEar
from dueto.agents.speech.decoder import Reading, Recogniser
from dueto.agents.speech.detector import Detector
from dueto.agents.speech.evidence import Evidence
from dueto.agents.speech.judge import THRESHOLD, confidence
from dueto.agents.speech.model import find_model
from dueto.audio.pcm import frames
from dueto.call.events import Speech, SpeechStarted

RIDGE = 3.0
"How much the fit prefers small weights: chosen by leaving out one voice and a quarter of the phrases in turn."
THRESHOLDS = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Heard:
    """A sample, and what became of its utterances."""

    sample: Sample
    readings: tuple[Reading | None, ...]
    cpu_s: tuple[float, ...]
    "Of the recogniser, one an utterance."

    def believed(self, threshold: float) -> list[str]:
        """Return the phrases and answers that count."""
        return [
            reading.text
            for reading in self.readings
            if reading is not None and reading.text and confidence(reading.evidence) >= threshold
        ]


@dataclass(slots=True)
class Row:
    """A line of the table."""

    said: int = 0
    right: int = 0
    wrong: int = 0
    "Another department than was said: a wrong transfer, unless the caller objects."
    foreign: int = 0
    accepted: int = 0
    "Foreign, and taken for a department."
    answered: int = 0
    "Foreign, and taken for yes, no, hello, thank you or goodbye: no transfer."

    def add(self, heard: Heard, threshold: float) -> None:
        """Count one sample."""
        believed = heard.believed(threshold)
        departments = [text for text in believed if text in vocabulary(heard.sample.vocabulary).phrases]
        if heard.sample.meaning is None:
            self.foreign += 1
            self.accepted += bool(departments)
            self.answered += bool(believed) and not departments
        else:
            self.said += 1
            self.right += heard.sample.meaning in believed
            self.wrong += any(text != heard.sample.meaning for text in departments)

    def __str__(self) -> str:
        asked_again = self.said - self.right - self.wrong
        shares = [(self.right, self.said), (asked_again, self.said), (self.wrong, self.said)]
        shares += [(self.accepted, self.foreign), (self.answered, self.foreign)]
        cells = (f"{part} of {whole} ({100 * part / whole:.1f} %)" if whole else "-" for part, whole in shares)
        return " | ".join(cells)


HEADER = (
    "understood | asked again (false reject) | another department | "
    "foreign taken for a department (false accept) | foreign taken for an answer |"
)


def hear(sample: Sample) -> Heard:
    """Run one sample through detector, endpointer and recogniser."""
    recogniser, readings, cpu_s = _recogniser(sample.vocabulary), [], []
    for utterance in utterances(over_the_telephone(sample), _detector()):
        started = time.process_time()
        readings.append(recogniser.read(utterance.pcm))
        cpu_s.append(time.process_time() - started)
    return Heard(sample, tuple(readings), tuple(cpu_s))


@cache
def _recogniser(name: str) -> Recogniser:
    return Recogniser(vocabulary(name), find_model())


@cache
def _detector() -> Detector:
    return Detector()


def hear_all(samples: Sequence[Sample]) -> list[Heard]:
    """Hear every sample, on two cores."""
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(hear, samples, chunksize=8))


def fit(heard: Iterable[Heard]) -> tuple[dict[str, float], float]:
    """Return the weights and the bias of a logistic regression: right phrase against anything else."""
    evidence, right = [], []
    for one in heard:
        for reading in one.readings:
            if reading is not None and reading.text:
                evidence.append(astuple(reading.evidence))
                right.append(float(reading.text == one.sample.meaning))
    numbers, wanted = np.array(evidence), np.array(right)
    mean, spread = numbers.mean(axis=0), numbers.std(axis=0)
    inputs = np.column_stack([(numbers - mean) / spread, np.ones(len(wanted))])
    penalty = RIDGE * np.append(np.ones(numbers.shape[1]), 0.0)
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):  # Newton's method; it stands still after ten
        likely = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (wanted - likely) - penalty * weights
        curvature = (inputs.T * (likely * (1 - likely))) @ inputs + np.diag(penalty)
        weights += np.linalg.solve(curvature, gradient)
    plain = weights[:-1] / spread
    names = [field.name for field in fields(Evidence)]
    return dict(zip(names, map(float, plain), strict=True)), float(weights[-1] - plain @ mean)


def print_table(heard: Sequence[Heard]) -> None:
    """Print what the rule decides, by vocabulary, by voice and by threshold."""
    groups: dict[str, list[Heard]] = {"all": list(heard)}
    for name in (OFFICE, SHOP):
        groups[f"{name}: {', '.join(vocabulary(name).phrases)}"] = [h for h in heard if h.sample.vocabulary == name]
    for program in ("flite", "espeak-ng"):
        groups[f"{program} voices"] = [h for h in heard if h.sample.voice.program == program]
    for voice in TEST_VOICES:
        groups[str(voice)] = [h for h in heard if h.sample.voice == voice]
    _print_rows(f"At the threshold {THRESHOLD}", "voices", {k: _row(v, THRESHOLD) for k, v in groups.items()})
    _print_rows(
        "All, by threshold", "threshold", {str(at or "none: the grammar alone"): _row(heard, at) for at in THRESHOLDS}
    )
    print("\nFalse accepts and other departments:\n")
    for one in heard:
        departments = vocabulary(one.sample.vocabulary).phrases
        wrong = [text for text in one.believed(THRESHOLD) if text in departments and text != one.sample.meaning]
        if wrong:
            print(f"- {one.sample.voice}: “{one.sample.text}” taken for {', '.join(wrong)}")


def _row(heard: Iterable[Heard], threshold: float) -> Row:
    row = Row()
    for one in heard:
        row.add(one, threshold)
    return row


def _print_rows(title: str, first: str, rows: dict[str, Row]) -> None:
    print(f"\n{title}:\n\n| {first} | {HEADER}\n|{' --- |' * 6}")
    for name, row in rows.items():
        print(f"| {name} | {row} |")


def print_cost(heard: Sequence[Heard]) -> None:
    """Print what recognition costs a core."""
    cpu_ms = sorted(1000 * seconds for one in heard for seconds in one.cpu_s)
    middle, worst = statistics.median(cpu_ms), cpu_ms[int(len(cpu_ms) * 0.95)]
    print(f"\nRecogniser, CPU an utterance: median {middle:.0f} ms, p95 {worst:.0f} ms, most {cpu_ms[-1]:.0f} ms")


async def print_latency(samples: Sequence[Sample]) -> None:
    """Print what a frame costs the loop, and how long after the end of speech the answer is there, in real time."""
    detectors, recognisers = DetectorPool(1), RecogniserPool(vocabulary(OFFICE))
    await detectors.start()
    await recognisers.start()
    frame_ms, answer_ms = [], []
    for sample in samples:
        ear = SpeechEar(detectors, recognisers)
        told: asyncio.Queue[tuple[float, Speech | SpeechStarted]] = asyncio.Queue()

        def note(
            event: Speech | SpeechStarted, told: asyncio.Queue[tuple[float, Speech | SpeechStarted]] = told
        ) -> None:
            told.put_nowait((time.monotonic(), event))

        ear.attach(note)
        stream, started = over_the_telephone(sample), time.monotonic()
        for number, frame in enumerate(frames(stream, 8000)):
            await asyncio.sleep(max(started + 0.02 * (number + 1) - time.monotonic(), 0))
            before = time.thread_time()
            ear.hear(frame)
            frame_ms.append(1000 * (time.thread_time() - before))
        while True:
            at, event = await told.get()
            if isinstance(event, Speech):
                break
        answer_ms.append(1000 * (at - started) - event.ended_ms)
        await ear.aclose()
    await recognisers.aclose()
    frame_ms.sort()
    middle, late = statistics.median(frame_ms), frame_ms[int(len(frame_ms) * 0.99)]
    print(f"Ear, CPU a 20 ms frame on the loop: median {middle:.3f} ms, p99 {late:.3f} ms, most {frame_ms[-1]:.3f} ms")
    print(f"End of speech to answer: median {statistics.median(answer_ms):.0f} ms, most {max(answer_ms):.0f} ms")


def main() -> None:
    """Fit, or measure."""
    parser = argparse.ArgumentParser(description="How well the offline receptionist understands.")
    parser.add_argument("--fit", action="store_true", help="fit the weights anew and print them")
    wants_fit: bool = parser.parse_args().fit
    if missing := missing_programs():
        sys.exit(f"install {' and '.join(missing)} first (`apt install {' '.join(missing)}`)")
    if wants_fit:
        weights, bias = fit(hear_all(fit_samples()))
        print(f"_BIAS: Final = {bias:.5f}\n_WEIGHTS: Final = {{")
        for name, weight in weights.items():
            print(f'    "{name}": {weight:.5f},')
        print("}")
        return
    heard = hear_all(test_samples())
    print_table(heard)
    print_cost(heard)
    asyncio.run(print_latency([s for s in test_samples() if s.vocabulary == OFFICE and s.meaning is not None][::6]))


if __name__ == "__main__":
    main()
