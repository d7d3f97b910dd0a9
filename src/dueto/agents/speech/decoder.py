"""One recogniser: an utterance in, what was said out. For a process of its own: it holds the GIL for 100s of ms."""

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dueto.agents.speech.evidence import Evidence, Span, weigh
from dueto.agents.speech.judge import FLOOR, HOPELESS_FIT, confidence
from dueto.agents.speech.model import Model
from dueto.agents.speech.narrowband import MODEL_HZ, prepare
from dueto.agents.speech.vocabulary import Vocabulary

_GRAMMAR = "grammar"
_ANY_PHONES = "any_phones"
_SHORTEST_FRAMES = 12


@dataclass(frozen=True, slots=True)
class Understood:
    """What an utterance was taken for."""

    text: str
    "A phrase of the vocabulary, or what an answer means (`yes`); empty: most likely nothing of that."
    confidence: float
    "From 0.0 to 1.0: how likely it was really that and nothing else."


NOTHING = Understood("", 0.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """The grammar's answer with all that is known about it."""

    text: str
    words: tuple[str, ...]
    evidence: Evidence


class Recogniser:
    """Pocketsphinx three times over the same utterance: by the grammar, by any phones, and word by word."""

    def __init__(self, vocabulary: Vocabulary, model: Model) -> None:
        """Load the model: about 100 ms and 30 MB."""
        import pocketsphinx  # only in the worker: the gateway itself never loads it

        pocketsphinx.set_loglevel("FATAL")
        self._vocabulary = vocabulary
        with tempfile.NamedTemporaryFile("w", suffix=".dict", encoding="utf-8") as dictionary:
            dictionary.write("\n".join(vocabulary.pronunciations) + "\n")
            dictionary.flush()
            settings: dict[str, Any] = {
                "hmm": str(model.acoustic),
                "dict": dictionary.name,
                "lm": None,
                "samprate": MODEL_HZ,
                "loglevel": "FATAL",
                # Scores are relative to the best sound OF THOSE LOOKED AT: only all of them make two looks comparable.
                "compallsen": True,
                # The lattice's best path loses words that the search had right: 115 of 119 with it, 118 without.
                "bestpath": False,
            }
            self._decoder = pocketsphinx.Decoder(**settings)
            # Only the lengths of the phones are taken from it, and half the time is saved.
            self._aligner = pocketsphinx.Decoder(**settings | {"compallsen": False})
        self._decoder.add_jsgf_string(_GRAMMAR, vocabulary.grammar)
        self._decoder.add_allphone_file(_ANY_PHONES, str(model.phone_lm))
        self._log: Callable[[float], float] = self._decoder.logmath.log

    def understand(self, pcm: bytes) -> Understood:
        """Return what was said in `pcm`: L16 at 8 kHz, one utterance with up to 300 ms of silence on both sides."""
        reading = self.read(pcm)
        if reading is None:
            return NOTHING
        sure = confidence(reading.evidence) if reading.text else 0.0
        return Understood(reading.text if sure >= FLOOR else "", sure)

    def read(self, pcm: bytes) -> Reading | None:
        """Return the grammar's answer and the evidence for it; None when it had none at all."""
        audio = prepare(pcm)
        spans = [word for word in self._search(_GRAMMAR, audio) if not word.name.startswith("<")]
        if not spans or spans[-1].end - spans[0].start < _SHORTEST_FRAMES:
            return None
        if sum(span.score for span in spans) < HOPELESS_FIT * sum(span.frames for span in spans):
            return None
        words = tuple(span.name.partition("(")[0] for span in spans)
        text, first, last = self._vocabulary.meaning(words)
        phones = self._align(words, audio)
        if not phones:
            return None
        return Reading(text, words, weigh(spans, phones, list(self._search(_ANY_PHONES, audio)), first, last))

    def _search(self, name: str, audio: bytes) -> Iterator[Span]:
        self._decoder.activate_search(name)
        self._run(self._decoder, audio)
        for seg in self._decoder.seg() or ():
            if seg.word != "(NULL)" and seg.end_frame >= seg.start_frame:
                yield Span(seg.word, seg.start_frame, seg.end_frame + 1, self._log(seg.ascore))

    def _align(self, words: Iterable[str], audio: bytes) -> list[Span]:
        """Return the phones of `words`, without scores: first the words are found again, then the phones in them."""
        with suppress(RuntimeError):  # the sound is too short for all of the words
            self._aligner.set_align_text(" ".join(words))
            self._run(self._aligner, audio)
            self._aligner.set_alignment()
            self._run(self._aligner, audio)
            return [
                Span(phone.name, phone.start, phone.start + phone.duration, 0.0)
                for word in self._aligner.get_alignment() or ()
                if not word.name.startswith("<")
                for phone in word
            ]
        return []

    @staticmethod
    def _run(decoder: Any, audio: bytes) -> None:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            # "Unnecessary", says pocketsphinx 5.1. But without it the noise that was learnt from the utterance before
            # is taken out of this one, and the same words get another score each time.
            decoder.start_stream()
        decoder.start_utt()
        decoder.process_raw(audio, full_utt=True)
        decoder.end_utt()
