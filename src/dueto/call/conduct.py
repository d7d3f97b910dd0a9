"""What a call does that takes time: start its stream, let go, hang up, rescue a caller whose agent failed.

Each of these runs as a task of the call, has a deadline, and ends in an event to the phase machine.
"""

import asyncio
import contextlib
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from dueto.call import phase
from dueto.call.consult import Consultation, Introduce
from dueto.call.hours import open_destination
from dueto.call.part import Part
from dueto.call.ports import Accept, Announce, Destination, Mode, TransferResult
from dueto.call.transfer import VARIABLES_OF_THIS_ATTEMPT, failed_bridge, referred
from dueto.errors import CommandRefused, DuetoError, LegClosed, NotCapable, ReplyTimeout
from dueto.legs.ports import ControlLeg
from dueto.wire.esl import Api, SendMsg
from dueto.wire.media import StreamRequest

if TYPE_CHECKING:
    from dueto.call.session import Session

LET_GO_S = 3.0
"How long hanging up or leaving may take before we call it done."
HEARD_S = 60.0
"How long the last words may take to be heard."
STREAM_S = 1.5
"How long a started stream has to be here: the module gives connect and upgrade one second."
TRIES = 3
REFER_S = 310.0
"How long a REFER may take: older switches wait for the telephone's word for five minutes, newer ones 10 s."
SLACK_S = 10.0
"What a bridge may take beyond its time-out: the switch counts whole seconds, and the far end may be slow to let go."
SORRY = "I am sorry, something went wrong. One moment, please."


class Conduct(Part):
    """The slow side of one session."""

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        self._result: dict[str, str] = {}
        self._cause = "NORMAL_CLEARING"
        self._parks = False

    @property
    def _control(self) -> ControlLeg | None:
        control = self._session.control
        return control if control is not None and not control.closed else None

    # -- the stream

    def can_start_stream(self) -> bool:
        """Whether we know how the switch reaches us, and have somebody to tell it."""
        control = self._control
        way = self._session.unicast is not None or self._session.stream_base_url()
        return bool(control is not None and control.capabilities.api and way)

    async def start_stream(self) -> None:
        """`stop` (its answer means nothing), then `start` with a token made for this session."""
        session, control = self._session, self._control
        if session.unicast is not None:
            await session.unicast.start()
            return
        if control is None or not self.can_start_stream():
            raise NotCapable("no control leg with `full`, or `media.public_url` is not set")
        last = session.media.request if session.media is not None else None
        request = last or StreamRequest(
            session.unique_id, session.secretary, session.caller_number, session.house.rules.rate_hz, "mono", ""
        )
        request = replace(request, token=secrets.token_urlsafe(24))
        session.tokens |= {request.token}
        url = session.house.path.build(session.stream_base_url(), request)
        if session.house.finder is not None and session.media is None:
            session.started_with = await session.house.finder.to_start(session, control)
        dialect = session.dialect
        session.voice.stream_lost(stopped=True)  # `stop` takes along what a lost stream still plays
        await self._stop_stream(control)
        for name, value in dialect.variables(request.rate_hz):
            control.post(Api("uuid_setvar", f"{session.unique_id} {name} {value}"))
        await control.api(dialect.command, dialect.start(session.unique_id, url, request.mix, request.rate_hz))

    async def _stop_stream(self, control: ControlLeg) -> None:
        session = self._session
        if session.unicast is not None:
            if session.media is not None:
                session.media.close()  # nothing on the switch hears or speaks to us any more
            return
        with contextlib.suppress(CommandRefused):
            await control.api(session.dialect.command, f"{session.unique_id} stop")

    def has_company(self) -> bool:
        """Whether `expect_media` has anything to do."""
        session = self._session
        rules = session.house.rules
        return session.unicast is not None or rules.stream_start == "gateway" or rules.while_waiting != "silence"

    async def expect_media(self) -> None:
        """Start the stream where that is ours to do; keep the caller company meanwhile."""
        session, control = self._session, self._control
        if session.unicast is not None:  # here within a frame or two: there is nothing to wait for in company
            await session.unicast.begin()
            return
        if session.house.rules.stream_start == "gateway":
            with contextlib.suppress(DuetoError):
                await self.start_stream()  # the warning comes if nothing comes of it, and starts it again
        tone = session.house.rules.while_waiting
        if tone != "silence" and control is not None and session.state.phase is phase.Phase.WAITING:
            session.waiting_tone = True
            with contextlib.suppress(DuetoError):
                await control.execute("playback", tone)

    async def late(self) -> None:
        """The warning time is over and no media leg came: start the stream ourselves, once, if we can."""
        if self.can_start_stream():
            with contextlib.suppress(DuetoError):
                await self.start_stream()

    async def restart_stream(self) -> None:
        """The stream is gone and the channel is thought to live: ask, then start again, three tries."""
        session, control = self._session, self._control
        with contextlib.suppress(DuetoError):
            if control is not None and control.capabilities.api:
                if await control.api("uuid_exists", session.unique_id) == "false":
                    session.happen(phase.ChannelGone(None, "uuid_exists"))
                    return
                if session.unicast is not None:
                    if not await session.unicast.again() and not session.sealed:  # sealed: a transfer of ours took it
                        session.leave(dueto_result="transferred")
                    return
                for _ in range(TRIES):
                    if session.state.media is phase.Leg.UP:
                        return
                    session.media_up.clear()
                    with contextlib.suppress(CommandRefused, NotCapable, TimeoutError):
                        await self.start_stream()
                        async with asyncio.timeout(STREAM_S):
                            await session.media_up.wait()
                        return
        if session.state.media is not phase.Leg.UP:
            self.result(dueto_result="no_media")
            session.happen(phase.RestartFailed())

    # -- the control leg

    async def reclaim(self) -> None:
        """The control leg is lost while audio flows: the inbound socket knows whether the channel lives, and where.

        Gone: the call is over. In the dialplan's fall-back: it is no longer ours, and the agent must not talk over it.
        Else the switch is told to dial us again.
        """
        session, link = self._session, self._session.house.switch
        address = session.house.whereabouts.control
        if link is None or not link.up or not address:
            return
        unique_id = session.unique_id
        try:
            if not await link.exists(unique_id):
                session.happen(phase.ChannelGone(None, "uuid_exists"))
            elif await link.api("uuid_getvar", f"{unique_id} dueto_state") == "fallback":
                session.leave(dueto_result="control_lost")
            elif session.state.phase is not phase.Phase.BRIDGED:
                await link.api("uuid_transfer", f"{unique_id} 'socket:{address} async full' inline")
        except DuetoError as error:
            session.journal("control_not_regained", reason=str(error))

    # -- somebody else

    async def transfer(
        self,
        target: str | Destination,
        mode: Mode | None,
        *,
        announce: str | bytes | Announce | None,
        accept: Accept,
        introduce: Introduce | None,
        ringback: str,
        timeout_s: float,
    ) -> TransferResult:
        """Call a destination; see `Call.transfer`."""
        session, destination = self._session, None
        if isinstance(target, Destination):
            destination, target = target, target.name
        elif target in session.house.destinations:
            destination = open_destination(target, session.house.destinations, session.house.local_time())
        else:
            known = ", ".join(session.house.destinations) or "none"
            raise NotCapable(f"no destination {target!r}; there are: {known}")
        if destination is None:
            session.journal("transfer", target=target, outcome="unreachable", cause="closed", took_ms=0)
            return TransferResult("unreachable", "closed")
        if session.state.phase in (phase.Phase.TRANSFERRING, phase.Phase.BRIDGED):
            raise NotCapable("the caller is being transferred, or talks to somebody else, already")
        mode = mode or destination.mode
        began = session.house.clock()
        session.happen(phase.TransferBegan())
        session.journal("transferring", target=target, mode=mode)
        try:
            if mode == "blind" and destination.via != "bridge":
                result = await self.hand_over(destination)
            elif mode == "blind":
                hangs_up = destination.after == "hangup"
                result = await self.bridge(destination, timeout_s=timeout_s, hangup_after=hangs_up)
            else:
                result = await Consultation(
                    session,
                    destination,
                    announce=announce,
                    accept=accept,
                    introduce=introduce if mode == "attended" else None,
                    ringback=ringback,
                    timeout_s=timeout_s,
                ).run()
        finally:
            session.happen(phase.TransferFailed())  # means nothing to a call that is bridged
        took_ms = round((session.house.clock() - began) * 1000)
        session.journal("transfer", target=target, outcome=result.outcome, cause=result.hangup_cause, took_ms=took_ms)
        return result

    async def bridge(self, destination: Destination, *, timeout_s: float, hangup_after: bool = False) -> TransferResult:
        """`execute bridge`, judged by its own completion and by CHANNEL_BRIDGE, never by what an earlier one left."""
        session = self._session
        control = await session.switch()
        for variable in VARIABLES_OF_THIS_ATTEMPT:
            control.post(Api("uuid_setvar", f"{session.unique_id} {variable}"))
        for variable in (
            "continue_on_fail true",
            f"hangup_after_bridge {str(hangup_after).lower()}",
            f"call_timeout {max(round(timeout_s), 1)}",
        ):
            control.post(Api("uuid_setvar", f"{session.unique_id} {variable}"))
        bridged = session.bridged = asyncio.get_running_loop().create_future()
        running = session.tasks.start("bridge", self._bridge(control, destination.dial))
        await asyncio.wait((running, bridged), return_when=asyncio.FIRST_COMPLETED, timeout=timeout_s + SLACK_S)
        if bridged.done():
            return TransferResult("bridged", "SUCCESS", b_leg=bridged.result())
        if running.done() and not running.cancelled():
            result: TransferResult = running.result()
            return result
        return TransferResult("failed")

    async def hand_over(self, destination: Destination) -> TransferResult:
        """Let the switch, or the caller's telephone (REFER), do it: nobody tells us what becomes of it."""
        session = self._session
        control = await session.switch()
        if destination.via == "refer":
            with session.application("deflect"):
                control.post(Api("uuid_setvar", f"{session.unique_id} sip_refer_reply"))
            return referred(await control.execute("deflect", destination.dial, timeout_s=REFER_S))
        await self._stop_stream(control)  # it would survive the transfer
        await control.api("uuid_transfer", f"{session.unique_id} {destination.dial}")
        session.leave(dueto_result="transferred")
        return TransferResult("let_go")

    async def _bridge(self, control: ControlLeg, dial: str) -> TransferResult:
        try:
            with self._session.application("bridge"):
                return failed_bridge(await control.execute("bridge", dial))
        except DuetoError as error:
            return TransferResult("failed", str(error))

    # -- letting go

    @property
    def gave_up(self) -> bool:
        """Whether the channel was let go because its stream never came."""
        return self._result.get("dueto_result") == "no_media"

    def result(self, **variables: str) -> None:
        """Variables the channel takes along when it leaves."""
        self._result |= variables

    def park(self) -> None:
        """When it comes to leaving: into the switch's park, not on in the dialplan."""
        self._parks = True

    def cause(self, cause: str) -> None:
        """The hangup cause, when it comes to hanging up."""
        self._cause = cause

    async def leave(self) -> None:
        """Give the channel back to the dialplan: first stop the stream (it survives the socket), then let go of it."""
        session = self._session
        session.let_go_within(2 * LET_GO_S + 1)
        control = await session.control_soon(LET_GO_S)
        with contextlib.suppress(DuetoError, TimeoutError):
            async with asyncio.timeout(LET_GO_S):
                if control is not None:
                    await self._before_leaving(control)
        link = session.house.switch
        if control is None and link is not None and link.up:
            with contextlib.suppress(DuetoError):
                for name, value in self._result.items():
                    await link.api("uuid_setvar", f"{session.unique_id} {name} {value}")
        if session.media is not None:
            session.media.close()
        session.journal("returned_to_dialplan", result=self._result.get("dueto_result", ""))
        if control is not None:
            control.notify_session_ended("left")
        else:
            session.happen(phase.Left())

    async def _before_leaving(self, control: ControlLeg) -> None:
        unique_id = self._session.unique_id
        if not control.capabilities.api:
            for name, value in self._result.items():
                await control.execute("set", f"{name}={value}")
            return
        if self._session.has_playback():
            await control.break_all()
        await self._stop_stream(control)
        if self._parks:
            await control.api("uuid_park", unique_id)
        for name, value in self._result.items():
            await control.api("uuid_setvar", f"{unique_id} {name} {value}")

    async def hang_up(self) -> None:
        """Kill the channel. That it is gone already is success."""
        session = self._session
        session.let_go_within(2 * LET_GO_S + 1)
        control = await session.control_soon(LET_GO_S)
        link = session.house.switch
        if control is None and link is not None and link.up:
            with contextlib.suppress(CommandRefused, ReplyTimeout, LegClosed):
                await link.api("uuid_kill", f"{session.unique_id} {self._cause}")
        if control is None:
            if session.media is not None:
                session.media.close()  # media-only: the printed dialplan ends the call when its stream ends
            session.happen(phase.Left())
            return
        with contextlib.suppress(CommandRefused, ReplyTimeout, LegClosed):
            if control.capabilities.api:
                await control.api("uuid_kill", f"{session.unique_id} {self._cause}")
            else:
                await control.command(SendMsg("hangup", {"hangup-cause": self._cause}))

    async def finish(self) -> None:
        """The agent is done: what it said is heard to the end, then `agent.when_done`."""
        if self._session.has_playback():
            await self._session.control_soon(LET_GO_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD_S):
                await self._session.voice.quiet()
        if self._session.house.rules.when_done == "hangup":
            await self.hang_up()
        else:
            await self.leave()

    async def rescue(self) -> None:
        """The agent failed: say so, then a destination, the dialplan, or at last a hangup. Never silence."""
        session, rule = self._session, self._session.house.rules.when_failed
        session.voice.silence()
        with contextlib.suppress(DuetoError, TimeoutError):
            if session.mouth is not None:
                async with asyncio.timeout(10.0):
                    await session.voice.say(await session.mouth.speak(SORRY, session.rate_hz))
        destination = session.house.destinations.get(rule)
        control = self._control
        if destination is not None and control is not None and control.capabilities.api:
            with contextlib.suppress(DuetoError):
                await self.bridge(destination, timeout_s=30.0, hangup_after=True)
        if rule == "hangup":
            await self.hang_up()
        else:
            self.result(dueto_result="agent_failed")
            await self.leave()
