"""Who calls, and how they behave: a script that says, presses, listens and hangs up."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from dueto.audio import frame_bytes
from dueto.errors import DuetoError
from dueto.sim.sounds import load

if TYPE_CHECKING:
    from dueto.sim.call import SimCall

LOUD: Final = 600
"A frame with a sample above this (of 32768; -35 dBFS) is speech, below it silence."
FRAME_MS: Final = 20


class NotHeard(DuetoError):
    """What the caller's script waited for did not come in time."""


Script = Callable[["Line"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Caller:
    """One telephone call to be placed."""

    number: str = "1001"
    name: str = ""
    "The display name; empty: the number stands there."
    script: Script | None = None
    "What the caller does once the call is up; when it returns, the caller hangs up. None: stays until hung up."
    destination: str = "dual"
    "What was dialled: an extension of the switch, or anything else for its standard dialplan."
    secretary: str = "11111111-2222-4333-8444-555555555555"
    "Fills `{secretary}` in the switch's media URL."
    rate_hz: int = 8000
    "8000: PCMU, and no sound above 4 kHz; 16000: a wideband codec. The rate of `heard` and `said`."
    unique_id: str = ""
    "The channel's Unique-ID; empty: the switch makes one."
    variables: tuple[tuple[str, str], ...] = ()
    "Channel variables set before the dialplan begins."
    echoes: bool = False
    "Says back what it heard, a frame later, unless it has something to say itself."
    measure_echo: bool = False
    "Send frames that are recognised when they come back, and time them. Best with `rate_hz` = the stream's rate."


class Line:
    """The caller's telephone, as a script sees it. Times are those of the switch's clock.

    Everything that waits is safe to cancel. When the call ends, a running script is cancelled.
    """

    def __init__(self, call: "SimCall") -> None:
        self._call = call
        self._rate_hz = call.caller.rate_hz
        self._speech: deque[bytes] = deque()
        self._spoken: asyncio.Future[None] | None = None
        self._listeners: list[_Listener] = []
        self._bridged: asyncio.Event = asyncio.Event()

    async def say(self, what: bytes | str | Path) -> None:
        """Say something, L16 at the caller's rate or a WAV, and return when it has been said.

        Raises: NoSuchSound: no such file, or no WAV.
        """
        size = frame_bytes(self._rate_hz)
        pcm = load(what, self._rate_hz)
        if self._call.hangup_cause:
            return
        self._call.note("caller", "say", ms=len(pcm) * 500 // self._rate_hz)
        for at in range(0, len(pcm), size):
            self._speech.append(pcm[at : at + size].ljust(size, b"\0"))
        while self._speech:
            if self._spoken is None:
                self._spoken = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._spoken)

    async def wait(self, seconds: float) -> None:
        """Stay silent for a while."""
        await asyncio.sleep(seconds)

    async def press(self, digits: str, *, ms: int = 160, source: str = "RTP") -> None:
        """Press keys, one after the other, each for `ms`. `source`: RTP (RFC 2833), or ENDPOINT (SIP INFO)."""
        for digit in digits:
            if source == "RTP":
                await asyncio.sleep(ms / 1000)
            self._call.note("caller", "press", digit=digit)
            self._call.channel.press(digit, ms * 8, source)

    async def hears_speech(self, timeout: float = 10.0) -> None:
        """Wait until something is heard.

        Raises: NotHeard: it stayed silent.
        """
        await self._listen(_Listener(loud=True, frames=1), timeout, "speech")

    async def hears_silence(self, ms: int = 700, timeout: float = 30.0) -> None:
        """Wait until it has been silent for `ms`, counted from now.

        Raises: NotHeard: it never was.
        """
        await self._listen(_Listener(loud=False, frames=math.ceil(ms / FRAME_MS)), timeout, f"{ms} ms of silence")

    async def bridged(self, timeout: float = 10.0) -> str:
        """Wait until the call is connected with somebody; return that leg's Unique-ID.

        Raises: NotHeard: nobody came.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._bridged.wait()
        except TimeoutError:
            raise NotHeard(f"not bridged within {timeout} s") from None
        return self._call.bridged_to

    def has_legs(self, *, control: bool = True) -> bool:
        """Tell whether both legs are with the gateway by now; with `control=False`, whether its media leg is."""
        return bool(self._call.media_opened_at and (self._call.control_opened_at or not control))

    async def until_hangup(self, timeout: float = 60.0) -> None:
        """Stay on the line until the other side hangs up, which ends the script.

        Raises: NotHeard: nobody did.
        """
        await asyncio.sleep(timeout)
        raise NotHeard(f"nobody hung up within {timeout} s")

    def hangup(self, cause: str = "NORMAL_CLEARING") -> None:
        """Hang up. A call that was not answered is cancelled, whatever the cause."""
        self._call.hang_up(cause)

    def hold(self) -> None:
        """Put the other side on hold (re-INVITE)."""
        self._call.channel.hold(True, by_caller=True)

    def unhold(self) -> None:
        """Take it back."""
        self._call.channel.hold(False, by_caller=True)

    async def _listen(self, listener: "_Listener", timeout: float, what: str) -> None:
        self._listeners.append(listener)
        try:
            async with asyncio.timeout(timeout):
                await listener.heard
        except TimeoutError:
            raise NotHeard(f"{self._call.caller.number} heard no {what} within {timeout} s") from None
        finally:
            self._listeners.remove(listener)

    def hung_up(self) -> None:
        """The call is over: whoever still says something is not heard any more."""
        self._speech.clear()
        if self._spoken is not None and not self._spoken.done():
            self._spoken.set_result(None)
        self._spoken = None

    # -- the call's side: once per frame ---------------------------------------------------------------------------

    def next_frame(self) -> bytes | None:
        """Return what is said in this frame; None: silence."""
        if not self._speech:
            return None
        frame = self._speech.popleft()
        if not self._speech and self._spoken is not None:
            if not self._spoken.done():
                self._spoken.set_result(None)
            self._spoken = None
        return frame

    def take(self, heard: bytes | None) -> None:
        """Take what is heard in this frame; None: silence."""
        if self._listeners:
            loud = heard is not None and bool((np.abs(np.frombuffer(heard, "<i2").astype(np.int32)) > LOUD).any())
            for listener in tuple(self._listeners):
                listener.take(loud)

    def was_bridged(self) -> None:
        """Tell whoever waits in `bridged`."""
        self._bridged.set()


class _Listener:
    """Waits for a run of frames that are all loud, or all silent."""

    def __init__(self, *, loud: bool, frames: int) -> None:
        self.heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loud, self._left, self._frames = loud, frames, frames

    def take(self, loud: bool) -> None:
        self._left = self._left - 1 if loud == self._loud else self._frames
        if self._left <= 0 and not self.heard.done():
            self.heard.set_result(None)
