"""A call's stream over `unicast`: started, lost with every application the channel runs, and had again by re-entry.

What the caller hears from the switch itself (hold music, `play`) is such an application: the stream is away meanwhile,
and what the agent says waits for its return.

It lives in the park loop that the switch's `socket` application runs, and a loop takes one only. So after a bridge, or
an application that ended it, the channel is sent into `socket` anew (`uuid_transfer ... inline`): a second control leg
comes for the same channel, and on that one `unicast` works again. Agent and playout never notice more than a pause.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from dueto.call.part import Part
from dueto.call.phase import GiveUpTime, Phase
from dueto.errors import DuetoError, LegClosed, NotCapable, RemoteProtocolError, ReplyTimeout
from dueto.legs.ports import ControlLeg, PacketDoor, PacketLeg
from dueto.wire.media import StreamRequest
from dueto.wire.media.unicast import Packet, announced

if TYPE_CHECKING:
    from dueto.call.session import Session

PROOF_S = 0.4
"How long the first datagram may take: 36 ms were seen. After that the port was busy on the switch, most likely."
TRIES = 3
LOOPBACK_HZ = 8000
"The rate of a loopback channel, if nobody asks for another."
REENTRY_S = 3.0
"How long the second control leg may take: 16 ms were seen."
LOOK_S = 0.06
"Three packets: whoever sends any, has sent one by then."
HARMLESS = frozenset({"answer", "export", "hangup", "info", "log", "pre_answer", "ring_ready", "set", "unset"})
"Applications that do no harm to a stream."
ENDING = frozenset({"bridge", "playback"})
"Those that were seen to end it."
_SECRETARY = re.compile(r"[A-Za-z0-9._~-]{1,64}")


class UnicastStream(Part):
    """Keeps one session's stream going."""

    def __init__(self, session: "Session", door: PacketDoor) -> None:
        super().__init__(session)
        self._door = door
        self._spent: ControlLeg | None = None
        "The control leg whose park loop has had its `unicast`."
        self._leg: PacketLeg | None = None
        self._moved = False
        "The stream is on another channel than the caller's."
        self._stalled_in: int | None = None
        "The generation of what was being said when the stream fell silent in mid-sentence."
        self._starting = False
        self._coming_back: asyncio.Task[None] | None = None
        self._reentered: asyncio.Future[None] | None = None
        self._applications = 0
        "How many run on the channel that end the stream."
        self._parked = True
        "Whether the channel is in a park loop. Else somebody sent it elsewhere, and it is not ours to fetch back."

    # -- what happens to it

    def control_came(self, leg: ControlLeg) -> None:
        """A newer control leg: its park loop has no stream yet."""
        self._parked = True
        if self._reentered is not None and not self._reentered.done():
            self._reentered.set_result(None)
        else:
            self._lost_with_its_loop()
            self._come_back()

    def parked(self, parked: bool) -> None:
        """CHANNEL_PARK, CHANNEL_UNPARK. After `uuid_bridge` the channel parks outside of `socket`."""
        self._parked = parked
        if parked and self._session.stream_away and not self._applications:
            self._come_back()

    def bridged(self, bridged: bool) -> None:
        """The channel talks to another one, and its stream is over; or it did."""
        if bridged:
            self._go_away()
            if self._coming_back is not None:
                self._coming_back.cancel()  # the channel is wanted elsewhere
        elif not self._applications:  # else it comes back when `bridge` is over
            self._watch()
            if self._parked:
                self._come_back()

    @contextlib.contextmanager
    def application(self, name: str) -> Iterator[None]:
        """`name` runs on the channel for us; a stream that ends by it comes back afterwards."""
        if name in HARMLESS:
            yield
            return
        self._applications += 1
        self._go_away()
        try:
            yield
        finally:
            self._applications -= 1
            if not self._applications and self._session.state.phase is not Phase.BRIDGED:
                self._watch()
                self._come_back(perhaps=name not in ENDING)

    def unsealed(self) -> None:
        """The caller is the agent's again, unless he is bridged: no more music for him, and no bridge to come."""
        if self._session.stream_away and not self._applications:
            self._come_back()

    def left(self) -> None:
        """The channel that the stream was moved to is gone."""
        if self._moved:
            self._moved = False
            self._go_away()

    def control_gone(self) -> None:
        """The socket is closed, so its park loop is over: the stream must be seen to end too."""
        self._lost_with_its_loop()
        self._watch()

    # -- how it is had

    async def begin(self) -> None:
        """The first stream of the call. Nobody else can start one: where it can't be had, the call goes on its way."""
        try:
            await self.start()
        except DuetoError as error:
            self._session.journal("unicast_failed", reason=str(error))
            self._session.happen(GiveUpTime())

    async def start(self) -> None:
        """Return once datagrams come, from wherever the channel is. One start at a time; a second one does nothing.

        Raises: NotCapable: nothing came, on three ports one after the other, or no control leg is there to ask.
        """
        if self._starting:
            return
        self._starting = True
        try:
            why: DuetoError = NotCapable("nothing was tried")
            for attempt in range(TRIES):
                if self._session.state.phase not in (Phase.WAITING, Phase.TALKING, Phase.TRANSFERRING):
                    raise NotCapable("the caller is not ours just now")
                try:
                    last = attempt == TRIES - 1 and self._session.house.whereabouts.control
                    if last or self._control() is self._spent:
                        await self._reenter()
                    await self._try(self._control())
                except (LegClosed, RemoteProtocolError, ReplyTimeout) as error:
                    why = error
                else:
                    return
            raise NotCapable(f"no unicast stream after {TRIES} tries: {why}")
        finally:
            self._starting = False

    async def again(self) -> bool:
        """A stream that was lost: have it again. False: somebody took the channel elsewhere."""
        if not self._parked:
            return False
        await self.start()
        return True

    async def move(self, unique_id: str) -> None:
        """Have the stream on another channel, parked and of our own, until that has `left`.

        Raises: NotCapable: nothing came, or that channel runs at another rate. LegClosed, ReplyTimeout.
        """
        await self._begin(self._control(), Packet(LOOPBACK_HZ), unique_id)
        self._moved = True

    async def _try(self, control: ControlLeg) -> None:
        channel = control.channel
        if channel.get("Answer-State") == "ringing":  # on a channel without media the switch itself comes to harm
            await control.execute("pre_answer", timeout_s=5.0)
        expected = announced(
            channel.variable("read_rate"),
            channel.get("Channel-Read-Codec-Rate"),
            channel.variable("rtp_use_codec_ptime"),
        )
        await self._begin(control, expected)
        self._spent, self._moved = control, False

    async def _begin(self, control: ControlLeg, expected: Packet, channel: str = "") -> None:
        session = self._session
        leg = await self._open(expected, channel)
        try:
            await control.command(leg.offer)
            async with asyncio.timeout(PROOF_S):
                await asyncio.shield(leg.alive)
            if session.voice.hearing is not None and leg.request.rate_hz != session.rate_hz:
                raise NotCapable(f"that call runs at {session.rate_hz} Hz, its channel at {leg.request.rate_hz}")
        except TimeoutError:
            offer = leg.offer
            session.journal("unicast_unanswered", switch=f"{offer.local_ip}:{offer.local_port}")
            leg.close()
            raise ReplyTimeout(
                f"no datagram came from {offer.local_ip} within {PROOF_S} s: the port is busy there, or a firewall "
                f"stands between (see docs/media.md)"
            ) from None
        except BaseException:
            leg.close()
            raise
        unsaid = self._unsaid()
        self._leg = leg
        leg.on_stall = partial(self._stalled, leg)
        if unsaid:
            leg.say_again(unsaid)
        session.set_stream_away(False)
        session.media_came(leg)

    async def _open(self, expected: Packet, channel: str = "") -> PacketLeg:
        session = self._session
        control = session.control_now()
        named = control.channel.variable("dueto_secretary") if control is not None else ""
        secretary = session.secretary or (named if _SECRETARY.fullmatch(named) else "")
        request = StreamRequest(
            session.unique_id, secretary, session.caller_number, expected.rate_hz, mix="mono", token=""
        )

        def refused(peer: str) -> None:
            session.house.journal("", "refused", {"leg": "media", "reason": "other_source", "peer": peer})

        return await self._door.open(request, expected, refused=refused, channel=channel)

    async def _reenter(self) -> None:
        """Send the channel into `socket` anew, and wait for its control leg. Raises: as `start`."""
        session, address = self._session, self._session.house.whereabouts.control
        if not address:
            raise NotCapable("unicast needs [control] public_address: the HOST:PORT that the switch can dial")
        self._reentered = asyncio.get_running_loop().create_future()
        try:
            await session.api("uuid_transfer", f"{session.unique_id} 'socket:{address} async full' inline")
            async with asyncio.timeout(REENTRY_S):
                await self._reentered
        except TimeoutError:
            raise ReplyTimeout(f"no control leg came back from socket:{address}") from None
        finally:
            self._reentered = None

    def _control(self) -> ControlLeg:
        control = self._session.control_now()
        if control is None or not control.capabilities.api:
            raise NotCapable("unicast needs the control leg, with `full`: `socket HOST:PORT async full`")
        return control

    # -- inside

    def _come_back(self, *, perhaps: bool = False) -> None:
        session = self._session
        if self._starting or session.sealed or session.control_now() is None:
            return  # on its way; not wanted before the consultation is over; nobody to ask
        if session.state.phase in (Phase.TALKING, Phase.TRANSFERRING):
            self._coming_back = session.tasks.start("unicast", self._back(perhaps))

    async def _back(self, perhaps: bool) -> None:
        """Have the stream again; `perhaps` it never went."""
        try:
            if perhaps and await self._goes_on():
                self._session.set_stream_away(False)
            else:
                await self.start()
        except DuetoError as error:
            self._session.journal("unicast_failed", reason=str(error))
            if self._leg is not None:  # then it counts as lost, and goes the way of that
                self._leg.close(1006, "no stream any more")

    async def _goes_on(self) -> bool:
        leg = self._leg
        before = leg.datagrams if leg is not None else 0
        await asyncio.sleep(LOOK_S)
        return leg is not None and not leg.closed and leg.datagrams > before

    def _stalled(self, leg: PacketLeg, stalled: bool) -> None:
        """Nothing comes, so nothing that is sent is heard: wait until it does, or until the stream counts as lost."""
        if leg is self._leg and not self._applications and self._session.state.phase is not Phase.BRIDGED:
            self._session.set_stream_away(stalled)
            self._stalled_in = self._session.voice.generation if stalled else None

    def _lost_with_its_loop(self) -> None:
        """The loop that had the stream is over, whether or not that shows yet: what is to be said waits."""
        if self._leg is not None and not self._session.stream_away:
            self._session.set_stream_away(True)
            self._stalled_in = self._session.voice.generation

    def _unsaid(self) -> list[bytes]:
        """What a stream took along that was lost in mid-sentence, unless the agent has cut that sentence since."""
        stalled_in, self._stalled_in = self._stalled_in, None
        if self._leg is None or stalled_in is None or stalled_in != self._session.voice.generation:
            return []
        return self._leg.unplayed()

    def _go_away(self) -> None:
        """Keep what is to be said until there is a stream again."""
        self._session.set_stream_away(True)
        self._stalled_in = None
        if self._leg is not None:
            self._leg.rest(True)

    def _watch(self) -> None:
        if self._leg is not None:
            self._leg.rest(False)
