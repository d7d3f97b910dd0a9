"""The media leg of a switch without an audio module: L16 over UDP, started by `unicast` on the control leg.

UDP has no owner. So each stream has a fresh port on both sides, ours listens on one narrow address, and only datagrams
from exactly the announced address and port are heard. The first of them is the proof of life: the switch says +OK
whatever becomes of a `unicast`.

The switch's packets are also the leg's clock. It sends one per packet time, always; so what of ours it has still to
play is known by its own clock, and when that is nothing, a packet of silence goes down: without it the caller's
telephone would get no RTP at all. (`send_silence_when_idle` is no way to have it: read in `switch_ivr.c`, the park loop
writes that silence beside our audio, not in place of it.)
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, cast

from dueto.clock import Clock, monotonic
from dueto.errors import LegClosed, NotCapable, RemoteProtocolError
from dueto.legs.ports import DEAF, Listener, MediaSink
from dueto.wire.esl import Unicast
from dueto.wire.media import UNICAST, StreamRequest
from dueto.wire.media.unicast import MAX_DATAGRAM_BYTES, Packet, measured

BINDS = 20
"How many ports are tried on our side before it counts as full."
CHECK_S = 0.25
"How often a stream is looked at, whether anything came."
SILENT_CHECKS = 4
"So many looks in a row without a datagram, and the stream is over. (After a stall of ours, one look finds nothing.)"
REFUSED_MOST = 50
"After so many datagrams from elsewhere the kernel is told to drop them."
AHEAD_MOST = 12
"With so many of our packets unplayed (a lead of 160 ms is 8) nothing has come for 80 ms: what we send is not heard."
EXPEDITED = 0xB8
"DSCP EF, as RTP has it."


class Datagrams(Protocol):
    """A bound UDP socket: asyncio's transport, or a test's."""

    def sendto(self, data: bytes, addr: tuple[str, int]) -> None: ...
    def close(self) -> None: ...
    def get_extra_info(self, name: str) -> Any: ...


OpenDatagrams = Callable[[asyncio.DatagramProtocol, str, int], Awaitable[Datagrams]]
"Binds a protocol to address and port. Raises: OSError: the port is taken, or the address is not this machine's."


@dataclass(frozen=True, slots=True)
class UnicastOptions:
    """Who is where. IPv4 addresses."""

    switch_address: str = "127.0.0.1"
    "The switch's own, where it binds and sends from."
    bind_address: str = "127.0.0.1"
    "Where we listen."
    announce_address: str = ""
    "Where the switch finds us, if not there."
    ports: tuple[int, int] = (10000, 15999)
    "The first and the last port, for both sides."
    idle_silence: bool = True
    "Whether the caller gets silence while nothing is said, or no packets at all."


class UnicastLeg(asyncio.DatagramProtocol):
    """One audio stream, a `legs.ports.MediaLeg`. Made by `UnicastDoor.open`."""

    def __init__(
        self,
        request: StreamRequest,
        expected: Packet,
        offer: Unicast,
        *,
        idle_silence: bool,
        clock: Clock,
        refused: Callable[[str], None],
        free: Callable[[], None],
    ) -> None:
        self.request = request
        "Its rate is what the channel announced, until the first datagram has proved it."
        self.dialect = UNICAST
        self.offer = offer
        "What the switch has to be told."
        self.peer = offer.local_ip
        self.base_url = self.offers = ""
        self.closed = False
        self.listener: Listener = DEAF
        self.filler_ms = 0
        self.datagrams = self.odd = self.refused = 0
        "What came; of another size; from elsewhere."
        self.alive: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        "Resolves in the turn of the first datagram. Fails with RemoteProtocolError where its size makes no sense."
        self.alive.add_done_callback(_retrieve)
        self.on_stall: Callable[[bool], None] | None = None
        "Told when the switch does not play any more what it is sent, and when it does again."
        self._expected = expected
        self._far = (offer.local_ip, offer.local_port)
        self._size = self._packet_ms = 0
        self._silence = b""
        self._fills = idle_silence
        self._ahead = 0
        "Packets of ours that the switch has still to play."
        self._stalled = False
        self._recent: deque[bytes] = deque(maxlen=AHEAD_MOST + 1)
        self._again_until = 0
        "With so many datagrams of the switch, it has played what was sent a second time."
        self._filled_at = 0.0
        self._part = b""
        self._clock = clock
        self._tell_refused = refused
        self._free = free
        self._transport: Datagrams | None = None
        self._sink: MediaSink | None = None
        self._code, self._reason = 1006, ""
        self._watch: asyncio.TimerHandle | None = None
        self._seen = self._silent = 0

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(Datagrams, transport)
        if hasattr(transport, "max_size"):  # asyncio's own reserves 256 KiB for each datagram: 26 us in place of 5
            transport.max_size = 2 * MAX_DATAGRAM_BYTES

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr != self._far:
            self._refuse(addr)
        elif len(data) == self._size:  # nearly always
            self.datagrams += 1
            self.listener.message(data)
            if self._ahead > 1:
                self._ahead -= 1
                if self._stalled:
                    self._stall(False)
            else:
                self._ahead = 0
                if self._fills:
                    self._fill()
        elif not self._size:
            self._first(data)
        else:
            self.odd += 1

    def error_received(self, exc: Exception) -> None:
        pass  # ICMP: nobody there (any more); whether that is so, the watch finds out

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._transport = None
        self._stop_watch()
        self._free()
        if not self.alive.done():
            self.alive.set_exception(LegClosed(self._reason or "the socket failed"))
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.media_closed(self, self._code, self._reason or "the socket failed")

    # -- what the call may do

    def attach(self, sink: MediaSink) -> None:
        """Say who listens."""
        if self._transport is None:
            sink.media_closed(self, self._code, self._reason)
        else:
            self._sink = sink

    def send_audio(self, frame: bytes) -> None:
        """Send 20 ms. Where the channel's packets are longer or shorter, it is joined or cut."""
        if self._transport is None or self.closed:
            return
        if len(frame) == self._size and not self._part:
            self._transport.sendto(frame, self._far)
            self.filler_ms = 0
            self._ahead += 1
            self._recent.append(frame)
            if self._ahead > AHEAD_MOST:
                self._stall(True)
            return
        data, size = self._part + frame, self._size or len(frame)
        whole = len(data) - len(data) % size
        self.filler_ms = 0
        for at in range(0, whole, size):
            self._transport.sendto(data[at : at + size], self._far)
            self._ahead += 1
        self._part = data[whole:]

    def send_text(self, text: str) -> None:
        """There is nobody who could read it."""

    def backlog_bytes(self) -> int:
        """Nothing: a datagram leaves at once. But what had to be sent a second time was not heard the first time."""
        return self._ahead * self._size if self.datagrams < self._again_until else 0

    def unplayed(self) -> list[bytes]:
        """What of our last packets the switch has not played, by its own clock."""
        count = min(self._ahead, len(self._recent))
        return list(self._recent)[len(self._recent) - count :]

    def say_again(self, frames: list[bytes]) -> None:
        """Send what a lost stream took along, before anything else."""
        for frame in frames:
            self.send_audio(frame)
        self._again_until = self.datagrams + self._ahead

    def rest(self, resting: bool) -> None:
        """Expect nothing for a while: an application runs on the channel, or it is bridged. The stream ends by that."""
        self._stop_watch()
        self._part = b""
        if not resting and not self.closed and self._transport is not None:
            self._seen, self._silent = self.datagrams, 0
            self._watch = asyncio.get_running_loop().call_later(CHECK_S, self._look)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Let go of the port. The switch is not told: nothing tells it, but the end of its own loop."""
        if self.closed:
            return
        self.closed = True
        self._code, self._reason = code, reason or "closed by us"
        self._stop_watch()
        if self._transport is not None:
            self._transport.close()

    # -- inside

    def _stall(self, stalled: bool) -> None:
        if stalled is not self._stalled:
            self._stalled = stalled
            if self.on_stall is not None:
                self.on_stall(stalled)

    def _first(self, data: bytes) -> None:
        """The proof of life. Its content is a filler of the switch's own; what counts is its size."""
        if self.alive.done():
            return
        try:
            packet = measured(len(data), self._expected)
        except RemoteProtocolError as error:
            self.odd += 1
            self.alive.set_exception(error)
            return
        self.datagrams = 1
        self._size = packet.size_bytes
        self._packet_ms = packet.ms
        self._silence = bytes(self._size)
        self.request = replace(self.request, rate_hz=packet.rate_hz)
        self.rest(False)
        if self._fills:  # live audio then has a packet in hand, and needs no silence after its first one
            self._fill()
        self.alive.set_result(None)

    def _fill(self) -> None:
        """Silence for the packet time that begins now. What comes in a burst is of the past: nothing fills that."""
        now = self._clock()
        if now - self._filled_at < 0.005 or self._transport is None:
            return
        self._filled_at = now
        self._ahead = 1
        self.filler_ms = self._packet_ms
        if self._part:  # the end of something that was no whole packet
            self._transport.sendto(self._part.ljust(self._size, b"\0"), self._far)
            self._part = b""
        else:
            self._transport.sendto(self._silence, self._far)

    def _refuse(self, addr: tuple[str, int]) -> None:
        self.refused += 1
        if self.refused == 1:
            self._tell_refused(str(addr[0]))
        elif self.refused == REFUSED_MOST and self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    _connect(sock, self._far)

    def _look(self) -> None:
        came, self._seen = self.datagrams - self._seen, self.datagrams
        self._silent = 0 if came else self._silent + 1
        if self._silent < SILENT_CHECKS:
            self._watch = asyncio.get_running_loop().call_later(CHECK_S, self._look)
        else:
            self.close(1006, f"no datagram for {SILENT_CHECKS * CHECK_S} s")

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


class UnicastDoor:
    """Opens media legs: chooses both ports of each, and knows which are taken."""

    def __init__(
        self, options: UnicastOptions, *, open_datagrams: "OpenDatagrams | None" = None, clock: Clock = monotonic
    ) -> None:
        self.options = options
        self._open = open_datagrams or open_udp
        self._clock = clock
        self._ours: set[int] = set()
        self._theirs = self._ours if options.switch_address == options.bind_address else set[int]()

    def __len__(self) -> int:
        """How many ports are taken, on both sides."""
        return len(self._ours) + (len(self._theirs) if self._theirs is not self._ours else 0)

    async def open(
        self, request: StreamRequest, expected: Packet, *, refused: Callable[[str], None], channel: str = ""
    ) -> UnicastLeg:
        """Bind a fresh port for a stream; the switch is told by `offer`, on the control leg. Safe to cancel.

        `channel`: the one it is of, if not the control leg's own. `refused` is told once, of the first stranger.
        Raises: NotCapable: no port is free, or `bind_address` is not this machine's.
        """
        options, why = self.options, "all of them are taken"
        remote_ip = options.announce_address or options.bind_address
        for _ in range(BINDS):
            ours, theirs = self._draw(self._ours), self._draw(self._theirs)
            free = partial(self._free, ours, theirs)
            if not ours or not theirs:
                free()
                break
            leg = UnicastLeg(
                request,
                expected,
                Unicast(options.switch_address, theirs, remote_ip, ours, channel),
                idle_silence=options.idle_silence,
                clock=self._clock,
                refused=refused,
                free=free,
            )
            try:
                await self._open(leg, options.bind_address, ours)
            except OSError as error:  # somebody else's; another one then
                free()
                why = error.strerror or str(error)
            except BaseException:
                free()
                raise
            else:
                return leg
        first, last = options.ports
        raise NotCapable(f"unicast: no port from {first} to {last} on {options.bind_address}: {why}")

    def _free(self, ours: int, theirs: int) -> None:
        self._ours.discard(ours)
        self._theirs.discard(theirs)

    def _draw(self, taken: set[int]) -> int:
        """Take a port that none of our streams has; 0: there is none. Chance, so that nobody guesses the next one."""
        first, last = self.options.ports
        count = last - first + 1
        if len(taken) >= count:
            return 0
        port = first + secrets.randbelow(count)
        while port in taken:
            port = first + (port - first + 1) % count
        taken.add(port)
        return port


async def open_udp(protocol: asyncio.DatagramProtocol, host: str, port: int) -> Datagrams:
    """Bind a real socket."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, EXPEDITED)
        sock.bind((host, port))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: protocol, sock=sock)
    except BaseException:
        sock.close()
        raise
    return cast(Datagrams, transport)


def _connect(sock: Any, far: tuple[str, int]) -> None:
    """From now on the kernel drops what comes from elsewhere. (Loops hand out a socket that can't be connected.)"""
    with socket.socket(fileno=os.dup(sock.fileno())) as same:
        same.connect(far)


def _retrieve(future: "asyncio.Future[None]") -> None:
    if not future.cancelled():
        future.exception()
