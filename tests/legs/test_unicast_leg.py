"""One `unicast` stream by itself: its ports, its packets, its proof of life, and its end."""

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.errors import LegClosed, NotCapable, RemoteProtocolError
from dueto.legs.ports import MediaLeg
from dueto.legs.unicast import CHECK_S, SILENT_CHECKS, UnicastDoor, UnicastLeg, UnicastOptions
from dueto.sim import MemoryNetwork, run_virtual
from dueto.wire.media import StreamRequest
from dueto.wire.media.unicast import PACKETS_MS, Packet

REQUEST = StreamRequest("a channel", "", "1001", 8000, "mono", "")
PCMU = Packet(8000, 20)


class Sink:
    """Remembers what a leg says."""

    def __init__(self) -> None:
        self.audio: list[bytes] = []
        self.closed: list[tuple[int, str]] = []

    frame_bytes = -1
    frames = 0

    def take(self, frame: bytes) -> None:
        raise AssertionError("no message is a frame as it stands")

    def message(self, data: bytes) -> None:
        self.audio.append(data)

    def media_text(self, leg: MediaLeg, text: str) -> None:
        raise AssertionError("UDP carries no text")

    def media_closed(self, leg: MediaLeg, code: int, reason: str) -> None:
        self.closed.append((code, reason))


class Far(asyncio.DatagramProtocol):
    """The switch's end."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.transport: asyncio.DatagramTransport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.came.append(data)


class Bench:
    """A leg, and the switch's end of it, on a network in memory."""

    def __init__(self, options: UnicastOptions | None = None) -> None:
        self.network = MemoryNetwork()
        self.door = UnicastDoor(
            options or UnicastOptions(idle_silence=False),
            open_datagrams=self.network.open,
            clock=asyncio.get_running_loop().time,
        )
        self.refused: list[str] = []
        self.sink = Sink()
        self.far = Far()

    async def open(self, expected: Packet = PCMU) -> UnicastLeg:
        leg = await self.door.open(REQUEST, expected, refused=self.refused.append)
        self.far.transport = await self.network.open(self.far, leg.offer.local_ip, leg.offer.local_port)
        leg.attach(self.sink)
        leg.listener = self.sink
        self.ours = (leg.offer.remote_ip, leg.offer.remote_port)
        return leg

    async def alive(self, packet: Packet = PCMU) -> UnicastLeg:
        leg = await self.open(packet)
        self.far.transport.sendto(bytes(packet.size_bytes), self.ours)
        await leg.alive
        return leg


# -- ports


async def test_each_stream_has_fresh_ports_of_the_range_and_gives_them_back() -> None:
    door = UnicastDoor(UnicastOptions(ports=(40100, 40999)))
    legs = [await door.open(REQUEST, PCMU, refused=lambda peer: None) for _ in range(100)]
    ports = [port for leg in legs for port in (leg.offer.local_port, leg.offer.remote_port)]
    assert len(set(ports)) == 200 == len(door)
    assert all(40100 <= port <= 40999 for port in ports)
    assert sorted(ports) != ports
    sinks = [Sink() for _ in legs]
    for leg, sink in zip(legs, sinks, strict=True):
        leg.attach(sink)
        leg.close()
        leg.close()
    async with asyncio.timeout(10):
        while len(door):  # noqa: ASYNC110 - the loop tells of each socket's end in a turn of its own
            await asyncio.sleep(0)
    assert [sink.closed for sink in sinks] == [[(1000, "closed by us")]] * 100


async def test_our_socket_is_bound_to_one_address() -> None:
    door = UnicastDoor(UnicastOptions(bind_address="127.0.0.2", ports=(40100, 40999)))
    leg = await door.open(REQUEST, PCMU, refused=lambda peer: None)
    assert leg._transport is not None
    assert leg._transport.get_extra_info("sockname") == ("127.0.0.2", leg.offer.remote_port)
    leg.close()


async def test_a_port_that_another_program_has_is_passed_over() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.4", 40200))
        door = UnicastDoor(UnicastOptions(bind_address="127.0.0.4", switch_address="127.0.0.5", ports=(40200, 40201)))
        leg = await door.open(REQUEST, PCMU, refused=lambda peer: None)
        assert leg.offer.remote_port == 40201
        with pytest.raises(NotCapable, match=r"40200 to 40201 on 127\.0\.0\.4"):
            await door.open(REQUEST, PCMU, refused=lambda peer: None)
        leg.close()


async def test_an_address_that_is_not_ours_is_told_of() -> None:
    door = UnicastDoor(UnicastOptions(bind_address="192.0.2.10"))
    with pytest.raises(NotCapable, match=r"on 192\.0\.2\.10"):
        await door.open(REQUEST, PCMU, refused=lambda peer: None)
    assert len(door) == 0


def test_whoever_gives_up_opening_leaves_no_port_taken() -> None:
    async def never(*_: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        door = UnicastDoor(UnicastOptions(), open_datagrams=never)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await door.open(REQUEST, PCMU, refused=lambda peer: None)
        assert len(door) == 0

    run_virtual(main())


# -- proof of life


def test_a_first_datagram_proves_the_stream_and_its_rate() -> None:
    async def main() -> None:
        bench = Bench()
        leg = await bench.open()
        bench.far.transport.sendto(bytes(640), bench.ours)
        await leg.alive
        assert leg.request.rate_hz == 16000
        assert bench.sink.audio == [], "it is a filler of the switch's own"
        bench.far.transport.sendto(b"\1" * 640, bench.ours)
        await asyncio.sleep(0.01)
        assert bench.sink.audio == [b"\1" * 640]
        leg.close()

    run_virtual(main())


def test_a_first_datagram_of_an_impossible_size_is_a_typed_failure() -> None:
    async def main() -> None:
        bench = Bench()
        leg = await bench.open()
        bench.far.transport.sendto(bytes(333), bench.ours)
        with pytest.raises(RemoteProtocolError, match="333 bytes"):
            await leg.alive
        leg.close()

    run_virtual(main())


def test_a_leg_that_is_closed_before_its_proof_says_so_to_who_waits() -> None:
    async def main() -> None:
        bench = Bench()
        leg = await bench.open()
        leg.close(1000, "enough")
        with pytest.raises(LegClosed, match="enough"):
            await leg.alive
        late = Sink()
        leg.attach(late)
        assert late.closed == bench.sink.closed == [(1000, "enough")]

    run_virtual(main())


# -- packets


@given(st.sampled_from(PACKETS_MS), st.integers(1, 12), st.booleans())
def test_whatever_the_packet_time_what_is_sent_goes_in_whole_packets_and_in_order(
    ms: int, frames: int, silence: bool
) -> None:
    packet = Packet(8000, ms)

    async def main() -> None:
        bench = Bench(UnicastOptions(idle_silence=silence))
        leg = await bench.alive(packet)
        sent = b"".join(bytes([n + 1]) * 320 for n in range(frames))
        for at in range(0, len(sent), 320):
            leg.send_audio(sent[at : at + 320])
        await asyncio.sleep(0.001)
        for _ in range(frames * 20 // ms + 3):  # the switch plays on; silence fills the end of the last packet up
            await asyncio.sleep(ms / 1000)
            bench.far.transport.sendto(bytes(packet.size_bytes), bench.ours)
        await asyncio.sleep(0.001)
        assert {len(data) for data in bench.far.came} <= {packet.size_bytes}
        heard = b"".join(bench.far.came).strip(b"\0")
        whole = len(sent) if silence else len(sent) - len(sent) % packet.size_bytes
        assert heard == sent[:whole]
        leg.close()

    run_virtual(main())


def test_silence_goes_down_in_the_rhythm_of_what_comes_up_and_never_in_a_burst() -> None:
    async def main() -> None:
        bench = Bench(UnicastOptions())
        leg = await bench.alive()
        for _ in range(10):
            bench.far.transport.sendto(bytes(320), bench.ours)  # all at once, after a stall
        await asyncio.sleep(0.01)
        assert len(bench.far.came) == 1
        for _ in range(50):
            bench.far.transport.sendto(bytes(320), bench.ours)
            await asyncio.sleep(0.02)
        assert len(bench.far.came) == 51
        for _ in range(8):
            leg.send_audio(b"\1" * 320)
        for _ in range(7):  # seven of the eight are still to be played
            bench.far.transport.sendto(bytes(320), bench.ours)
            await asyncio.sleep(0.02)
        assert bench.far.came[51:] == [b"\1" * 320] * 8
        leg.close()

    run_virtual(main())


# -- the end


def test_a_stream_that_falls_silent_is_closed_and_one_that_rests_is_not() -> None:
    async def main() -> None:
        bench = Bench()
        leg = await bench.alive()
        leg.rest(True)
        await asyncio.sleep(60)
        assert not leg.closed
        leg.rest(False)
        await asyncio.sleep(SILENT_CHECKS * CHECK_S + 0.01)
        assert leg.closed
        assert [code for code, _ in bench.sink.closed] == [1006]
        assert len(bench.door) == 0
        leg.send_audio(bytes(320))
        assert bench.far.came == []

    run_virtual(main())


def test_a_stall_of_ours_is_no_silence_of_the_switch() -> None:
    async def main() -> None:
        bench = Bench()
        leg = await bench.alive()
        loop = asyncio.get_running_loop()
        for _ in range(20):
            loop.jump(0.9)  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)
            bench.far.transport.sendto(bytes(320), bench.ours)
            await asyncio.sleep(0.05)
        assert not leg.closed
        leg.close()

    run_virtual(main())
