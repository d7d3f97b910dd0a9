"""A recogniser's process that writes down anything: `python -m dueto.agents.speech.dictation`.

It speaks as `worker.py` does. What is of its vocabulary, by the grammar's own measure, is taken from there, for that is
far surer; everything else is written down by pocketsphinx's own language model.
"""

import warnings
from typing import Any

from dueto.agents.speech.decoder import NOTHING, Recogniser, Understood
from dueto.agents.speech.judge import THRESHOLD
from dueto.agents.speech.model import find_model
from dueto.agents.speech.narrowband import MODEL_HZ, prepare
from dueto.agents.speech.vocabulary import Vocabulary
from dueto.agents.speech.worker import serve


class Dictation:
    """Takes an utterance, returns its words. (How sure they are nobody knows: 1.0.)"""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        """Load the models: about a second and 120 MB. Raises: SettingsError: the extra is not installed."""
        import pocketsphinx

        model = find_model()
        self._known = Recogniser(vocabulary, model) if vocabulary is not None else None
        self._decoder: Any = pocketsphinx.Decoder(
            hmm=str(model.acoustic),
            dict=str(model.dictionary),
            lm=str(model.language),
            samprate=MODEL_HZ,
            loglevel="FATAL",
            fwdflat=False,  # a second pass over the words that the first one found: half of the time
        )

    def understand(self, pcm: bytes) -> Understood:
        """Return what was said in `pcm`: L16 at 8 kHz, one utterance."""
        known = self._known.understand(pcm) if self._known is not None else NOTHING
        if known.text and known.confidence >= THRESHOLD:
            return Understood(known.text, 1.0)
        decoder = self._decoder
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            decoder.start_stream()  # else the noise that was learnt from the utterance before is taken out of this one
        decoder.start_utt()
        decoder.process_raw(prepare(pcm), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return Understood(found.hypstr if found is not None else "", 1.0)


if __name__ == "__main__":
    serve(lambda first: Dictation(Vocabulary.from_json(first) if first else None).understand)
