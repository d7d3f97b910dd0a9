"""The announced transfer: the other side is called and spoken to first, and takes the caller or does not.

A transaction: until `uuid_bridge` succeeded the caller is ours, and whatever goes wrong brings him back to the agent.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from dueto.audio import resample_all
from dueto.call import phase
from dueto.call.events import Dtmf, HungUp, Speech
from dueto.call.hold import HOLD_MUSIC
from dueto.call.placing import Dialled, mint, place
from dueto.call.ports import Accept, Announce, Destination, TransferResult
from dueto.call.three_way import ThreeWay
from dueto.errors import CallEnded, CommandRefused, Interrupted, NotCapable, ReplyTimeout
from dueto.legs.originate import without_breakers
from dueto.wire.esl import Api, Event

if TYPE_CHECKING:
    from dueto.call.call import Call
    from dueto.call.session import Session

Answer = Literal["accepted", "declined", "gone"]
Introduce = Callable[[], Awaitable[None]]
BRIDGED_S = 5.0
"How long CHANNEL_BRIDGE may take after `uuid_bridge`."
DECIDE_S = 120.0
"How long the other side may take in all."
RINGING = "tone_stream://%(1000,3000,440,480);loops=-1"
"What the caller hears where the switch has no hold music."


class Consultation:
    """One attempt to hand the caller to `destination`."""

    def __init__(
        self,
        session: "Session",
        destination: Destination,
        *,
        announce: str | bytes | Announce | None,
        accept: Accept,
        introduce: Introduce | None,
        ringback: str,
        timeout_s: float,
    ) -> None:
        """`introduce` makes it an attended transfer: what the agent does while all three talk."""
        self._session = session
        self._destination = destination
        self._announce = announce
        self._accept = accept
        self._introduce = introduce
        self._ringback = ringback
        self._timeout_s = timeout_s
        self._words: list[bytes] = []
        self._sip_code: int | None = None
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def run(self) -> TransferResult:
        """Call, announce, connect; or say why not. Cancelling kills the other side, and the caller is the agent's."""
        session = self._session
        control = await session.switch()
        if self._introduce is not None:
            ThreeWay.check(session)
        session.b_leg = unique_id = mint()
        self._words = await self._spoken()  # what can't be said is found before anybody's telephone rings
        link = session.house.switch
        unwatch = link.watch(unique_id, self._other_side) if link is not None else None
        session.seal(True)  # the caller hears the switch's music, and the agent speaks to somebody else
        bridged = False
        try:
            with self._company():
                placed = await self._place(unique_id)
                if placed.outcome != "answered":
                    return TransferResult(placed.outcome, placed.hangup_cause, self._sip_code)
                session.journal("announcing", b_leg=unique_id)
                answer = await self._answered()
            if answer != "accepted":
                return TransferResult("declined", "CALL_REJECTED" if answer == "declined" else "", b_leg=unique_id)
            try:
                if self._introduce is not None:
                    await self._meet(unique_id)
                bridged = await self._commit(unique_id)
            except (CommandRefused, ReplyTimeout, TimeoutError) as error:
                return TransferResult("failed", str(error), b_leg=unique_id)
            return TransferResult("bridged" if bridged else "failed", "SUCCESS" if bridged else "", b_leg=unique_id)
        finally:
            if unwatch is not None:
                unwatch()
            if bridged:
                session.b_leg = ""  # from here on the switch holds the two together
            elif session.b_leg:
                session.cancel_b_leg()
            if not bridged and not control.closed:
                other = session.registry.find(unique_id)
                if other is not None:
                    other.seal(False)
            session.seal(False)

    # -- the other side

    async def _place(self, unique_id: str) -> Dialled:
        session = self._session

        async def job(command: str, argument: str, timeout_s: float) -> str:
            return await session.job(command, argument, timeout_s=timeout_s)

        variables = {
            "ignore_early_media": "true",
            "hangup_after_bridge": "true",
            "origination_caller_id_number": without_breakers(session.caller_number),
            "origination_caller_id_name": without_breakers(session.caller_name),
        }
        rules = replace(session.house.rules, rate_hz=session.rate_hz)  # so that one recording serves both
        return await place(
            session.registry,
            # a gateway that comes back takes callers back, not those they talk to
            replace(session.house, agent_name="announcer", rules=rules, mouth=session.mouth, marks=False),
            job,
            self._destination.dial,
            self._host,
            unique_id=unique_id,
            variables=variables,
            timeout_s=self._timeout_s,
            stream_base_url=session.stream_base_url(),
        )

    async def _host(self, other: "Call") -> None:
        """The agent of the other side's call: presents the caller, then waits until that side is gone."""
        answer: Answer = "gone"
        try:
            async with asyncio.timeout(DECIDE_S):
                answer = await self._present(other)
        except TimeoutError:
            answer = "declined"
        except CallEnded:
            pass
        finally:
            if not self._answer.done():
                self._answer.set_result(answer)
        async for _ in other.events():
            pass

    async def _present(self, other: "Call") -> Answer:
        if callable(self._announce):
            verdict = await self._announce(other)
            if verdict is not None:
                return "accepted" if verdict else "declined"
        if self._accept.ear is not None:
            other.listen(self._accept.ear())
        tasks = [asyncio.ensure_future(work) for work in (self._heard(other), self._speak(other))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _heard(self, other: "Call") -> Answer:
        accept = self._accept
        async for event in other.events():
            match event:
                case Dtmf(digit) if digit == accept.digit:
                    return "accepted"
                case Dtmf(digit) if digit == accept.decline_digit:
                    return "declined"
                case Speech(text) if _says(text, accept.words):
                    return "accepted"
                case Speech(text) if _says(text, accept.decline_words):
                    return "declined"
                case HungUp():
                    break
        return "gone"

    async def _speak(self, other: "Call") -> Answer:
        for pcm in self._words:
            with contextlib.suppress(Interrupted):
                await other.say(resample_all(pcm, self._session.rate_hz, other.rate_hz))
        await asyncio.sleep(self._accept.within_s)
        return "accepted" if self._accept.silence == "accept" else "declined"

    async def _answered(self) -> Answer:
        answer = await asyncio.shield(self._answer)
        self._session.journal("transfer_answered", answer=answer)
        return answer

    async def _spoken(self) -> list[bytes]:
        """Return what the other side is told, as L16. Raises: NotCapable: it is text, and there is no mouth for it."""
        words: list[bytes] = []
        if callable(self._announce) and self._session.house.mouth is None:
            return words  # whoever speaks for himself also says what is to be pressed
        for what in (None if callable(self._announce) else self._announce, self._accept.prompt):
            if isinstance(what, str) and what:
                mouth = self._session.mouth
                if mouth is None:
                    raise NotCapable("no mouth is configured to announce a text: announce L16, and Accept(prompt='')")
                words.append(await mouth.speak(what, self._session.rate_hz))
            elif isinstance(what, bytes):
                words.append(what)
        return words

    def _other_side(self, event: Event) -> None:
        """An event of the channel being placed, told by the inbound socket: it alone knows the SIP status."""
        if event.name == "CHANNEL_HANGUP_COMPLETE":
            failure = event.number("variable_sip_invite_failure_status")
            self._sip_code = failure or event.number("variable_sip_term_status")

    # -- the caller

    @contextlib.contextmanager
    def _company(self) -> Iterator[None]:
        """Keep the caller company, until the block ends."""
        hold = self._session.hold
        hold.play(self._ringback or HOLD_MUSIC, RINGING)
        try:
            yield
        finally:
            hold.stop()

    async def _meet(self, unique_id: str) -> None:
        """All three talk, until the agent has said what there is to say."""
        session = self._session
        other = session.registry.find(unique_id)
        if other is not None:
            other.seal(True)  # its own stream is of no use to anybody now
        meeting = ThreeWay(session, unique_id)
        try:
            await meeting.open()
            session.seal(False)
            assert self._introduce is not None
            await self._introduce()
        except asyncio.CancelledError:
            session.tasks.start("bring back", meeting.bring_back())
            raise
        except BaseException:
            await meeting.bring_back()
            raise
        finally:
            session.seal(True)
            meeting.close()

    async def _commit(self, unique_id: str) -> bool:
        """Connect the two. From the first line on no frame of either reaches an agent."""
        session = self._session
        control = await session.switch()
        other = session.registry.find(unique_id)
        if other is None or other.ended:
            return False
        other.seal(True)
        stays = str(self._destination.after == "agent").lower()
        leaves = str(self._destination.after == "hangup").lower()
        after = f"hangup_after_bridge={leaves};park_after_bridge={stays}"
        control.post(Api("uuid_setvar_multi", f"{session.unique_id} {after}"))
        bridged = session.bridged = asyncio.get_running_loop().create_future()
        try:
            await control.api("uuid_bridge", f"{session.unique_id} {unique_id}")
            async with asyncio.timeout(BRIDGED_S):
                await bridged
        except (CommandRefused, TimeoutError):
            return False
        return session.state.phase is phase.Phase.BRIDGED


def _says(text: str, words: tuple[str, ...]) -> bool:
    said = f" {' '.join(text.lower().split())} "
    return any(f" {word.lower()} " in said for word in words)
