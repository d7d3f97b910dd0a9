"""A call without a switch: what the agent says is heard at once, and a scripted caller answers with recorded speech."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import cast

from dueto.audio.pcm import frames
from dueto.call.call import Call
from dueto.call.events import CallEvent, Dtmf, HungUp, Unbridged
from dueto.call.ports import Ear, TransferResult
from dueto.errors import CallEnded, Interrupted

from .conftest import over_the_telephone

RINGING = "(ringing)"
"For `Turn.on`: while the other side's telephone rings."


@dataclass(frozen=True)
class Turn:
    """What the caller does about a prompt of the agent's."""

    on: str
    "The prompt must hold this, or the test fails."
    say: str = ""
    "The name of a recording."
    press: str = ""
    hang_up: bool = False
    cut_in: bool = False
    "While it is being said, not after it."


class ScriptedCall:
    """As much of `dueto.call.Call` as the receptionist uses. A prompt that no turn is for gets no answer."""

    rate_hz = 8000
    unique_id = "scripted"

    def __init__(self, *turns: Turn, transfers: Sequence[TransferResult | type[Unbridged]] = ()) -> None:
        self._turns = list(turns)
        self._transfers = list(transfers)
        self._inbox: asyncio.Queue[CallEvent] = asyncio.Queue()
        self._ear: Ear | None = None
        self._cut: asyncio.Event | None = None
        self._over = False
        self.spoke = asyncio.Event()
        self.said: list[str] = []
        self.cut: list[str] = []
        self.transferred: list[str] = []
        self.hung_up_by = ""

    @property
    def as_call(self) -> Call:
        return cast(Call, self)

    @property
    def left(self) -> list[Turn]:
        """Turns that never came."""
        return self._turns

    def listen(self, ear: Ear) -> None:
        ear.attach(self._inbox.put_nowait)
        self._ear = ear

    async def events(self) -> AsyncIterator[CallEvent]:
        while True:
            event = await self._inbox.get()
            yield event
            if isinstance(event, HungUp):
                return

    async def say(self, what: str | bytes, *, interruptible: bool = True) -> None:
        self._alive()
        assert isinstance(what, str)
        self.said.append(what)
        self.spoke.set()
        turn = self._turns.pop(0) if self._turns and self._turns[0].on in what else None
        if turn is not None and turn.cut_in:
            self._cut = asyncio.Event()
            self._do(turn)
            await self._cut.wait()
            self._cut = None
            self._alive()
            self.cut.append(what)
            raise Interrupted(120)
        if turn is not None:
            asyncio.get_running_loop().call_soon(self._do, turn)

    async def stop(self, *, by: str = "agent") -> int:
        if self._cut is None:
            return 0
        self._cut.set()
        return 120

    async def transfer(self, name: str, *, announce: str = "", timeout_s: float = 30.0) -> TransferResult:
        self._alive()
        self.transferred.append(name)
        assert announce.startswith("A caller for ")
        if self._turns and self._turns[0].on == RINGING:
            self._do(self._turns.pop(0))
            for _ in range(10):  # it rings on for a while
                await asyncio.sleep(0)
        outcome = self._transfers.pop(0) if self._transfers else TransferResult("bridged", "SUCCESS")
        if isinstance(outcome, TransferResult):
            if outcome.ok:
                self._hang_up("caller")
            return outcome
        self._inbox.put_nowait(Unbridged())
        return TransferResult("bridged", "SUCCESS")

    async def hangup(self, cause: str = "NORMAL_CLEARING") -> None:
        self._hang_up("agent")

    async def closed(self) -> None:
        """What the call does for its ears at the end."""
        if self._ear is not None:
            await self._ear.aclose()

    def _do(self, turn: Turn) -> None:
        if turn.say and self._ear is not None:
            for frame in frames(over_the_telephone(turn.say), self._ear.rate_hz):
                self._ear.hear(frame)
        if turn.press:
            self._inbox.put_nowait(Dtmf(turn.press, 100))
        if turn.hang_up:
            self._hang_up("caller")

    def _hang_up(self, who: str) -> None:
        if not self._over:
            self._over = True
            self.hung_up_by = who
            self._inbox.put_nowait(HungUp("NORMAL_CLEARING", "CHANNEL_HANGUP"))
            if self._cut is not None:
                self._cut.set()

    def _alive(self) -> None:
        if self._over:
            raise CallEnded("the call is over")
