"""What the playout ledger keeps of one utterance."""

from collections import deque
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(slots=True, eq=False, weakref_slot=True, repr=False)
class Utterance:
    """Something to be said to the caller, whole or in pieces. Made by `Playout.open`; for reading only."""

    id: int
    live: bool
    "Comes in real time (an echo, `call.write`), so it is never held back, and its oldest audio is dropped if late."
    interruptible: bool
    "Whether a caller who speaks may cut it off. The ledger only remembers it: `clear` takes everything."
    _bytes_per_s: int
    finished: bool = field(default=False, init=False)
    "Nothing more will be added."
    cleared: bool = field(default=False, init=False)
    "It was cut off; what had not been sent by then is gone."

    _frames: deque[bytes] = field(default_factory=deque, init=False)
    _tail: bytes = field(default=b"", init=False)
    _kept: deque[bytes] = field(default_factory=deque, init=False)
    "The frames that were sent last, for a far end that is lost before it has played them."
    # Counted in bytes of real audio: the silence that fills a last frame is not queued, sent or heard.
    _queued: int = field(default=0, init=False)
    _sent: int = field(default=0, init=False)
    _dropped: int = field(default=0, init=False)
    _heard: int = field(default=0, init=False)
    "In spans that are over."
    _told: int = field(default=0, init=False)
    "The most that was ever said to be heard: that answer must not shrink."
    _began_at: float | None = field(default=None, init=False)
    _ended_at: float | None = field(default=None, init=False)
    _held: bool = field(init=False)
    _held_since: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._held = not self.live

    @property
    def queued_ms(self) -> int:
        """All that was given to play so far, sent or not, less what was dropped."""
        return self._queued * 1000 // self._bytes_per_s

    @property
    def sent_ms(self) -> int:
        """What has been sent so far; at most `queued_ms`."""
        return self._sent * 1000 // self._bytes_per_s

    @property
    def waiting_ms(self) -> int:
        """What is still to be sent; nothing once it is cleared."""
        return 0 if self.cleared else (self._queued - self._sent) * 1000 // self._bytes_per_s

    @property
    def dropped_ms(self) -> int:
        """What a live utterance lost because it came faster than it could be played."""
        return self._dropped * 1000 // self._bytes_per_s

    @property
    def began_at(self) -> float | None:
        """When its first sound is heard; None before anything of it was sent. It moves with what the kernel holds."""
        return self._began_at

    def __repr__(self) -> str:
        state = "cleared" if self.cleared else "finished" if self.finished else "open"
        return f"<Utterance {self.id} {state} queued={self.queued_ms} sent={self.sent_ms}>"
