"""A voice of three parts, one of them your own: what thinks here is a plain Python function.

pip install 'dueto[cascade]'
dueto serve --agent cascade:agent --set media.dialect=audio_stream-binary --set media.token=off
"""

from collections.abc import AsyncIterator, Sequence

from dueto import Call
from dueto.agents.cascade import Message, Want, cascade
from dueto.agents.cascade.offline import DictationWorker, OfflineSpeaker, OfflineTranscriber
from dueto.agents.ports import ToolSpec
from dueto.agents.provider import ProviderAgent
from dueto.agents.speech import DetectorPool, RecogniserPool, SpeechMouth, installed


class Parrot:
    """A `Thinker`: yields text as it thinks of it, and a `Want` where it wants a tool run."""

    async def think(self, conversation: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncIterator[str | Want]:
        yield f"You said: {conversation[-1].text}. Say something else."


detectors, recognisers = DetectorPool(4), RecogniserPool(DictationWorker([]), size=1)
parts = OfflineTranscriber(recognisers), Parrot(), OfflineSpeaker(SpeechMouth(installed()))
parrot = ProviderAgent(cascade(*parts, detectors, greeting="Hello. Say something."))


async def agent(call: Call) -> None:
    if not detectors.idle:  # once, for all calls
        await detectors.start()
        await recognisers.start()
    await parrot(call)
