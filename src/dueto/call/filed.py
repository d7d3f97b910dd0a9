"""What is said as files: the pieces it is cut into, and where they are cut."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dueto.call.player import Outcome
from dueto.errors import DuetoError, LocalProtocolError

if TYPE_CHECKING:
    from dueto.call.file_player import FilePlayer

WINDOW_MS = 20


def _future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False, slots=True)
class Piece:
    """One file: handed to the module, announced by its event, played by the control leg."""

    id: str
    pcm: bytes
    "Kept until it is over: a stream that is lost takes its files along."
    duration_ms: int
    saying: "Filed | None"
    after: "Piece | None"
    "The piece before, which has to be begun first."
    handed_at: float
    announced: "asyncio.Future[str]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    begun: "asyncio.Future[None]" = field(default_factory=_future)
    "Done when the switch plays it, or never will."
    over: "asyncio.Future[None]" = field(default_factory=_future)
    started_at: float | None = None
    heard_ms: int | None = None
    "Once it is over: how much of it was heard."

    def begin(self, now: float) -> None:
        """The switch plays it."""
        self.started_at = now
        if not self.begun.done():
            self.begun.set_result(None)

    def not_begun(self) -> None:
        """There was no file: it has to be announced, and begun, once more."""
        self.announced = asyncio.get_running_loop().create_future()
        self.started_at = None
        if not self.over.done():
            self.begun = _future()

    def end(self, heard_ms: int | None) -> None:
        """It is over: played to its end if it was begun, or where `heard_ms` says so."""
        if self.heard_ms is None:
            played_ms = self.duration_ms if self.started_at is not None else 0
            self.heard_ms = played_ms if heard_ms is None else heard_ms
        self.after = None
        for future in (self.begun, self.over):
            if not future.done():
                future.set_result(None)


class Filed(Outcome):
    """Something being said: what waits to become a file, and the files it became."""

    def __init__(self, player: "FilePlayer", interruptible: bool, bytes_per_ms: int) -> None:
        super().__init__()
        self.interruptible = interruptible
        self.waiting = bytearray()
        self.finished = False
        self.since = 0.0
        "When something was added last."
        self.queued_bytes = 0
        self.pieces: list[Piece] = []
        self.to_play: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._player = player
        self._bytes_per_ms = bytes_per_ms

    def add(self, pcm: bytes) -> None:
        """Say more."""
        if self.interrupted:
            return
        if self.finished:
            raise LocalProtocolError("it was finished: it takes no more audio")
        self._player.add(self, pcm)

    def finish(self) -> None:
        """Nothing more comes."""
        if not self.finished:
            self.finished = True
            self._player.pump()

    def end(self, error: DuetoError | None = None) -> None:
        """Resolve it; what had not become a file by then never will."""
        self.finished = True
        self.waiting.clear()
        self.to_play.put_nowait(None)
        super().end(error)

    @property
    def heard_ms(self) -> int:
        """How much of it the caller has heard by now."""
        return sum(self._player.heard_ms(piece) for piece in self.pieces)

    @property
    def filed_ms(self) -> int:
        """How much of it became files."""
        return sum(piece.duration_ms for piece in self.pieces)

    @property
    def queued_ms(self) -> int:
        """How much of it there is so far."""
        return self.queued_bytes // self._bytes_per_ms

    @property
    def began_at(self) -> float | None:
        """When the switch began to play its first file."""
        return self.pieces[0].started_at if self.pieces else None


def quietest(pcm: bytes | bytearray, first: int, last: int, bytes_per_ms: int) -> int:
    """Return where to cut `pcm` between `first` and `last` (bytes): in the middle of its quietest 20 ms there."""
    window = WINDOW_MS * bytes_per_ms
    count = (last - first) // window
    if count < 1:
        return last - last % 2
    samples = np.frombuffer(bytes(pcm[first : first + count * window]), "<i2").astype(np.float32)
    power = np.square(samples).reshape(count, -1).sum(axis=1)
    at = first + int(power.argmin()) * window + window // 2
    return at - at % 2
