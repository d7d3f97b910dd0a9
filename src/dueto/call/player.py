"""One call's way down: what is being said, and who plays it (`stream_player.py`, `file_player.py`)."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from dueto.errors import DuetoError


class Saying(Protocol):
    """Something being said, whole or while it is still being made. `await heard()` returns when it was heard."""

    @property
    def interruptible(self) -> bool:
        """Whether a caller who speaks may cut it."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing more comes."""
        ...

    def add(self, pcm: bytes) -> None:
        """Say more: L16 mono at the call's rate, of any length. Of what was cut already, nothing is said.

        Raises: LocalProtocolError: it is finished, or more waits than may. NotCapable: it can't be heard.
        """
        ...

    def finish(self) -> None:
        """Nothing more comes. Again: nothing to do."""
        ...

    async def heard(self) -> None:
        """Wait until all of it was heard; it has to be finished for that. Safe to cancel: it is said all the same.

        Raises: Interrupted: it was cut; NotCapable, LegClosed, ...: it can't be heard.
        """
        ...

    @property
    def heard_ms(self) -> int:
        """How much of it the caller has heard by now."""
        ...

    @property
    def queued_ms(self) -> int:
        """How much of it there is so far, heard or not."""
        ...

    @property
    def began_at(self) -> float | None:
        """When the caller hears, or heard, its first sound, on the call's clock; None while that is not known."""
        ...

    @property
    def done(self) -> bool:
        """Whether it was heard, cut, or failed."""
        ...

    @property
    def interrupted(self) -> bool:
        """Whether it ended before all of it was heard."""
        ...

    on_end: Callable[[], None] | None
    "Called once, when it is done."


Silent = Callable[[float, str], None]
"""Is told when the caller hears, or heard, the last of what was cut, on the call's clock; and how that is known:
`ledger` (by what was sent), `marks` (the far end said so), `switch` (it answered that it broke off)."""


class Outcome:
    """How a saying ends: once, for everybody who waits for it, and for nobody if nobody does."""

    def __init__(self) -> None:
        self.on_end: Callable[[], None] | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done.add_done_callback(_retrieve)

    async def heard(self) -> None:
        """Wait until all of it was heard. Raises: as `Saying.heard`."""
        await asyncio.shield(self._done)

    @property
    def done(self) -> bool:
        """Whether it was heard, cut, or failed."""
        return self._done.done()

    @property
    def interrupted(self) -> bool:
        """Whether it ended before all of it was heard."""
        return self._done.done() and self._done.exception() is not None

    def end(self, error: DuetoError | None = None) -> None:
        """Resolve it; once."""
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()


def nobody() -> None:
    """The leg of a call that is over."""


def _retrieve(future: "asyncio.Future[None]") -> None:
    if not future.cancelled():
        future.exception()


class Tape(Protocol):
    """Keeps what the caller heard of us, when he heard it: a recording."""

    def heard(self, pcm: bytes, at: float) -> None:
        """L16 mono at the call's rate that sounds from `at` on (the call's clock); it may lie ahead by the lead."""
        ...

    def cut(self, at: float) -> None:
        """What was to sound after `at` was cut off after all."""
        ...


class Player(Protocol):
    """One call's way down."""

    tape: Tape | None
    "Who keeps what was heard, if somebody does."

    @property
    def frames_sent(self) -> int:
        """How many frames of 20 ms went down."""
        ...

    def open(self, *, interruptible: bool = True) -> Saying:
        """Begin to say something, behind what is being said already."""
        ...

    def write(self, frame: bytes) -> None:
        """Live audio: as soon as possible, dropping the oldest where too much waits."""
        ...

    def clear(self, *, everything: bool = True, breaks: bool = True, silent: Silent | None = None) -> int:
        """Silence now: what was not heard yet is gone, as far as the dialect can. Returns the ms heard of what was cut.

        Without `everything`, what is not interruptible plays on. Without `breaks`, the switch is not told to break off
        what it runs: it runs a bridge. `silent` is called, once, when the end of what was sounding is known.
        """
        ...

    def text(self, text: str) -> bool:
        """A text of the audio module. Returns whether it was meant for us."""
        ...

    def stream_lost(self, *, stopped: bool) -> None:
        """The stream is gone, and with it what the far end had not played: it is said again on the next one.

        `stopped`: by `stop`, or by us; else its connection broke.
        """
        ...

    def stream_came(self) -> None:
        """A new stream is here."""
        ...

    def end(self) -> None:
        """The call is over."""
        ...

    def release(self) -> None:
        """Nothing of the call goes on: let go of it."""
        ...

    @property
    def underruns(self) -> int:
        """How often the caller heard a gap in the middle of something."""
        ...

    @property
    def dropped_ms(self) -> int:
        """How much live audio was dropped to stay live."""
        ...

    def idle(self) -> bool:
        """Whether the caller has heard all there was."""
        ...

    async def quiet(self) -> None:
        """Wait until `idle`, or until nobody can hear it any more."""
        ...

    def call_changed(self, audible: bool) -> None:
        """The state of the call is another, or its stream is. Live audio is dropped while nobody may hear it."""
        ...

    def pause(self, paused: bool) -> None:
        """Hold: nothing goes down until it is over."""
        ...
