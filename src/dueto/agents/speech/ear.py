"""One caller's ear: where speech begins and ends is decided here, what it was in the recogniser's processes."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dueto.agents.speech.decoder import NOTHING, Understood
from dueto.agents.speech.detector import Detector, DetectorPool
from dueto.agents.speech.endpoint import WINDOW_BYTES, Began, Endpointer, EndpointRules, Paused, Utterance
from dueto.agents.speech.narrowband import HEARD_HZ
from dueto.agents.speech.pool import RecogniserPool
from dueto.call.events import Speech, SpeechStarted

MOST_WAITING = 4
"Utterances of one caller that may wait for a recogniser; one more is told as not understood."


@dataclass(slots=True)
class _Pending:
    utterance: Utterance
    answer: asyncio.Future[Understood]


@dataclass(slots=True)
class _Early:
    """Begun in a pause that may be the end; in most of them it is, and the answer is there 250 ms sooner."""

    pcm: bytes
    answer: asyncio.Future[Understood]


class SpeechEar:
    """Implements `dueto.call.ports.Ear`. Borrows a detector until `aclose`; about 0.1 ms of work a frame.

    Speech comes in the order it was said, also where the second of two utterances is understood first.
    """

    rate_hz: int = HEARD_HZ

    def __init__(
        self, detectors: DetectorPool, recognisers: RecogniserPool | None, rules: EndpointRules | None = None
    ) -> None:
        """Borrow a detector. Without `recognisers` only the beginnings of speech are told.

        Raises: NotCapable: all detectors are in use.
        """
        self._detectors = detectors
        self._recognisers = recognisers
        self._endpointer = Endpointer(rules)
        self._emit: Callable[[Speech | SpeechStarted], None] | None = None
        self._waiting = bytearray()
        self._pending: deque[_Pending] = deque()
        self._early: _Early | None = None
        self._detector: Detector | None = detectors.borrow()

    def attach(self, emit: Callable[[Speech | SpeechStarted], None]) -> None:
        """Say where events go."""
        self._emit = emit

    def hear(self, frame: bytes) -> None:
        """Take L16 at 8 kHz; 20 ms are expected, any length is right. After `aclose` nothing happens."""
        detector = self._detector
        if detector is None:
            return
        waiting = self._waiting
        waiting += frame
        while len(waiting) >= WINDOW_BYTES:
            window = bytes(waiting[:WINDOW_BYTES])
            del waiting[:WINDOW_BYTES]
            match self._endpointer.feed(window, detector.likely(window)):
                case Began(started_ms):
                    self._tell(SpeechStarted(started_ms))
                case Paused(pcm):
                    self._begin_early(pcm)
                case Utterance() as utterance:
                    self._recognise(utterance)
                case None:
                    pass

    async def aclose(self) -> None:
        """Give the detector back; what is still being recognised is never told."""
        self._emit = None
        if self._detector is not None:
            detector, self._detector = self._detector, None
            self._detectors.give_back(detector)
        self._drop_early()
        while self._pending:
            self._pending.popleft().answer.cancel()

    def _begin_early(self, pcm: bytes) -> None:
        self._drop_early()  # that was within a phrase
        if self._recognisers is not None and len(self._pending) < MOST_WAITING:
            self._early = _Early(pcm, self._recognisers.submit(pcm))

    def _drop_early(self) -> None:
        if self._early is not None:
            self._early.answer.cancel()
            self._early = None

    def _recognise(self, utterance: Utterance) -> None:
        if self._recognisers is None:
            return
        early, self._early = self._early, None
        if early is not None and early.pcm == utterance.pcm:
            answer = early.answer
        elif len(self._pending) < MOST_WAITING:
            if early is not None:
                early.answer.cancel()
            answer = self._recognisers.submit(utterance.pcm)
        else:
            answer = asyncio.get_running_loop().create_future()
            answer.set_result(NOTHING)
        self._pending.append(_Pending(utterance, answer))
        answer.add_done_callback(self._understood)

    def _understood(self, _: asyncio.Future[Understood]) -> None:
        while self._pending and self._pending[0].answer.done():
            pending = self._pending.popleft()
            if not pending.answer.cancelled():
                heard, said = pending.utterance, pending.answer.result()
                self._tell(Speech(said.text, said.confidence, heard.started_ms, heard.ended_ms))

    def _tell(self, event: Speech | SpeechStarted) -> None:
        if self._emit is not None:
            self._emit(event)
