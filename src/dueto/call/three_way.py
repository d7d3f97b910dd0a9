"""Caller, other side and agent in one conversation: a conference on the switch, with the agent's own leg a member.

The agent's leg is a loopback channel whose far half sits in the conference; the call's stream moves there, so that
everything the agent has (its voice, its ears, barge-in) now meets both. It moves back, or ends, when the agent leaves.
"""

import asyncio
import contextlib
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from dueto.call.phase import Leg
from dueto.call.placing import mint
from dueto.call.unicast import LOOPBACK_HZ
from dueto.errors import CommandRefused, DuetoError, NotCapable
from dueto.legs.originate import dialled, without_breakers
from dueto.legs.ports import ControlLeg

if TYPE_CHECKING:
    from dueto.call.session import Session

MOVED_S = 3.0
"How long the stream may take to come up on the agent's leg."


class ThreeWay:
    """A conference of the caller (`session`), the other side (`other_id`), and the agent's leg."""

    def __init__(self, session: "Session", other_id: str) -> None:
        self._session = session
        self._other_id = other_id
        self._name = f"dueto-{session.unique_id}"
        self._agent_id = ""
        self._moved = False

    @staticmethod
    def check(session: "Session") -> None:
        """Raises: NotCapable: this call's stream can't move to a leg of the agent's own; the text says why."""
        if session.unicast is not None:
            if session.rate_hz != LOOPBACK_HZ:
                raise NotCapable(f"over unicast an attended transfer needs a caller at {LOOPBACK_HZ} Hz")
            if not session.house.whereabouts.control:
                raise NotCapable("an attended transfer needs [control] public_address")
            return
        media = session.media_now()
        if media is None or media.dialect.downlink != "stream":
            raise NotCapable("an attended transfer needs a stream that carries the agent's voice (docs/calls.md)")
        if not session.house.whereabouts.control or not session.stream_base_url():
            raise NotCapable("an attended transfer needs [control] public_address and [media] public_url")

    async def open(self) -> None:
        """Put all three into it. Raises: NotCapable, CommandRefused, LegClosed, ReplyTimeout, TimeoutError."""
        session = self._session
        self.check(session)
        control = await session.switch()
        await self._place_agent_leg()
        if session.unicast is not None:
            await session.unicast.move(self._agent_id)
        else:
            await self._move_stream(control)
        self._moved = True
        for unique_id in (self._other_id, session.unique_id):
            await control.api("uuid_transfer", f"{unique_id} conference:{self._name}@default inline")
        session.journal("conference", b_leg=self._other_id, name=self._name)

    async def _move_stream(self, control: ControlLeg) -> None:
        """Begin a second stream on the agent's leg, then end the first one."""
        session = self._session
        media = session.media_now()
        assert media is not None
        request = replace(media.request, token=secrets.token_urlsafe(24))
        session.tokens |= {request.token}
        url = session.house.path.build(session.stream_base_url(), request)
        session.media_up.clear()
        dialect = media.dialect
        await control.api(dialect.command, dialect.start(self._agent_id, url, "mono", request.rate_hz))
        async with asyncio.timeout(MOVED_S):
            await session.media_up.wait()
        with contextlib.suppress(CommandRefused):
            await control.api(dialect.command, f"{session.unique_id} stop")

    async def _place_agent_leg(self) -> None:
        """A loopback channel: one half in the conference, the other parked, where our stream hears and speaks."""
        self._agent_id = mint()
        dial = f"loopback/conference:{self._name}@default/default/inline"
        number = without_breakers(self._session.caller_number)  # whoever looks at the switch sees whose leg it is
        variables = {"hangup_after_bridge": "true", "origination_caller_id_number": number}
        argument = f"{dialled(dial, self._agent_id, variables)} &park()"
        await self._session.job("originate", argument, timeout_s=10.0)

    def close(self) -> None:
        """The agent leaves; the other two stay. Its leg ends, and the call's stream with it."""
        if not self._agent_id:
            return
        agent_id, self._agent_id = self._agent_id, ""
        if self._session.unicast is not None:
            self._session.unicast.left()
        self._session.kill(agent_id)

    async def bring_back(self) -> None:
        """Nothing came of it: the caller leaves the conference, and is in our hands as before."""
        session = self._session
        address, control = session.house.whereabouts.control, session.control_now()
        if control is None or session.ended or not self._moved:
            return
        with contextlib.suppress(DuetoError):
            await control.api("uuid_transfer", f"{session.unique_id} 'socket:{address} async full' inline")
        if session.state.media is not Leg.UP:
            with contextlib.suppress(DuetoError):
                await session.conduct.start_stream()
