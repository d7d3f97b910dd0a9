"""Where both kinds of legs report, and are joined by the channel's Unique-ID. The one registry of calls."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

from dueto.call.house import House
from dueto.call.phase import ChannelGone, HangupAsked
from dueto.call.session import Session
from dueto.call.tasks import Tasks
from dueto.errors import CommandRefused, DuetoError, LegClosed, Refused, ReplyTimeout
from dueto.legs.ports import ControlLeg, ControlSink, MediaLeg, SwitchLink
from dueto.wire.esl import Api, Event
from dueto.wire.media import StreamRequest
from dueto.wire.media.token import token_is_valid

REMEMBERED = 1000
"How many ended calls are remembered, so that a late stream of one is refused and makes no new call."
KILL_S = 1.0
"How long a gateway that closes waits for what it told the switch last."


class Desk:
    """Pairs legs, admits them, and forgets calls that are over. Nothing here polls."""

    def __init__(self, house: House, *, takes_back: bool = True) -> None:
        """`takes_back`: whether calls of an earlier life of this gateway are looked for (`take_back`)."""
        self.house = house
        self._takes_back = takes_back
        self.draining = False
        self._sessions: dict[str, Session] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._expected: OrderedDict[str, House | None] = OrderedDict()
        self._empty = asyncio.Event()
        self._empty.set()
        self._tasks = Tasks("desk", self._task_failed, lambda: None)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    @property
    def full(self) -> bool:
        """Whether no further call is taken."""
        return len(self._sessions) >= self.house.rules.max_calls

    def find(self, unique_id: str) -> Session | None:
        """The session of a channel, if there is one."""
        return self._sessions.get(unique_id)

    async def empty(self) -> None:
        """Wait until no call is left."""
        await self._empty.wait()

    # -- control legs

    def control_came(self, leg: ControlLeg) -> None:
        """A control leg knows its channel: join it to its session, or begin one."""
        session = self._sessions.get(leg.unique_id)
        if session is not None:
            session.control_came(leg)
        elif leg.unique_id in self._expected:
            self._expected_came(leg)
        elif leg.channel.get("Answer-State") == "hangup":
            leg.notify_session_ended("the channel is gone already")
        elif self.draining or self.full:
            self._turn_away(leg, "draining" if self.draining else "full")
        else:
            self._ended.pop(leg.unique_id, None)  # it came back through the dialplan
            self._begin(leg.unique_id).control_came(leg)

    # -- channels of our own

    def expect(self, unique_id: str, house: House) -> None:
        """A channel with this Unique-ID is being placed for us: when its control leg comes, `house` is its own."""
        self._expected[unique_id] = house
        while len(self._expected) > REMEMBERED:
            self._expected.popitem(last=False)

    def cancel(self, unique_id: str, cause: str = "ORIGINATOR_CANCEL") -> None:
        """Nobody wants that channel any more: kill it, wherever it stands. A leg that still comes is not let in."""
        if unique_id in self._expected:
            self._expected[unique_id] = None
        session = self._sessions.get(unique_id)
        if session is not None:
            session.happen(HangupAsked(cause))
        elif self.house.switch is not None:
            self._tasks.start("cancel", self._kill(self.house.switch, unique_id, cause))

    async def take_back(self) -> int:
        """Find the calls that an earlier life of this gateway left with an agent, and have the switch dial us again.

        Returns how many. They are known by `dueto_owner`, and not touched while bridged or in the dialplan's fall-back.
        Raises: LegClosed, ReplyTimeout: the inbound socket failed meanwhile.
        """
        link, address, taken = self.house.switch, self.house.whereabouts.control, 0
        if link is None or not address or self.draining:
            return 0
        rules = replace(self.house.rules, stream_start="gateway")
        for row in await link.channels():
            unique_id = row.unique_id
            if unique_id in self._sessions or unique_id in self._expected:
                continue
            with contextlib.suppress(CommandRefused):  # gone meanwhile
                if await link.api("uuid_getvar", f"{unique_id} dueto_owner") != address:
                    continue
                if await link.api("uuid_getvar", f"{unique_id} dueto_state") != "agent":
                    continue
                self.expect(unique_id, replace(self.house, rules=rules))
                await link.api("uuid_transfer", f"{unique_id} 'socket:{address} async full' inline")
                self.house.journal(unique_id, "taken_back", {"caller": row.caller_number})
                taken += 1
        return taken

    def switch_up(self) -> None:
        """The inbound socket is up (again): what happened meanwhile has to be asked for."""
        self._tasks.start("take back", self._census())

    async def _census(self) -> None:
        try:
            if self._takes_back:
                await self.take_back()
            link = self.house.switch
            for session in self:
                if link is not None and session.control_now() is None and not await link.exists(session.unique_id):
                    session.happen(ChannelGone(None, "uuid_exists"))
        except (LegClosed, ReplyTimeout):
            pass  # the next connect asks again

    async def _kill(self, switch: SwitchLink, unique_id: str, cause: str) -> None:
        with contextlib.suppress(DuetoError):  # gone already, or nobody is left to tell
            await switch.api("uuid_kill", f"{unique_id} {cause}")

    def _expected_came(self, leg: ControlLeg) -> None:
        house = self._expected.pop(leg.unique_id)
        if house is not None and leg.channel.get("Answer-State") != "hangup":
            self._begin(leg.unique_id, house).control_came(leg)
            return
        leg.attach(_Nobody())
        leg.post(Api("uuid_kill", f"{leg.unique_id} ORIGINATOR_CANCEL"))
        leg.notify_session_ended("nobody wants it any more")

    def _turn_away(self, leg: ControlLeg, reason: str) -> None:
        """The dialplan hears why, in `dueto_result`, and goes on."""
        self.refused("control", reason, leg.peer)
        leg.attach(_Nobody())
        self._tasks.start("turn away", self._return(leg, reason))

    async def _return(self, leg: ControlLeg, reason: str) -> None:
        try:
            if leg.capabilities.api:
                await leg.api("uuid_setvar", f"{leg.unique_id} dueto_result {reason}", timeout_s=2.0)
            else:
                await leg.execute("set", f"dueto_result={reason}", timeout_s=2.0)
        except DuetoError:
            pass  # the caller has hung up, or the switch is gone: nobody is left to tell
        finally:
            leg.notify_session_ended(reason)

    # -- media legs

    def admit_media(self, request: StreamRequest) -> None:
        """Decide on a stream before its upgrade, by its token and by what its call is in.

        Raises: Refused: 401 for the token; 409, 410 for its call; 503 while full or draining.
        """
        session = self._sessions.get(request.unique_id)
        rules = self.house.rules
        own = session is not None and request.token in session.tokens
        if rules.token_required and not own and not token_is_valid(rules.secret, request.unique_id, request.token):
            raise Refused("bad_token", "the token is missing or not this channel's", status=401)
        if session is None:
            if request.unique_id in self._ended:
                raise Refused("call_over", "that call is over", status=410)
            if self.draining or self.full:
                raise Refused("draining" if self.draining else "full", "no call is taken now", status=503)
        elif session.ended or session.leaving:
            raise Refused("call_over", "that call is over", status=410)
        elif session.media is not None and not session.media.closed and not own:
            raise Refused("second_stream", "that call has a stream", status=409)
        elif session.voice.hearing is not None and session.rate_hz != request.rate_hz:
            raise Refused("other_rate", f"that call runs at {session.rate_hz} Hz", status=409)

    def media_came(self, leg: MediaLeg) -> None:
        """A stream is up: join it to its session, or begin one."""
        session = self._sessions.get(leg.request.unique_id)
        if session is None:
            session = self._begin(leg.request.unique_id)
        elif not self.house.rules.token_required and session.media is not None and session.media.peer != leg.peer:
            self.refused("media", "other_address", leg.peer)  # without tokens, the address is all that can be checked
            leg.close(1008, "not from there")
            return
        session.media_came(leg)

    def refused(self, leg: str, reason: str, peer: str) -> None:
        """Count a connection that was turned away."""
        self.house.journal("", "refused", {"leg": leg, "reason": reason, "peer": peer})

    # -- the end

    async def drain(self, patience_s: float) -> None:
        """Take no new call, let the running ones finish for `patience_s`, then return the rest to the dialplan."""
        self.draining = True
        try:
            async with asyncio.timeout(patience_s):
                await self.empty()
        except TimeoutError:
            for session in self:
                session.leave(dueto_result="draining")
            async with asyncio.timeout(10.0):
                await self.empty()

    async def aclose(self) -> None:
        """End every call at once: the channels stay with the switch, their agents are cancelled."""
        self.draining = True
        for session in self:
            session.notify_session_ended("closing")
        await self._tasks.finish(KILL_S)  # channels of ours that still ring are killed
        try:
            async with asyncio.timeout(self.house.rules.closing_s + 5.0):
                await self.empty()
        except TimeoutError:
            for session in self:
                session.abort()

    def _begin(self, unique_id: str, house: House | None = None) -> Session:
        session = Session(unique_id, house or self.house, self)
        self._sessions[unique_id] = session
        self._empty.clear()
        return session

    def over(self, session: Session) -> None:
        """Forget a call that has let go of everything."""
        if self._sessions.get(session.unique_id) is session:
            del self._sessions[session.unique_id]
        if session.hung_up:
            self._ended[session.unique_id] = None
            while len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        if not self._sessions:
            self._empty.set()

    def _task_failed(self, name: str, error: BaseException) -> None:
        self.house.journal("", "task_failed", {"task": name, "error": f"{type(error).__name__}: {error}"})


class _Nobody(ControlSink):
    """Listens to a leg that has no call."""

    def control_event(self, leg: ControlLeg, event: Event) -> None:
        pass

    def control_lingering(self, leg: ControlLeg) -> None:
        pass

    def control_closed(self, leg: ControlLeg, reason: str) -> None:
        pass
