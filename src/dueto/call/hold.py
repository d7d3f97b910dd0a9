"""Hold: the switch is told, its event is waited for, and the caller hears music, or nothing, meanwhile."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from dueto.call.events import CallEvent, Held, Resumed
from dueto.call.part import Part
from dueto.errors import DuetoError, ReplyTimeout
from dueto.wire.esl import Api, checked

if TYPE_CHECKING:
    from dueto.call.session import Session

HELD_S = 3.0
"How long a hold may take to be told."
HOLD_MUSIC = "local_stream://moh"
SILENCE = "silence"


class Hold(Part):
    """What one caller hears from the switch while nobody speaks to him, and who put him on hold.

    `uuid_hold` signals the hold to the caller's telephone, but its music goes to the channel that is bridged with it,
    which a caller in our hands has none of (`switch_ivr.c`: `switch_ivr_hold`). So the music is a playback of ours.
    """

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        self._music: asyncio.Task[None] | None = None
        self.ours = False
        "A verb of ours put the caller on hold, not his telephone."
        self._given_up = False
        "Whoever asked for a hold did not wait for it: it may still come."

    async def begin(self, music: str = "") -> None:
        """Put the caller on hold; one who is on hold already is success. Raises: ReplyTimeout, CommandRefused, ..."""
        session = self._session
        checked(music, "music")
        if session.state.held:
            return
        self.ours = True
        try:
            await self._until_told(Held, session.unique_id)
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)  # long before it would have failed
            self._given_up = cancelled or isinstance(error, ReplyTimeout)
            self.ours = cancelled or session.state.held
            raise
        self.play(music or HOLD_MUSIC)

    async def end(self) -> None:
        """Take the caller back; one who is not on hold is success. Raises: as `begin`."""
        session = self._session
        if not (session.state.held or self._given_up):
            return
        try:
            await self._until_told(Resumed, f"off {session.unique_id}")
        except ReplyTimeout:
            if session.state.held:
                raise
            self.ours = self._given_up = False  # the hold that was given up never came: there is nothing to end

    def over(self) -> None:
        """CHANNEL_UNHOLD came, whoever asked for it."""
        self.ours = self._given_up = False
        self.stop()

    # -- what is heard meanwhile

    @property
    def audible(self) -> bool:
        """Whether the switch may be playing music for us."""
        return self._music is not None and not self._music.done()

    def play(self, *sounds: str) -> None:
        """Let the caller hear the first of `sounds` that the switch has, until `stop`; `silence` is nothing."""
        self.stop()
        if sounds[0] != SILENCE and self._session.control_now() is not None:
            self._music = self._session.tasks.start("hold music", self._play(sounds))

    def stop(self) -> None:
        """The music is over."""
        music, self._music = self._music, None
        if music is None:
            return
        music.cancel()
        control = self._session.control_now()
        if control is not None and not self._session.ended:
            control.post(Api("uuid_break", f"{self._session.unique_id} all"))

    async def _play(self, sounds: tuple[str, ...]) -> None:
        control = self._session.control_now()
        with contextlib.suppress(DuetoError), self._session.application("playback"):
            for sound in sounds:
                if control is not None:
                    await control.execute("playback", sound)

    async def _until_told(self, kind: type[CallEvent], argument: str) -> None:
        """`uuid_hold` says +OK whatever becomes of it: only its event tells."""
        session = self._session
        told = asyncio.Event()
        with session.seat.tapped(lambda event: told.set() if isinstance(event, kind) else None):
            await session.api("uuid_hold", argument)
            try:
                async with asyncio.timeout(HELD_S):
                    await told.wait()
            except TimeoutError:
                raise ReplyTimeout(f"the switch told of no {kind.__name__.lower()} within {HELD_S} s") from None
