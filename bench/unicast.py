"""Calls over `unicast`: what a frame costs, the delay added, and what the caller misses when the gateway stalls.

    python -m bench.unicast [--calls 200] [--seconds 5]

The gateway is the real `Gateway` in a process of its own; the load plays the switch on another core: a control leg that
says what a real one was recorded to say, and for each `unicast` a UDP socket that sends a packet every 20 ms and plays
what comes back, one packet per 20 ms, from a queue. A queue that runs dry while the agent speaks is a gap.

- `deaf`: the agent hears every frame and does nothing; nothing goes down. The cost of the way up.
- `silent`: the same, and the gateway fills in silence.
- `echo`: each frame comes back; its way there and back is timed.
- `talk`: the agent speaks without end, by `say`.
- `talk, stalled`: the same, and the gateway's loop stands still for 100 ms every second.
"""

import argparse
import asyncio
import os
import struct
import sys
import time
import uuid
from array import array
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import cast

from bench.machine import LOAD_CORE, SERVER_CORE, Spread, cpu_s, pin
from bench.recording import recorded_call
from bench.report import print_table
from rich.console import Console

from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.app.serve import new_event_loop
from dueto.app.settings import Settings
from dueto.call import Call
from dueto.call.events import CallEvent
from dueto.sim import tone
from dueto.wire.esl.switch_end import CommandDecoder, encode_goodbye, encode_reply

KINDS = ("deaf", "silent", "echo", "talk", "talk, stalled")
FRAME_BYTES = 320
FRAME_S = 0.02
SLOTS = 20
"Calls are spread over the frame, a slot a millisecond: no two telephones tick together."
PORTS = "10000-15999"
STALL_S = 0.1
_STAMP = struct.Struct("<qi")
_FILLER = bytes(FRAME_BYTES - _STAMP.size)
_MARK = -77
"In place of a number: this is no frame that was sent to be echoed."
Address = tuple[str, int]


# -- the gateway


async def _until_over(call: Call) -> None:
    def ignore(event: CallEvent) -> None:
        del event

    async for event in call.events():
        ignore(event)


async def _deaf(call: Call) -> None:
    call.audio_to(len)
    await _until_over(call)


async def _echo(call: Call) -> None:
    call.audio_to(call.write_now)
    await _until_over(call)


async def _talk(call: Call) -> None:
    call.audio_to(len)
    speech = tone(call.rate_hz, 60.0, 440)
    while not call.ended:
        await call.say(speech)


def _child(kind: str, line: Connection) -> None:
    pin(SERVER_CORE)
    idle = "nothing" if kind == "deaf" else "silence"
    settings = Settings.model_validate(
        {
            "control": {"listen": "127.0.0.1:0", "max_calls": 1000},
            "media": {"dialect": "unicast", "unicast_ports": PORTS, "unicast_idle": idle},
            "metrics": {"listen": ""},
        }
    )
    agent = {"deaf": _deaf, "silent": _deaf, "echo": _echo}.get(kind, _talk)

    async def serve() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        async with Gateway(settings, agent=agent) as gateway:
            line.send(gateway.control_port)
            loop.add_reader(line.fileno(), over.set)
            while not over.is_set():
                try:
                    async with asyncio.timeout(1.0):
                        await over.wait()
                except TimeoutError:
                    if kind == "talk, stalled":
                        time.sleep(STALL_S)  # noqa: ASYNC251 - the very thing
            loop.remove_reader(line.fileno())

    with open(os.devnull, "w") as nobody, asyncio.Runner(loop_factory=new_event_loop) as runner:
        configure_logs("json", nobody)
        runner.run(serve())


# -- the switch


@dataclass(slots=True)
class Account:
    """What all calls measured."""

    sent: int = 0
    came: int = 0
    gaps: int = 0
    "Packets that were not there when they were to be played, in the middle of speech."
    wrong: int = 0
    "Of another size than a packet."
    echo_ns: "array[int]" = field(default_factory=lambda: array("q"))
    waiting: "array[int]" = field(default_factory=lambda: array("i"))
    "How many packets were waiting when one was played."


class _Stream(asyncio.DatagramProtocol):
    """The switch's end of one `unicast`."""

    def __init__(self, account: Account, far: Address) -> None:
        self._account, self._far = account, far
        self._transport: asyncio.DatagramTransport
        self.queue = 0
        self.speaks = False
        "Something has come to be played."

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        account = self._account
        account.came += 1
        self.queue += 1
        self.speaks = True
        if len(data) != FRAME_BYTES:
            account.wrong += 1
            return
        sent_ns, mark = _STAMP.unpack_from(data)
        if mark == _MARK:
            account.echo_ns.append(time.monotonic_ns() - sent_ns)

    def tick(self) -> None:
        """20 ms have passed: one packet up, one played."""
        account = self._account
        if self.queue:
            account.waiting.append(self.queue)
            self.queue -= 1
        elif self.speaks:
            account.gaps += 1
        self._transport.sendto(_STAMP.pack(time.monotonic_ns(), _MARK) + _FILLER, self._far)
        account.sent += 1

    def close(self) -> None:
        self._transport.close()


class _Control(asyncio.Protocol):
    """The switch's side of a control leg."""

    def __init__(self, load: "Load", unique_id: str) -> None:
        self._load, self._id = load, unique_id
        self._script = recorded_call().renamed(unique_id)
        self._decoder = CommandDecoder()
        self.transport: asyncio.Transport
        loop = asyncio.get_running_loop()
        self.up: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.stream: _Stream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for command in self._decoder.feed(data):
            match command.word:
                case "connect":
                    reply = self._script.connect_answer
                case "api":
                    reply = b"Content-Type: api/response\nContent-Length: 4\n\n+OK\n"
                case "exit":
                    reply = encode_reply("+OK bye") + encode_goodbye(self._id)
                case _:
                    reply = encode_reply("+OK")
            if command.headers.get("call-command") == "unicast":
                self._load.owned.append(asyncio.ensure_future(self._begin(dict(command.headers))))
            self.transport.write(reply)
            if command.word == "exit":
                self.transport.close()

    async def _begin(self, headers: dict[str, str]) -> None:
        far = headers["remote-ip"], int(headers["remote-port"])
        stream = _Stream(self._load.account, far)
        local = headers["local-ip"], int(headers["local-port"])
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: stream, local_addr=local)
        except OSError:
            return  # busy: as on a switch, nobody is told
        self.stream = stream
        self._load.add(stream)
        if not self.up.done():
            self.up.set_result(None)

    def hang_up(self) -> None:
        """CHANNEL_HANGUP, and what follows it."""
        if self.stream is not None:
            self._load.remove(self.stream)
            self.stream.close()
        self.transport.write(self._script.hangup + self._script.ending)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Load:
    """Many calls at once, spread over the 20 ms."""

    def __init__(self) -> None:
        self.account = Account()
        self.owned: list[asyncio.Task[None]] = []
        self.late_ms = 0.0
        self._slots: list[list[_Stream]] = [[] for _ in range(SLOTS)]
        self._count = self._at = 0
        self._began_s = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: _Stream) -> None:
        """Tick it from now on."""
        self._slots[self._count % SLOTS].append(stream)
        self._count += 1
        if self._timer is None:
            self._tick()

    def remove(self, stream: _Stream) -> None:
        """No more of it."""
        for slot in self._slots:
            if stream in slot:
                slot.remove(stream)

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now_s, step_s = time.monotonic(), FRAME_S / SLOTS
        self.late_ms = max(self.late_ms, (now_s - self._began_s - (self._at + 1) * step_s) * 1000) if self._at else 0.0
        while self._began_s + (self._at + 1) * step_s <= now_s + 0.0005:
            self._at += 1
            for stream in self._slots[self._at % SLOTS]:
                stream.tick()
        due_s = self._began_s + (self._at + 1) * step_s
        self._timer = asyncio.get_running_loop().call_later(max(due_s - time.monotonic(), 0.0), self._tick)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind, measured."""

    account: Account
    cpu_us: float
    busy: float
    late_ms: float


async def measure(port: int, pid: int, calls: int, seconds: float) -> Row:
    """Run the calls; measure while all of them are up."""
    load, loop = Load(), asyncio.get_running_loop()
    legs: list[_Control] = []
    for _ in range(calls):
        unique_id = str(uuid.uuid4())
        _, leg = await loop.create_connection(lambda unique_id=unique_id: _Control(load, unique_id), "127.0.0.1", port)  # type: ignore[misc]
        legs.append(leg)
        async with asyncio.timeout(20):
            await leg.up
    await asyncio.sleep(1.5)
    load.account = account = Account()
    for slot in load._slots:
        for stream in slot:
            stream._account = account
    load.late_ms = 0.0
    before_s, began_s = cpu_s(pid), time.monotonic()
    await asyncio.sleep(seconds)
    spent = cpu_s(pid) - before_s
    share = spent / (time.monotonic() - began_s)
    row = Row(account, spent / max(account.sent, 1) * 1e6, share, load.late_ms)
    for leg in legs:
        leg.hang_up()
    async with asyncio.timeout(20):
        await asyncio.gather(*(leg.over for leg in legs))
    load.close()
    return row


def main() -> int:
    """Measure every kind; exit code 1 where a packet was of another size, or speech had a gap without a stall."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    console = Console(highlight=False)
    if not pin(LOAD_CORE):
        console.print("Only one core here: the load and the server share it, so the latencies mean little.")
    rows: dict[str, Row] = {}
    context = get_context("spawn")
    for kind in options.kinds:
        line, theirs = context.Pipe()
        process = context.Process(target=_child, args=(kind, theirs), daemon=True)
        process.start()
        theirs.close()
        port: int = line.recv()
        assert process.pid is not None
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            rows[kind] = runner.run(measure(port, process.pid, options.calls, options.seconds))
        line.close()
        process.join(10)
    print_table(
        console,
        f"unicast, {options.calls} calls at once, 20 ms packets of {FRAME_BYTES} bytes",
        ("agent", "up", "down", "us/packet up", "server", "echo p50 ms", "p99 ms", "queue p50", "gaps", "load late ms"),
        (
            (
                kind,
                str(row.account.sent),
                str(row.account.came),
                f"{row.cpu_us:.1f}",
                f"{row.busy:.0%}",
                *_echo_columns(row.account),
                f"{Spread.of(row.account.waiting).p50:.0f}" if row.account.waiting else "",
                str(row.account.gaps),
                f"{row.late_ms:.1f}",
            )
            for kind, row in rows.items()
        ),
    )
    bad = sum(row.account.wrong for row in rows.values())
    for kind in ("talk", "talk, stalled"):
        if kind in rows:
            share = rows[kind].account.gaps / max(rows[kind].account.sent, 1)
            console.print(f"{kind}: {share:.4%} of the packets were missing when they were to be heard")
            bad += share > 0.001
    return int(bool(bad))


def _echo_columns(account: Account) -> tuple[str, str]:
    if not account.echo_ns:
        return "", ""
    spread = Spread.of(ns / 1e6 for ns in account.echo_ns)
    return f"{spread.p50:.2f}", f"{spread.p99:.2f}"


if __name__ == "__main__":
    sys.exit(main())
