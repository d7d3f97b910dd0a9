"""The simulated switch's `unicast`: what it sends, plays and loses, and what ends it."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from dueto.sim import Caller, Endpoint, Faults, MemoryNetwork, SimCall, tone
from dueto.wire.esl import Api, Command, Execute, Unicast

from .scenes import Scene, play

SWITCH, GATEWAY = ("127.0.0.1", 12000), ("127.0.0.1", 12001)
LOUD = tone(8000, 0.02, 1000)


class Ear(asyncio.DatagramProtocol):
    """The gateway's end."""

    def __init__(self) -> None:
        self.came: list[tuple[float, bytes]] = []
        self.transport: asyncio.DatagramTransport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.came.append((asyncio.get_running_loop().time(), data))

    def send(self, *datagrams: bytes) -> None:
        for data in datagrams:
            self.transport.sendto(data, SWITCH)


def scene(
    act: Callable[[Scene, SimCall, Ear], Awaitable[None]],
    *,
    caller: Caller | None = None,
    faults: Faults | None = None,
    **switch: object,
) -> SimCall:
    """Place a call, have it begin `unicast`, and let `act` go on."""
    network = MemoryNetwork()
    calls: list[SimCall] = []

    async def run(scene: Scene) -> None:
        ear = Ear()
        ear.transport = await network.open(ear, *GATEWAY)
        call = await scene.call(caller, faults=faults)
        calls.append(call)
        send(scene, Unicast(*SWITCH, *GATEWAY))
        await act(scene, call, ear)
        call.hang_up()
        await call.over()
        await asyncio.sleep(0.1)
        assert len(network) == 1, "the switch's port is free again"

    play(run, network=network, event_tick_s=0.02, **switch)
    return calls[0]


def send(scene: Scene, command: Command, nth: int = 0) -> None:
    """Say something on a control connection."""
    scene.gateways[nth].send(command.encode())


def heard_ms(call: SimCall) -> int:
    """How many ms sounded, of what the caller heard."""
    frames = np.abs(np.frombuffer(call.heard, "<i2").reshape(-1, call.rate_hz // 50).astype(int)).max(axis=1)
    return 20 * int((frames > 600).sum())


@pytest.mark.parametrize(("rate_hz", "size"), [(8000, 320), (16000, 640)])
def test_the_callers_frames_come_one_by_one_at_the_channels_rate(rate_hz: int, size: int) -> None:
    said = tone(rate_hz, 0.5, 440)

    async def act(scene: Scene, call: SimCall, ear: Ear) -> None:
        await asyncio.sleep(0.1)
        await call.line.say(said)
        await asyncio.sleep(0.1)
        assert {len(data) for _, data in ear.came} == {size}
        assert ear.came[0][1] == b"\xff" * size
        assert said in b"".join(data for _, data in ear.came)

    scene(act, caller=Caller(rate_hz=rate_hz))


@pytest.mark.parametrize(
    ("datagrams", "ms"),
    [
        ([LOUD] * 100, 2000),
        ([LOUD * 2] * 10, 200),
        ([LOUD[:160]] * 10, 0),
        ([LOUD, b"", LOUD], 20),
        ([], 0),
    ],
    ids=["100 at once", "40 ms: half is lost", "10 ms: silence", "empty: nothing any more", "nothing"],
)
def test_a_datagram_is_exactly_one_packet(datagrams: list[bytes], ms: int) -> None:
    async def act(scene: Scene, call: SimCall, ear: Ear) -> None:
        await asyncio.sleep(0.2)
        ear.send(*datagrams)
        await asyncio.sleep(3.0)

    assert heard_ms(scene(act)) == ms


def test_what_does_not_come_is_a_gap_and_no_silence() -> None:
    async def act(scene: Scene, call: SimCall, ear: Ear) -> None:
        await asyncio.sleep(0.2)
        ear.send(LOUD, LOUD)
        await asyncio.sleep(0.2)
        ear.send(LOUD)
        await asyncio.sleep(0.2)

    call = scene(act)
    assert (call.counters.gaps, call.counters.padded_ms) == (1, 0.0)


@pytest.mark.parametrize(
    "command",
    [
        Execute("playback", "silence_stream://100"),
        Execute("bridge", "user/1"),
        Api("uuid_broadcast", "UUID silence_stream://100"),
    ],
    ids=["playback", "bridge", "uuid_broadcast"],
)
def test_an_application_that_resets_the_codecs_ends_it_for_good_in_this_loop(command: Command) -> None:
    async def act(scene: Scene, call: SimCall, ear: Ear) -> None:
        await asyncio.sleep(0.2)
        if isinstance(command, Api):
            send(scene, Api(command.command, command.argument.replace("UUID", call.unique_id)))
        else:
            send(scene, command)
        await asyncio.sleep(1.0)
        count = len(ear.came)
        assert 0 < count < 20
        send(scene, Unicast(*SWITCH, *GATEWAY))
        await asyncio.sleep(0.5)
        assert len(ear.came) == count
        assert call.channel.up
        send(scene, Api("uuid_transfer", f"{call.unique_id} 'socket:127.0.0.1:8022 async full' inline"))
        await scene.gateway.until(lambda: len(scene.gateways) == 2)
        await scene.gateways[1].event("CHANNEL_PARK")
        send(scene, Unicast(*SWITCH, *GATEWAY), 1)
        await asyncio.sleep(0.5)
        assert len(ear.came) >= count + 20

    scene(act, endpoints={"user/1": Endpoint(answer_after_s=0.1, hangs_up_after_s=0.2)})


@pytest.mark.parametrize("command", [Execute("set", "a=b"), Execute("sleep", "100"), Api("uuid_hold", "UUID")])
def test_what_does_no_harm(command: Execute | Api) -> None:
    async def act(scene: Scene, call: SimCall, ear: Ear) -> None:
        await asyncio.sleep(0.2)
        if isinstance(command, Api):
            send(scene, Api(command.command, call.unique_id))
        else:
            send(scene, command)
        await asyncio.sleep(1.0)
        assert len(ear.came) >= 50

    scene(act)


def test_inside_an_application_it_begins_nothing() -> None:
    async def act(scene: Scene, call: SimCall, ear: Ear) -> None:
        await asyncio.sleep(0.2)
        send(scene, Execute("playback", "silence_stream://500"))
        await asyncio.sleep(0.1)
        count = len(ear.came)
        send(scene, Unicast("127.0.0.1", 12002, *GATEWAY))
        await asyncio.sleep(1.0)
        assert len(ear.came) == count

    scene(act)


def test_a_busy_port_is_told_to_nobody() -> None:
    async def act(scene: Scene, call: SimCall, ear: Ear) -> None:
        await asyncio.sleep(0.5)
        assert ear.came == []
        assert scene.gateway.replies[-1] == "+OK"
        assert [happening.name for happening in call.events if happening.leg == "media"] == ["unicast_failed"]
        send(scene, Unicast(*SWITCH, *GATEWAY))  # one that failed has not used up the loop
        await asyncio.sleep(0.5)
        assert len(ear.came) >= 20

    scene(act, faults=Faults(unicast_busy=1))


def test_a_switch_says_ok_to_whatever_was_asked() -> None:
    async def act(scene: Scene, call: SimCall, ear: Ear) -> None:
        await scene.gateway.answered(4)
        scene.gateway.send(b"sendmsg\ncall-command: unicast\nlocal-port: x\n\n")
        assert (await scene.gateway.answered(5))[-1] == "+OK"

    scene(act)
