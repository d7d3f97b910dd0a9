"""A voice that never says where its sentences end: what a bot or a pipeline sends, as utterances of the call."""

import asyncio
from typing import Final

from dueto.call import Call
from dueto.call.utterance import Utterance
from dueto.errors import DuetoError

SETTLE_S: Final = 0.1
"So long nothing came, and no more than that is left to be heard: it is the end of a sentence."


class Flow:
    """Opens an utterance when something comes, and finishes it when nothing more does: `settle` has to be asked."""

    def __init__(self, call: Call, rate_hz: int) -> None:
        self.utterance: Utterance | None = None
        "What is being said, or was said last."
        self._call = call
        self._rate_hz = rate_hz
        self._now = asyncio.get_running_loop().time
        self._open = False
        self._interruptible = True
        self._added_at = 0.0

    @property
    def open(self) -> bool:
        """Whether the sentence goes on."""
        return self._open

    @property
    def ahead_ms(self) -> int:
        """What was given and not heard yet."""
        said = self.utterance
        return 0 if said is None or said.done else said.queued_ms - said.heard_ms

    def begin(self, *, interruptible: bool = True) -> Utterance:
        """Return the utterance that is open, or a new one. Raises: as `call.utterance`."""
        said = self.utterance
        if said is None or not self._open or said.done or interruptible != self._interruptible:
            self.finish()
            said = self.utterance = self._call.utterance(rate_hz=self._rate_hz, interruptible=interruptible)
            self._open, self._interruptible = True, interruptible
        self._added_at = self._now()
        return said

    def add(self, pcm: bytes, *, interruptible: bool = True) -> None:
        """Say L16 mono behind what is being said. While nobody can hear it (bridged, over), it is gone."""
        try:
            self.begin(interruptible=interruptible).add(pcm)
        except DuetoError:
            self._open = False

    def settle(self) -> None:
        """Finish what seems to be over, so that its last part of a frame is heard, too."""
        if self._open and self._now() - self._added_at >= SETTLE_S and self.ahead_ms <= SETTLE_S * 1000:
            self.finish()

    def finish(self) -> None:
        """Nothing more of this sentence."""
        if self._open and self.utterance is not None:
            self.utterance.finish()
        self._open = False

    def cut(self, by: str) -> None:
        """Silence."""
        self._call.stop_now(by=by)
        self._open = False

    async def heard(self) -> None:
        """Wait until all of it was heard, or can't be any more."""
        self.finish()
        if self.utterance is not None:
            try:
                await self.utterance.heard()
            except DuetoError:
                return
