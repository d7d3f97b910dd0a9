"""The simulated switch is held against recordings of a real one: the same blocks in the same order.

The recorded gateway's bytes are sent at the recorded moments, and the caller does what the recorded one did. What may
differ, and nothing else:

- replies and events are compared as two sequences: an event may come one event tick earlier or later than a reply;
- the linger notice may stand anywhere (event-socket.md, section 5), CHANNEL_PARK may be missed (section 4);
- without `linger` the end may lack some of its last events (section 5);
- moments differ by up to 100 ms.
"""

import asyncio
import base64
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest

import numpy as np
import pytest

from dueto.sim import (
    AudioDialect,
    Caller,
    Endpoint,
    Faults,
    MemoryDoors,
    MemoryNetwork,
    SimCall,
    Switch,
    run_virtual,
    tone,
)
from dueto.wire.esl import ConnectAnswer, Event

from .recordings import Block, Recording, datagrams, load, texts
from .twins import Recorder, Server

BEFORE_S = 0.045
"A BYE, a digit or a hold shows as an event some 25 ms later."
CLOSE_S = 0.1
SOCKET = ("socket", "127.0.0.1:8022 async full")
EXTENSIONS = {
    "ctl": [("answer", ""), SOCKET],
    "ctl-early": [SOCKET],
    "ctl-park": [("answer", ""), SOCKET, ("set", "after_socket=1"), ("park", "")],
    "ctl-nofull": [("answer", ""), ("socket", "127.0.0.1:8022 async")],
    "ctl-twice": [("answer", ""), SOCKET, ("set", "first_socket_done=true"), SOCKET],
    "dual8k": [
        ("set", "STREAM_PLAYBACK=true"),
        ("set", "api_on_answer=uuid_audio_stream ${uuid} start ws://127.0.0.1:8085/stream/s/${uuid}/1001 mono 8k"),
        ("answer", ""),
        SOCKET,
    ],
    "human": [("answer", ""), ("playback", "tone_stream://L=300;%(500,500,440)")],
}
ENDPOINTS = {
    "sofia/internal/busy@127.0.0.1:5060": Endpoint("busy", answer_after_s=0.01),
    "sofia/internal/noanswer@127.0.0.1:5060": Endpoint("no_answer"),
}
Plan = Callable[["Replay"], None]


@dataclass
class Scenario:
    """A recording, the extension that was dialled, and what the other parties did."""

    name: str
    extension: str = "ctl"
    caller_hangs_up: bool = True
    plan: Plan | None = None
    "What the audio server did, or the caller beyond hanging up and pressing keys."
    answers_close: bool = True
    end_may_be_cut: bool = False
    before_s: float = BEFORE_S
    faults: Faults = field(default_factory=Faults)
    dialect: AudioDialect = "audio_stream"


@dataclass
class Replay:
    """A running scenario."""

    recording: Recording
    server: Server
    calls: dict[int, SimCall] = field(default_factory=dict)
    gateways: list[Recorder] = field(default_factory=list)
    accepted: dict[int, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    writers: list[asyncio.Task[None]] = field(default_factory=list)
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    ears: "list[UdpEnd]" = field(default_factory=list)

    def at(self, moment: float, act: Callable[..., object], *args: object) -> None:
        """Do something at a moment of the recording."""
        loop = asyncio.get_running_loop()
        loop.call_at(max(moment, loop.time()), act, *args)


def _holds(replay: Replay) -> None:
    line = replay.calls[1].line
    replay.at(replay.recording.times(1, "CHANNEL_HOLD")[1] - BEFORE_S, line.hold)
    replay.at(replay.recording.times(1, "CHANNEL_UNHOLD")[1] - BEFORE_S, line.unhold)


def _kills_b(replay: Replay) -> None:
    channel = replay.calls[1].channel
    replay.at(5.631, lambda: [leg.hang_up("ORIGINATOR_CANCEL") for leg in channel.core.b_legs.values()])


class UdpEnd(asyncio.DatagramProtocol):
    """The recorded gateway's end of one `unicast`: it sends a tone every 20 ms, and notes what comes."""

    def __init__(self) -> None:
        self.came: list[tuple[float, bytes]] = []
        self.transport: asyncio.DatagramTransport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.came.append((asyncio.get_running_loop().time(), data))

    def speak(self, far: tuple[str, int]) -> None:
        self.transport.sendto(tone(8000, 0.02, 800), far)
        asyncio.get_running_loop().call_later(0.02, self.speak, far)


def _gateway_20(replay: Replay) -> None:
    """Its ports, and when it began to speak on each of the two streams."""

    async def open_ends() -> None:
        for ours, far, begins_at in ((45963, 45964, 0.252), (41497, 41498, 2.771)):
            end = UdpEnd()
            end.transport = await replay.network.open(end, "127.0.0.1", ours)
            replay.ears.append(end)
            replay.at(begins_at, end.speak, ("127.0.0.1", far))

    replay.writers.append(asyncio.create_task(open_ends()))


def _server_10a(replay: Replay) -> None:
    for moment, _, text in texts("10a"):
        if text.endswith("..."):  # shortened in the recording; its audio was 16000 bytes
            audio = base64.b64encode(bytes(16000)).decode()
            data = {"audioDataType": "raw", "sampleRate": 16000, "audioData": audio, "id": "x1"}
            text = json.dumps({"type": "streamAudio", "data": data})
            moment += 0.15  # so long the real module was busy with it
        replay.at(moment, lambda text=text: replay.server.sides[0].text(text))
    replay.at(1.89, lambda: replay.server.sides[0].binary(bytes(640)))
    replay.at(2.343, lambda: replay.server.sides[0].leave(4001, "server done"))


def _server_10b(replay: Replay) -> None:
    def opened(side: object) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.39, replay.server.sides[-1].text, '{"type":"hello"}')
        loop.call_later(0.69, replay.server.sides[-1].leave, 1000, "bye")

    replay.server.on_open = opened


def _server_10c(replay: Replay) -> None:
    replay.at(4.29, lambda: replay.server.sides[0].drop())


def _server_10f(replay: Replay) -> None:
    for moment, _, text in texts("10f"):
        if text.endswith("..."):  # shortened in the recording
            audio = base64.b64encode(bytes(1600)).decode()
            data = {"audioContentType": "raw", "sampleRate": 8000, "audioContent": audio, "textContent": "hi"}
            text = json.dumps({"type": "playAudio", "data": data})
        replay.at(moment, lambda text=text: replay.server.sides[0].text(text))
    replay.at(1.1, lambda: replay.server.sides[0].leave(1000, "done"))


def _server_19(replay: Replay) -> None:
    for moment, _, text in texts("19"):
        if not text.endswith("..."):
            replay.at(moment, lambda text=text: replay.server.sides[0].text(text))


def _server_12a(replay: Replay) -> None:
    replay.at(0.344, lambda: replay.server.sides[0].text('{"type":"x","v":"é"}'))


def _hangs_up_unseen(replay: Replay) -> None:
    last = max(replay.recording.blocks)
    replay.at(replay.recording.times(last, "goodbye")[0] - BEFORE_S, replay.calls[1].hang_up)


def _hangs_up_second(replay: Replay) -> None:
    replay.at(replay.recording.times(2, "CHANNEL_HANGUP")[0] - BEFORE_S, replay.calls[1].hang_up)


SCENARIOS = [
    Scenario("01", "dual"),
    Scenario("01b", "dual"),
    Scenario("02", "dual", end_may_be_cut=True),
    Scenario("03a", "dual"),
    Scenario("03b"),
    Scenario("04", caller_hangs_up=False),
    Scenario("04b", before_s=0.02),  # it began something 40 ms before
    Scenario("04c", caller_hangs_up=False),
    Scenario("06a"),
    Scenario("06c", caller_hangs_up=False),
    Scenario("06b"),
    Scenario("06d", caller_hangs_up=True),
    Scenario("06f"),
    Scenario("06g", plan=_kills_b),
    Scenario("07", plan=_holds),
    Scenario("08a", caller_hangs_up=False),
    Scenario("08b", caller_hangs_up=False, plan=_hangs_up_unseen, faults=Faults(nolinger_events=0)),
    Scenario("08c"),
    Scenario("09a"),
    Scenario("09b", "ctl-nofull", before_s=0.015),
    Scenario("10a", "dual", plan=_server_10a),
    Scenario("10b", plan=_server_10b),
    Scenario("10c", plan=_server_10c),
    Scenario("10d"),
    Scenario("10f", plan=_server_10f, dialect="audio_fork"),
    Scenario("10g", answers_close=False),
    Scenario("10e", before_s=0.01),
    Scenario("12a", plan=_server_12a),
    Scenario("12b"),
    Scenario("14", caller_hangs_up=False),
    Scenario("18a", "ctl-twice", caller_hangs_up=False, plan=_hangs_up_second),
    Scenario("18b", "ctl-twice", caller_hangs_up=False, plan=_hangs_up_unseen),
    Scenario("19", "dual8k", plan=_server_19, dialect="audio_stream-base64"),
    Scenario("16a", "ctl-early"),
    Scenario("16b", "ctl-early"),
    Scenario("16c", "ctl-early"),
    Scenario("20", plan=_gateway_20),
]


def replay(scenario: Scenario) -> tuple[Recording, list[Recorder]]:
    """Run a scenario on virtual time and return what was recorded then and what came now."""
    recording, running = run(scenario)
    return recording, running.gateways


def run(scenario: Scenario) -> tuple[Recording, Replay]:
    """Run a scenario on virtual time and return what was recorded then, and all that came now."""
    recording = load(scenario.name)

    async def main() -> Replay:
        server = Server(answers_close=scenario.answers_close)
        running = Replay(recording, server)

        def accept() -> Recorder:
            running.gateways.append(Recorder())
            asyncio.get_running_loop().call_soon(running.accepted[len(running.gateways)].set)
            return running.gateways[-1]

        switch = Switch(
            media_url="ws://127.0.0.1:8085/stream/{secretary}/{uuid}/{caller}?rate=16000",
            dialect=scenario.dialect,
            extensions=EXTENSIONS,
            endpoints=ENDPOINTS,
            doors=MemoryDoors(accept, server, network=running.network),
            epoch_s=_epoch(recording),
        )
        async with switch:
            await _place_all(switch, scenario, running)
            last = max(block.at for blocks in recording.blocks.values() for block in blocks)
            await asyncio.sleep(last + 1.5 - asyncio.get_running_loop().time())
            return running

    return recording, run_virtual(main(), start_s=0.0)


def _epoch(recording: Recording) -> float:
    """Return the recorded switch's wall clock at the recording's zero; it counts whole seconds by it."""
    first = recording.blocks[1][0]
    assert isinstance(first.message, ConnectAnswer)
    return int(first.message.channel.get("Event-Date-Timestamp")) / 1e6 - first.at


async def _place_all(switch: Switch, scenario: Scenario, running: Replay) -> None:
    recording, loop = running.recording, asyncio.get_running_loop()
    running.writers = [asyncio.create_task(_write(running, conn)) for conn in recording.opened]
    seen: set[str] = set()
    for conn in sorted(recording.opened, key=recording.opened.__getitem__):
        unique_id = recording.unique_id(conn)
        if unique_id in seen:
            continue  # the switch came back for a call it has
        seen.add(unique_id)
        await asyncio.sleep(max(recording.opened[conn] - 0.001 - loop.time(), 0.0))
        call = await switch.place(Caller(destination=scenario.extension, unique_id=unique_id), faults=scenario.faults)
        running.calls[conn] = call
        for at, event in zip(recording.times(conn, "DTMF"), recording.events(conn, "DTMF"), strict=True):
            if event.get("DTMF-Source") != "APP":
                digit = (event.get("DTMF-Digit"), int(event.get("DTMF-Duration")), event.get("DTMF-Source"))
                # A digit whose event an api command held back came while that ran.
                running.at(at - BEFORE_S, call.channel.press, *digit)
        if scenario.caller_hangs_up:
            running.at(recording.times(conn, "CHANNEL_HANGUP")[0] - scenario.before_s, call.hang_up)
    if scenario.plan is not None:
        scenario.plan(running)


async def _write(running: Replay, conn: int) -> None:
    """Say what the recorded gateway said on one connection, when it said it."""
    loop = asyncio.get_running_loop()
    for write in running.recording.writes:
        if write.conn != conn:
            continue
        await asyncio.sleep(max(write.at - loop.time(), 0.0))
        await running.accepted[conn].wait()  # perhaps a frame later than recorded
        gateway = running.gateways[conn - 1]
        if write.data.startswith(b"exit") and running.recording.times(conn, "CHANNEL_HANGUP_COMPLETE"):
            await gateway.event("CHANNEL_HANGUP_COMPLETE")  # it left the moment the call was over
        gateway.send(write.data)


REPLIES = ("connect answer", "reply", "api", "goodbye")


def _parts(blocks: Sequence[Block]) -> tuple[list[Block], list[Block], list[Block]]:
    replies = [block for block in blocks if block.kind in REPLIES]
    notices = [block for block in blocks if block.kind == "linger notice"]
    events = [block for block in blocks if block.kind not in (*REPLIES, "linger notice", "CHANNEL_PARK")]
    return replies, events, notices


def _compare(now: list[Block], then: list[Block], what: str, apart_s: float) -> None:
    for mine, real in zip_longest(now, then):
        shown = f"{what}: simulated {mine}, recorded {real}"
        assert mine is not None, shown
        assert real is not None, shown
        assert (mine.kind, mine.telling) == (real.kind, real.telling), shown
        assert abs(mine.at - real.at) <= apart_s, shown


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_blocks_are_those_of_the_recording(scenario: Scenario) -> None:
    recording, gateways = replay(scenario)
    assert len(gateways) == len(recording.opened)
    for conn, then in recording.blocks.items():
        now = gateways[conn - 1].blocks
        (replies, events, notices), (real_replies, real_events, real_notices) = _parts(now), _parts(then)
        if scenario.end_may_be_cut:
            events = events[: len(real_events)]
        _compare(replies, real_replies, f"replies {conn}", CLOSE_S)
        _compare(events, real_events, f"events {conn}", CLOSE_S)
        assert [block.telling[:2][1] for block in notices] == [block.telling[:2][1] for block in real_notices]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_an_event_has_the_headers_of_a_real_one_in_its_order_and_about_its_size(scenario: Scenario) -> None:
    recording, gateways = replay(scenario)
    for conn, then in recording.blocks.items():
        _, events, _ = _parts(gateways[conn - 1].blocks)
        _, real_events, _ = _parts(then)
        pairs = [
            (gateways[conn - 1].blocks[0], then[0]),
            *zip(events[: len(real_events)], real_events, strict=True),
        ]
        for mine, real in pairs:
            ours, theirs = _names(mine), _names(real)
            assert ours == theirs, f"{mine}: {set(ours) ^ set(theirs)}"
            assert 0.75 < len(mine.message.raw) / len(real.message.raw) < 1.3, f"{mine}: {len(mine.message.raw)} bytes"


def _names(block: Block) -> list[str]:
    message = block.message
    event = message.channel if isinstance(message, ConnectAnswer) else message
    assert isinstance(event, Event)
    return [name for name, _ in event.items() if not name.startswith("variable_") and name != "Content-Length"]


def test_the_datagrams_are_those_of_the_recording() -> None:
    """How many came of each stream, when the first and the last, what they weigh, and how much the caller heard."""
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == "20")
    _, running = run(scenario)
    for conn, end in enumerate(running.ears, start=1):
        real = datagrams("20", conn)
        assert abs(len(end.came) - len(real)) <= 3
        assert {len(data) for _, data in end.came} == {size for _, size, _ in real} == {320}
        assert end.came[0][1] == real[0][2]  # a filler of the switch's own
        assert abs(end.came[0][0] - real[0][0]) <= 0.03
        assert abs(end.came[-1][0] - real[-1][0]) <= 0.05
        gaps = [later - sooner for (sooner, _), (later, _) in pairwise(end.came)]
        assert max(gaps) < 0.021
    frames = np.abs(np.frombuffer(running.calls[1].heard, "<i2").reshape(-1, 160).astype(int)).max(axis=1)
    assert abs(20 * int((frames > 600).sum()) - 4340) <= 60
