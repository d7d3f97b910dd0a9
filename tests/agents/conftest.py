"""What the agents' tests share: recordings, a recogniser, and the ear's way of cutting utterances out of a stream."""

from pathlib import Path

import pytest

import dueto.app
from dueto.agents.speech.decoder import Recogniser
from dueto.agents.speech.detector import Detector
from dueto.agents.speech.endpoint import WINDOW_BYTES, Endpointer, Utterance
from dueto.agents.speech.model import find_model
from dueto.agents.speech.vocabulary import build_vocabulary
from dueto.audio.g711 import ulaw_decode, ulaw_encode
from dueto.audio.pcm import read_wav, silence
from dueto.audio.resample import resample_all
from dueto.call.ports import Destination

CALLERS = Path(dueto.app.__file__).parent / "demo_callers"
DESTINATIONS = (
    Destination("sales", "user/1001", ("sales", "sales department"), "1"),
    Destination("support", "user/1002", ("support", "technical support"), "2"),
    Destination("billing", "user/1003", ("billing", "accounting"), "3"),
    Destination("operator", "user/1000", ("operator",), "0"),
)


def over_the_telephone(name: str) -> bytes:
    """Return a recorded caller as an ear gets it: L16 at 8 kHz through mu-law, with silence on both sides."""
    wav = read_wav((CALLERS / f"{name}.wav").read_bytes())
    narrow = resample_all(wav.pcm, wav.rate_hz, 8000)
    return ulaw_decode(ulaw_encode(silence(8000, 300) + narrow + silence(8000, 800)))


class Listener:
    """The ear's two halves without a loop: what was said in a stream of L16 at 8 kHz."""

    def __init__(self) -> None:
        self._detector = Detector()
        self._recogniser = Recogniser(build_vocabulary(DESTINATIONS, find_model().dictionary), find_model())

    def utterances(self, stream: bytes) -> list[Utterance]:
        self._detector.reset()
        endpointer = Endpointer()
        windows = [stream[at : at + WINDOW_BYTES] for at in range(0, len(stream) - WINDOW_BYTES + 1, WINDOW_BYTES)]
        events = [endpointer.feed(window, self._detector.likely(window)) for window in windows]
        return [event for event in events if isinstance(event, Utterance)]

    def understand(self, stream: bytes) -> list[tuple[str, float]]:
        heard = (self._recogniser.understand(utterance.pcm) for utterance in self.utterances(stream))
        return [(understood.text, understood.confidence) for understood in heard]


@pytest.fixture(scope="session")
def listener() -> Listener:
    return Listener()
