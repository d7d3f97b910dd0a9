"""The three parts without a network: dictation by pocketsphinx, rules in place of a model, the receptionist's mouth."""

import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from dueto.agents.cascade.ports import Message, Want
from dueto.agents.ports import ToolSpec
from dueto.agents.speech.model import find_model
from dueto.agents.speech.mouth import SpeechMouth
from dueto.agents.speech.pool import RecogniserPool
from dueto.agents.speech.vocabulary import build_vocabulary
from dueto.audio.resample import resample_all
from dueto.call.ports import Destination
from dueto.errors import NotCapable, ProviderFailed

SPEAKS_HZ: Final = 16000
GOODBYE: Final = re.compile(r"\b(good ?bye|bye|that('s| is) all|nothing else|no thank)\b")
HELLO: Final = re.compile(r"^(hello|hi|good (morning|afternoon|evening|day))\b")


class DictationWorker:
    """What a recogniser's process is told to be: one that writes down anything in US English, and knows the places."""

    worker = "dueto.agents.speech.dictation"

    def __init__(self, destinations: Sequence[Destination]) -> None:
        """Raises: SettingsError: a word that no dictionary knows, or the extra is not installed."""
        dictionary = find_model().dictionary
        self._vocabulary = build_vocabulary(destinations, dictionary) if destinations else None

    def to_json(self) -> bytes:
        """The first message to that process."""
        return self._vocabulary.to_json() if self._vocabulary is not None else b""


class OfflineTranscriber:
    """Pocketsphinx, 120 MB a process: sure of the places it knows; of all else it understands much, not all."""

    def __init__(self, pool: RecogniserPool) -> None:
        self._pool = pool

    async def transcribe(self, pcm: bytes, rate_hz: int) -> str:
        """Return what was said; empty where the pool is full, too."""
        return (await self._pool.submit(resample_all(pcm, rate_hz, 8000))).text


class OfflineSpeaker:
    """The machine's synthesiser, or a recording of that very sentence."""

    rate_hz = SPEAKS_HZ

    def __init__(self, mouth: SpeechMouth) -> None:
        self._mouth = mouth

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        """Yield `text` spoken, whole."""
        try:
            yield await self._mouth.speak(text, self.rate_hz)
        except NotCapable as error:
            raise ProviderFailed("model", str(error)) from None


class Rules:
    """In place of a model: connects to whoever is named, says goodbye when the caller does, offers what there is."""

    def __init__(self, destinations: Iterable[Destination]) -> None:
        self._places = {
            word.lower(): place.name for place in destinations for word in (*place.words, place.name.replace("_", " "))
        }
        self._names = list(dict.fromkeys(place for place in self._places.values()))

    async def think(self, conversation: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncIterator[str | Want]:
        """Yield the answer."""
        known = {tool.name for tool in tools}
        last = conversation[-1] if conversation else Message("system", "")
        if last.role == "tool":
            for piece in self._after(last.text):
                yield piece
            return
        said = last.text.lower() if last.role == "user" else ""
        place = next((name for word, name in self._places.items() if re.search(rf"\b{re.escape(word)}\b", said)), "")
        number = len(conversation)
        if place and "transfer_call" in known:
            yield "One moment, please."
            yield Want(f"t{number}", "transfer_call", json.dumps({"destination": place, "reason": last.text[:200]}))
        elif GOODBYE.search(said):
            yield "Goodbye."
            if "end_call" in known:
                yield Want(f"t{number}", "end_call", json.dumps({"reason": "the caller said goodbye"}))
        elif not said or HELLO.search(said):
            yield f"Hello. {self._offer()}"
        else:
            yield f"I am sorry, I can't help with that. {self._offer()}"

    def _offer(self) -> str:
        names = [name.replace("_", " ") for name in self._names]
        if not names:
            return "How can I help you?"
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
        return f"I can connect you with {listed}."

    def _after(self, outcome: str) -> list[str]:
        """What is said when a tool has done its work, or not."""
        try:
            told = json.loads(outcome)
        except ValueError:
            told = {}
        if not isinstance(told, dict) or "error" in told:
            return ["I am sorry, that did not work. Is there anything else?"]
        if told.get("outcome") in ("bridged", "let_go", "kept", "ended"):
            return ["Is there anything else I can do for you?"]
        return ["I am sorry, nobody is free there just now. Is there anything else?"]
