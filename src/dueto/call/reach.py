"""How a call reaches its switch: the control leg, or the inbound event socket where there is none."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from dueto.call.house import House
from dueto.call.latch import Latch
from dueto.call.phase import CallState, Leg, Phase
from dueto.call.registry import Registry
from dueto.errors import NotCapable
from dueto.legs.ports import ControlLeg, MediaLeg
from dueto.wire.esl import Api
from dueto.wire.media import Dialect

if TYPE_CHECKING:
    from dueto.call.voice import Voice

_UP, _ENDED = Leg.UP, Phase.ENDED
"Looked up once: a member of an Enum costs as much as a call, and these are asked for every frame, and more."


class Reach:
    """The part of a session that asks the switch for something. It changes nothing about the call itself."""

    unique_id: str
    house: House
    registry: Registry
    state: CallState
    control: ControlLeg | None = None
    media: MediaLeg | None = None
    stream_away: bool = False
    "The stream is over for now, by what the channel is doing; it comes back by itself."
    control_up: Latch
    voice: "Voice"
    started_with: Dialect | None = None
    "How we started its stream, where that had to be found out."
    b_leg: str = ""
    "The Unique-ID of a channel that is being placed for this call, and dies with it."

    @property
    def ended(self) -> bool:
        """Whether the call is over."""
        return self.state.phase is _ENDED

    def can(self, verb: str) -> bool:
        """Whether `verb` could work right now."""
        if self.ended:
            return False
        control = self.control_now()
        link = self.house.switch
        api = (control is not None and control.capabilities.api) or (link is not None and link.up)
        if verb == "listen":
            return self.voice.hearing is not None
        if verb in ("answer", "execute", "pre_answer", "ring_ready"):
            return control is not None
        if verb in ("park", "play"):
            return control is not None and control.capabilities.api
        if verb == "gather":
            return control is not None or self.state.control is Leg.AWAITED
        if verb in ("say", "write"):
            media = self.media_now()
            return media is not None and (
                media.dialect.downlink == "stream" or (api and media.dialect.downlink == "file")
            )
        return api

    def media_now(self) -> MediaLeg | None:
        """The stream, if it is up."""
        return self.media if self.state.media is _UP and not self.stream_away else None

    def control_now(self) -> ControlLeg | None:
        """The control leg, if it is up."""
        return self.control if self.control is not None and not self.control.closed else None

    async def control_soon(self, patience_s: float) -> ControlLeg | None:
        """The control leg, waited for where media came first and control may still come."""
        if self.state.control is Leg.AWAITED and self.house.rules.control_expected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self.control_up.wait()
        return self.control_now()

    async def switch(self) -> ControlLeg:
        """The control leg for a verb that needs the api. Raises: NotCapable: says what is missing."""
        control = await self.control_soon(self.house.rules.warn_after_s)
        if control is None:
            raise NotCapable("the call has no control leg, and no inbound event socket is configured")
        if not control.capabilities.api:
            raise NotCapable("the dialplan's socket lacks `full`: write `socket HOST:PORT async full`")
        return control

    def note_state(self, state: str) -> None:
        """Leave word on the channel of how it stands, for a gateway that comes back (`Desk.take_back`)."""
        control = self.control_now()
        if self.house.mark and control is not None and control.capabilities.api:
            control.post(Api("uuid_setvar", f"{self.unique_id} dueto_state {state}"))

    def cancel_b_leg(self) -> None:
        """Kill the channel placed for this call, at once."""
        unique_id, self.b_leg = self.b_leg, ""
        self.kill(unique_id)

    def kill(self, unique_id: str) -> None:
        """Kill a channel that we placed, on every way there is: our own leg may be closing."""
        control = self.control_now()
        if control is not None and control.capabilities.api:
            control.post(Api("uuid_kill", f"{unique_id} ORIGINATOR_CANCEL"))
        self.registry.cancel(unique_id)

    async def api(self, command: str, argument: str, *, timeout_s: float = 5.0) -> str:
        """Run an api command: on the control leg, or where there is none over the inbound event socket.

        Raises: NotCapable, CommandRefused, LegClosed, ReplyTimeout.
        """
        link = self.house.switch
        if link is not None and link.up and self.control_now() is None and self.state.control is not Leg.AWAITED:
            return await link.api(command, argument, timeout_s=timeout_s)
        try:
            control = await self.switch()
        except NotCapable:
            if link is None or not link.up:
                raise
            return await link.api(command, argument, timeout_s=timeout_s)
        return await control.api(command, argument, timeout_s=timeout_s)

    async def job(self, command: str, argument: str, *, timeout_s: float) -> str:
        """Run what takes its time, where it stands in nobody's way: as a job of the inbound socket, or of our own leg.

        Raises: NotCapable, CommandRefused, LegClosed, ReplyTimeout.
        """
        link = self.house.switch
        if link is not None and link.up:
            return await link.job(command, argument, timeout_s=timeout_s)
        return await (await self.switch()).job(command, argument, timeout_s=timeout_s)

    @property
    def dialect(self) -> Dialect:
        """How this call's stream is spoken with."""
        return self.media.dialect if self.media is not None else self.started_with or self.house.dialect

    def stream_base_url(self) -> str:
        """`ws://HOST:PORT` under which the switch reaches us: configured, or as it did before."""
        return self.house.rules.public_url or (self.media.base_url if self.media is not None else "")
