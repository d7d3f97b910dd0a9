"""Hears what a caller says to a `<Gather>`: where speech is is found here, what it was by a transcriber."""

import asyncio

from dueto.agents.cascade.ports import Transcriber
from dueto.agents.cascade.utterances import UtteranceCutter
from dueto.agents.speech.detector import DetectorPool
from dueto.agents.speech.endpoint import Began, Utterance
from dueto.call import Call

MOST_WAITING = 4
"Utterances that may be with the transcriber."


class Words:
    """What all calls of one bot share for it: detectors and a transcriber."""

    def __init__(self, detectors: DetectorPool, transcriber: Transcriber) -> None:
        self._detectors = detectors
        self._transcriber = transcriber

    async def heard(self, call: Call, began: asyncio.Event) -> str:
        """Return the first that the caller says from now on and that is understood; `began`: he has begun to speak.

        Safe to cancel. Raises: NotCapable: as many callers are heard as can be. ProviderFailed: the transcriber fails.
        """
        cutter = UtteranceCutter(self._detectors)
        utterances: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)

        def hear(frame: bytes) -> None:
            for happening in cutter.hear(frame):
                if isinstance(happening, Began):
                    began.set()
                elif isinstance(happening, Utterance) and not utterances.full():
                    utterances.put_nowait(happening.pcm)

        stop = call.audio_to(hear, cutter.rate_hz)
        try:
            while True:
                text = await self._transcriber.transcribe(await utterances.get(), cutter.rate_hz)
                if text.strip():
                    return text.strip()
                if utterances.empty():
                    began.clear()
        finally:
            stop()
            cutter.close()
