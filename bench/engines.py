"""Both control engines side by side: hangup to sink, set-up rate, memory per call, CPU per event and per command.

    python -m bench.engines --calls 100 --rounds 5

Each engine runs in a child process, the switch in this one; the rounds of the two are interleaved, so that whatever
else the machine does falls on both.
"""

import argparse
import asyncio
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from bench.machine import LOAD_CORE, SERVER_CORE, Spread, cpu_s, pin, rss_kb
from bench.report import print_table
from rich.console import Console

from dueto.legs.esl_outbound import ControlServer, OutboundOptions
from dueto.legs.greenswitch_engine import GreenswitchServer
from dueto.legs.ports import ControlLeg
from dueto.wire.esl import Api, Event
from dueto.wire.esl.switch_end import (
    CommandDecoder,
    encode_api_response,
    encode_connect_answer,
    encode_event,
    encode_goodbye,
    encode_reply,
)

ENGINES = {"native": ControlServer, "greenswitch": GreenswitchServer}
EVENTS = 50
"Per call and round."
HEADERS = [(f"variable_number_{number}", f"value {number}") for number in range(150)]
"An event of a real switch has about as many, and 6 kB."


class Probe:
    """The gateway's side: reads of every event what a call reads, and answers some of them with a command."""

    def control_came(self, leg: ControlLeg) -> None:
        leg.attach(self)

    def control_event(self, leg: ControlLeg, event: Event) -> None:
        name = event.name
        event.get("Unique-ID")
        event.get("DTMF-Digit")
        event.get("Hangup-Cause")
        if name == "CHANNEL_HANGUP":
            leg.post(Api("noted", str(time.monotonic_ns() - int(event.get("Stamp")))))
        elif name == "TALK":
            leg.post(Api("noted", event.get("Stamp")))
        elif name == "CHANNEL_HANGUP_COMPLETE":
            leg.notify_session_ended("over")

    def control_lingering(self, leg: ControlLeg) -> None:
        pass

    def control_closed(self, leg: ControlLeg, reason: str) -> None:
        pass

    def refused(self, leg: str, reason: str, peer: str) -> None:
        raise AssertionError(f"refused: {reason}")


def _serve(engine: str, tell: Connection) -> None:
    async def run() -> None:
        server = ENGINES[engine](Probe(), OutboundOptions())
        tell.send(await server.start("127.0.0.1", 0))
        await asyncio.to_thread(tell.recv)
        await server.aclose()

    pin(SERVER_CORE)
    asyncio.run(run())


@dataclass
class Engine:
    """A child process that runs one engine, and what was measured on it."""

    name: str
    process: BaseProcess
    pipe: Connection
    port: int
    per_s: list[float] = field(default_factory=list)
    kb: list[float] = field(default_factory=list)
    event_us: list[float] = field(default_factory=list)
    command_us: list[float] = field(default_factory=list)
    idle_percent: list[float] = field(default_factory=list)
    hangup_ms: list[float] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @classmethod
    def start(cls, name: str) -> "Engine":
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(name, theirs), daemon=True)
        process.start()
        return cls(name, process, ours, ours.recv())

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join(10)


class Line:
    """The switch's end of one call."""

    def __init__(self, number: int) -> None:
        self.unique_id = f"call {number}"
        self.opened = asyncio.Event()
        self.noted: asyncio.Queue[int] = asyncio.Queue()
        self.writer: asyncio.StreamWriter
        self.reading: asyncio.Task[None]

    async def dial(self, port: int) -> None:
        reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.reading = asyncio.get_running_loop().create_task(self._read(reader))
        await self.opened.wait()

    def encoded(self, name: str) -> bytes:
        headers = [("Event-Name", name), ("Unique-ID", self.unique_id), ("Stamp", "0" * 20), *HEADERS]
        return encode_event(headers)

    def hang_up(self, hangup: bytes) -> None:
        self.writer.write(hangup.replace(b"0" * 20, b"%020d" % time.monotonic_ns()))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = CommandDecoder()
        while data := await reader.read(65536):
            for command in decoder.feed(data):
                match command.word:
                    case "connect":
                        identity = [("Event-Name", "CHANNEL_DATA"), ("Unique-ID", self.unique_id), *HEADERS]
                        self.writer.write(encode_connect_answer(identity))
                    case "api":
                        self.noted.put_nowait(int(command.rest.split()[-1]))
                        self.writer.write(encode_api_response(b"+OK"))
                    case "exit":
                        self.writer.write(encode_reply("+OK bye") + encode_goodbye(self.unique_id))
                        self.writer.close()
                    case word:
                        self.writer.write(encode_reply("+OK"))
                        if word == "event":
                            self.opened.set()


async def _round(engine: Engine, calls: int) -> None:
    before_kb = rss_kb(engine.pid)
    lines = [Line(number) for number in range(calls)]
    began = time.perf_counter()
    for at in range(0, calls, 10):
        await asyncio.gather(*(line.dial(engine.port) for line in lines[at : at + 10]))
    engine.per_s.append(calls / (time.perf_counter() - began))
    engine.kb.append((rss_kb(engine.pid) - before_kb) / calls)

    cpu, began = cpu_s(engine.pid), time.perf_counter()
    await asyncio.sleep(0.5)  # what it costs to do nothing: measured, not waited for
    engine.idle_percent.append(100 * (cpu_s(engine.pid) - cpu) / (time.perf_counter() - began))

    async def talk(name: str) -> float:
        said = [line.encoded(name) * 5 for line in lines]
        last = [line.encoded("TALK") for line in lines]
        cpu = cpu_s(engine.pid)
        for _ in range(EVENTS // 5):
            for line, data in zip(lines, said, strict=True):
                line.writer.write(data)
            await asyncio.sleep(0.01)
        for line, data in zip(lines, last, strict=True):
            line.writer.write(data)
        for line in lines:
            for _ in range(EVENTS + 1 if name == "TALK" else 1):
                await line.noted.get()
        return (cpu_s(engine.pid) - cpu) * 1e6 / (calls * (EVENTS + 1))

    engine.event_us.append(await talk("DTMF"))
    engine.command_us.append(await talk("TALK") - engine.event_us[-1])

    hangups = [line.encoded("CHANNEL_HANGUP") for line in lines]
    for line, hangup in zip(lines, hangups, strict=True):
        line.hang_up(hangup)
        engine.hangup_ms.append(await line.noted.get() / 1e6)
    for line in lines:
        line.writer.write(line.encoded("CHANNEL_HANGUP_COMPLETE"))
    await asyncio.gather(*(line.reading for line in lines))


async def measure(calls: int, rounds: int) -> list[Engine]:
    """Run `rounds` of each engine, by turns."""
    engines = [Engine.start(name) for name in ENGINES]
    try:
        for _ in range(rounds + 1):
            for engine in engines:
                await _round(engine, calls)
        for engine in engines:
            for values in (engine.per_s, engine.event_us, engine.command_us, engine.idle_percent):
                del values[0]  # the first round warms up; its memory is what counts, later rounds find it there
            del engine.hangup_ms[:calls]
    finally:
        for engine in engines:
            engine.stop()
    return engines


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    pin(LOAD_CORE)
    engines = asyncio.run(measure(options.calls, options.rounds))
    rows: dict[str, list[str]] = defaultdict(list)
    for engine in engines:
        hangup = Spread.of(engine.hangup_ms)
        rows["hangup bytes to sink, p50 ms"].append(f"{hangup.p50:.2f}")
        rows["hangup bytes to sink, p99 ms"].append(f"{hangup.p99:.2f}")
        rows["calls set up per second"].append(f"{Spread.of(engine.per_s).p50:.0f}")
        rows["memory per open call, kB"].append(f"{engine.kb[0]:.1f}")
        rows["CPU per event, µs"].append(f"{Spread.of(engine.event_us).p50:.0f}")
        rows["CPU per command and reply, µs"].append(f"{Spread.of(engine.command_us).p50:.0f}")
        rows[f"CPU of {options.calls} idle calls, % of a core"].append(f"{Spread.of(engine.idle_percent).p50:.1f}")
    title = f"{options.calls} calls, {options.rounds} rounds of each engine by turns"
    table = [(name, *values) for name, values in rows.items()]
    print_table(Console(), title, ("", *(engine.name for engine in engines)), table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
