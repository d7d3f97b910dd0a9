"""One utterance of a model: what came of it, what of it the caller heard, and what its words were."""

import asyncio
from typing import Literal

from dueto.agents.remembered import heard_words
from dueto.call.utterance import Utterance
from dueto.errors import DuetoError, Interrupted

Fate = Literal["coming", "heard", "cut", "lost"]


class Spoken:
    """Begins with its first piece; over when it was heard to its end, cut, or could not be heard at all."""

    def __init__(self, item_id: str, utterance: Utterance | None, rate_hz: int, *, interruptible: bool) -> None:
        self.item_id = item_id
        self.interruptible = interruptible
        self.fate: Fate = "coming" if utterance is not None else "lost"
        self.heard_ms = 0
        "How much of it was heard, once it is over."
        self.answers_at: float | None = None
        "When the caller fell silent, if this is what he gets for an answer."
        self.came_at = 0.0
        self.text = ""
        self.cut_by_provider = False
        self.full = False
        "The caller is so far behind that no more of it was taken."
        self.tape: bytearray | None = None
        "What was said, where somebody wants to keep it."
        self._finished = self._broken_off = False
        self._utterance = utterance
        self._bytes_per_s = 2 * rate_hz
        self._bytes = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if utterance is None:
            self._over.set_result(None)

    @property
    def over(self) -> bool:
        """Whether nothing more of it will be heard."""
        return self.fate != "coming"

    @property
    def received_ms(self) -> int:
        """How much of it came from the provider."""
        return self._bytes * 1000 // self._bytes_per_s

    @property
    def began_at(self) -> float | None:
        """When its first sound was heard, on the call's clock; None: not yet."""
        return None if self._utterance is None else self._utterance.began_at

    def add(self, pcm: bytes) -> None:
        """More of it came. Where too much waits already, the rest is not taken."""
        if self.fate != "coming" or self.full or self._utterance is None:
            return
        try:
            self._utterance.add(pcm)
        except DuetoError:
            self.full = True
            self._utterance.finish()
        else:
            self._bytes += len(pcm)
            if self.tape is not None:
                self.tape += pcm

    def finish(self) -> None:
        """Nothing more of it comes."""
        self._finished = True
        if self._utterance is not None and self.fate == "coming" and not self.full:
            self._utterance.finish()

    def break_off(self) -> None:
        """Its provider cut it. If that had not said all of it yet, it is cut even where all that came was heard."""
        self.cut_by_provider = True
        self._broken_off = not self._finished
        self.finish()

    async def until_over(self) -> bool:
        """Wait until it is over. Returns whether all of it was heard."""
        await asyncio.shield(self._over)
        return self.fate == "heard"

    async def follow(self) -> None:
        """See what becomes of it. Once, by its owner."""
        if self._utterance is None:
            return
        try:
            await self._utterance.heard()
        except Interrupted as cut:
            self.fate, self.heard_ms = "cut", min(cut.heard_ms, self.received_ms)
        except DuetoError:
            self.fate, self.heard_ms = "lost", min(self._utterance.heard_ms, self.received_ms)
        except asyncio.CancelledError:
            self.fate, self.heard_ms = "cut", min(self._utterance.heard_ms, self.received_ms)
            raise
        else:
            self.fate, self.heard_ms = "cut" if self._broken_off else "heard", self.received_ms
        finally:
            self._over.set_result(None)

    @property
    def words(self) -> str:
        """What of its text was heard, as far as its length tells."""
        if self.fate in ("coming", "heard") or not self.text:
            return self.text
        return heard_words(self.text, self.heard_ms / self.received_ms if self.received_ms else 0.0)
