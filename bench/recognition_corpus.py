"""What the recogniser is fitted and measured on: synthetic voices, phrases, and the telephone in between."""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from dueto.agents.speech.detector import Detector
from dueto.agents.speech.endpoint import WINDOW_BYTES, Endpointer, Utterance
from dueto.agents.speech.model import find_model
from dueto.agents.speech.vocabulary import Vocabulary, build_vocabulary
from dueto.audio import g711, pcm, resample
from dueto.call.ports import Destination


@dataclass(frozen=True, slots=True)
class Voice:
    """A synthesiser's voice."""

    program: str
    name: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.program, self.name, *self.options))

    def command(self, text: str, out: Path) -> list[str]:
        """Return the command that speaks `text` into the WAV file `out`."""
        if self.program == "flite":
            return ["flite", "-voice", self.name, *self.options, "-t", text, "-o", str(out)]
        return ["espeak-ng", "-v", self.name, *self.options, "-w", str(out), "--", text]


@dataclass(frozen=True, slots=True)
class Line:
    """How the voice came over the telephone: always 300-3400 Hz and mu-law, and then this."""

    level_dbfs: float
    snr_db: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing said."""

    vocabulary: str
    text: str
    meaning: str | None
    "The phrase or answer that is right; None: nothing of the vocabulary."
    voice: Voice
    line: Line


FIT_VOICES = (
    Voice("flite", "kal"),
    Voice("flite", "slt"),
    Voice("flite", "slt", ("--setf", "duration_stretch=1.2")),
    Voice("flite", "kal16", ("--setf", "duration_stretch=0.9", "--setf", "int_f0_target_mean=130")),
    Voice("espeak-ng", "en-us", ("-s", "150")),
    Voice("espeak-ng", "en-us+f3", ("-s", "140")),
    Voice("espeak-ng", "en-us+m3", ("-s", "130")),
    Voice("espeak-ng", "en-gb", ("-s", "150")),
)
TEST_VOICES = (
    Voice("flite", "awb"),
    Voice("flite", "rms"),
    Voice("flite", "rms", ("--setf", "duration_stretch=0.85")),
    Voice("flite", "awb", ("--setf", "duration_stretch=1.15")),
    Voice("espeak-ng", "en-us+f2", ("-s", "150")),
    Voice("espeak-ng", "en-us+m7", ("-s", "140")),
    Voice("espeak-ng", "en-gb-x-rp+f4", ("-s", "140")),
    Voice("espeak-ng", "en-gb-scotland+m1", ("-s", "135")),
)
LINES = (Line(-20, 35), Line(-30, 30), Line(-14, 35), Line(-24, 25), Line(-38, 30))

OFFICE = "office"
SHOP = "shop"
_DESTINATIONS = {
    OFFICE: {
        "sales": ("sales", "sales department"),
        "support": ("support", "technical support"),
        "billing": ("billing", "accounts"),
        "operator": ("operator",),
    },
    SHOP: {
        "reception": ("reception", "front desk"),
        "marketing": ("marketing",),
        "repairs": ("repairs", "repair service"),
        "service": ("customer service",),
        "bookings": ("reservations",),
        "engineering": ("engineering",),
    },
}
FIT_RIGHT = (
    ("sales", "sales"),
    ("sales please", "sales"),
    ("the sales department", "sales department"),
    ("hello, can I talk to sales", "sales"),
    ("support", "support"),
    ("could I speak to support please", "support"),
    ("I need support", "support"),
    ("technical support", "technical support"),
    ("please connect me to technical support", "technical support"),
    ("billing", "billing"),
    ("billing please", "billing"),
    ("I'd like to talk to billing", "billing"),
    ("accounts", "accounts"),
    ("accounts department please", "accounts"),
    ("operator", "operator"),
    ("put me through to the operator", "operator"),
    ("operator please", "operator"),
    ("yes", "yes"),
    ("yes please", "yes"),
    ("no", "no"),
    ("no thank you", "no"),
    ("goodbye", "goodbye"),
    ("thank you", "thanks"),
    ("hello", "hello"),
    ("good morning", "hello"),
)
TEST_RIGHT = {
    OFFICE: (
        ("sales", "sales"),
        ("I want to speak to sales please", "sales"),
        ("hi, the sales department please", "sales department"),
        ("support please", "support"),
        ("can I speak to support", "support"),
        ("technical support please", "technical support"),
        ("the billing department", "billing"),
        ("could I talk to billing", "billing"),
        ("accounts please", "accounts"),
        ("can I talk to the operator please", "operator"),
        ("no", "no"),
        ("yes", "yes"),
        ("no thanks", "no"),
        ("thank you goodbye", "goodbye"),
    ),
    SHOP: (
        ("reception", "reception"),
        ("the front desk please", "front desk"),
        ("marketing", "marketing"),
        ("could I speak to marketing please", "marketing"),
        ("repairs please", "repairs"),
        ("I need the repair service", "repair service"),
        ("customer service", "customer service"),
        ("I'd like to talk to customer service", "customer service"),
        ("reservations please", "reservations"),
        ("the engineering department", "engineering"),
    ),
}
FIT_FOREIGN = (
    "what time do you close on Sunday",
    "my name is Robert Johnson",
    "the weather is lovely today",
    "can you hear me",
    "how much does it cost",
    "I want to cancel my appointment",
    "is this the right number",
    "where are you located",
    "I have a question about my garden",
    "do you have any tickets left",
    "the train was late again",
    "tell me a joke",
    "let me think",
    "who is this",
    "I am not sure",
    "one two three four",
    "what did you say",
    "my dog is sick",
    "we are going on holiday",
    "maybe tomorrow afternoon",
    "my car broke down",
    "open the window",
    "I need a new battery for my phone",
    "could I have a cup of coffee please",
    "I'd like to change my address",
    "put the box on the table",
    "can I bring my sister",
    "the doctor please",
    "I want a taxi",
    "building",
    "football",
    "Wednesday",
    "potatoes",
    "chocolate",
    "Jennifer",
    "seventeen",
    "hospital",
    "water",
    "Australia",
    "never mind",
    "I lost my wallet on the bus yesterday",
    "somebody told me to call this number about a package",
)
TEST_FOREIGN = (
    "I would like to order a pizza with mushrooms",
    "is the swimming pool open on Monday",
    "my daughter plays the violin",
    "how do I get to the airport",
    "can you repeat that",
    "what is the price of the blue one",
    "I would like to book a table for four",
    "where can I park my car",
    "it has been raining all week",
    "do you speak German",
    "my account number is seven five nine",
    "there is a noise in the kitchen",
    "I forgot my password",
    "please send me a letter",
    "I was cut off a minute ago",
    "could I leave a message please",
    "can I speak to Michael please",
    "I need a doctor",
    "I'd like to talk about my holidays",
    "the parcel never arrived",
    "last Thursday at half past nine",
    "the lights went out",
    "are you a robot",
    "just a moment my phone is ringing",
    "two tickets for the concert please",
    "elephant",
    "umbrella",
    "breakfast",
    "Saturday",
    "computer",
    "mountain",
    "sugar",
    "Elizabeth",
    "fifty",
    "bicycle",
    "nothing",
    "really",
    "my husband wants to return the shoes he bought in your shop",
    "hundreds of people were waiting in front of the door",
    "this is a wrong number I think",
)


@cache
def vocabulary(name: str) -> Vocabulary:
    """Return the vocabulary called `name`."""
    destinations = [Destination(key, "user/1001", words) for key, words in _DESTINATIONS[name].items()]
    return build_vocabulary(destinations, find_model().dictionary)


def fit_samples() -> list[Sample]:
    """Return what the weights are fitted on."""
    said = [*FIT_RIGHT, *((text, None) for text in FIT_FOREIGN)]
    return list(_spread(OFFICE, said, FIT_VOICES))


def test_samples() -> list[Sample]:
    """Return what the rule is measured on: other voices, other phrases, and a second vocabulary."""
    samples: list[Sample] = []
    for name, right in TEST_RIGHT.items():
        samples.extend(_spread(name, [*right, *((text, None) for text in TEST_FOREIGN)], TEST_VOICES))
    return samples


def _spread(name: str, said: list[tuple[str, str | None]], voices: tuple[Voice, ...]) -> Iterator[Sample]:
    for turn, voice in enumerate(voices):
        for number, (text, meaning) in enumerate(said):
            yield Sample(name, text, meaning, voice, LINES[(number + turn) % len(LINES)])


def over_the_telephone(sample: Sample) -> bytes:
    """Return the sample as it reaches the ear: L16 at 8 kHz, half a second of line before it and a second after."""
    wav = pcm.read_wav(_spoken(sample.voice, sample.text))
    narrow = _to_8k(wav.pcm, wav.rate_hz)
    voice = np.frombuffer(narrow, "<i2").astype(np.float64)
    spectrum, hertz = np.fft.rfft(voice), np.fft.rfftfreq(voice.size, 1 / 8000)
    voice = np.fft.irfft(
        spectrum * np.clip((hertz - 150) / 150, 0, 1) * np.clip((3600 - hertz) / 200, 0, 1), voice.size
    )
    loud = voice[np.abs(voice) > 0.03 * np.abs(voice).max()]
    voice *= 32768 * 10 ** (sample.line.level_dbfs / 20) / np.sqrt(np.mean(loud**2))
    voice = np.concatenate([np.zeros(4000), voice, np.zeros(8000)])
    seed = int.from_bytes(hashlib.sha256(f"{sample.voice}|{sample.text}".encode()).digest()[:4], "little")
    hiss = np.random.default_rng(seed).normal(size=voice.size)
    voice += hiss * 32768 * 10 ** ((sample.line.level_dbfs - sample.line.snr_db) / 20)
    return g711.ulaw_decode(g711.ulaw_encode(np.clip(np.rint(voice), -32768, 32767).astype("<i2").tobytes()))


def utterances(audio: bytes, detector: Detector) -> list[Utterance]:
    """Return what the ear would cut out of `audio`."""
    detector.reset()
    endpointer = Endpointer()
    found = []
    for at in range(0, len(audio) - WINDOW_BYTES + 1, WINDOW_BYTES):
        window = audio[at : at + WINDOW_BYTES]
        if isinstance(event := endpointer.feed(window, detector.likely(window)), Utterance):
            found.append(event)
    return found


def _to_8k(audio: bytes, rate_hz: int) -> bytes:
    if rate_hz in resample.RATES_HZ:
        return resample.resample_all(audio, rate_hz, 8000)
    samples = np.frombuffer(audio, "<i2").astype(np.float64)  # espeak-ng speaks at 22,050 Hz
    spectrum = np.fft.rfft(samples)
    size = samples.size * 8000 // rate_hz
    narrow = np.fft.irfft(spectrum[: size // 2 + 1], size) * (size / samples.size)
    return np.clip(np.rint(narrow), -32768, 32767).astype("<i2").tobytes()


def _spoken(voice: Voice, text: str) -> bytes:
    """Return the WAV file, from the folder of those already spoken if it is there."""
    name = hashlib.sha256(f"{voice}|{text}".encode()).hexdigest()[:24]
    path = spoken_folder() / f"{name}.wav"
    if not path.exists():
        part = path.with_suffix(f".{id(text)}.part.wav")
        subprocess.run(voice.command(text, part), check=True, capture_output=True, timeout=20)
        part.rename(path)
    return path.read_bytes()


@cache
def spoken_folder() -> Path:
    """Return where spoken phrases are kept between runs."""
    folder = Path(tempfile.gettempdir(), "dueto-recognition")
    folder.mkdir(exist_ok=True)
    return folder


def missing_programs() -> list[str]:
    """Return the synthesisers that are not installed."""
    return [program for program in ("flite", "espeak-ng") if shutil.which(program) is None]
