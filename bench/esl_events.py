"""What one event costs the control leg: our Decoder against a bare asyncio.Protocol that only finds six headers.

    python bench/esl_events.py [--rounds 3] [--calls 64] [--ticks 150] [--loop uvloop]

Both read the same recorded events (STATE, EXECUTE, DTMF, HANGUP_COMPLETE, as they are mixed in the recordings), in one
interleaved run, A B A B; medians of CPU time per event are printed. The bare one is the limit: it frames, searches and
slices, decodes nothing and refuses nothing. Twice:

- on the loop: a child process writes one event to each of `--calls` connections every 20 ms, as the switch does; the
  CPU time of the receiving process is counted, its socket reads included. This is what a gateway pays.
- the parser alone: the same segments handed to `data_received`, without a loop or a socket.
"""

import argparse
import asyncio
import base64
import gzip
import json
import socket
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import cast

from dueto.wire.esl import Decoder, Event

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

CAPTURES = Path(__file__).parent.parent / "tests" / "captures"
KINDS = ("CHANNEL_STATE", "CHANNEL_EXECUTE", "DTMF", "CHANNEL_HANGUP_COMPLETE")
HEADERS = (
    "Event-Name",
    "Unique-ID",
    "Event-Sequence",
    "Answer-State",
    "Hangup-Cause",
    "Caller-Caller-ID-Number",
)
NEEDLES = tuple(f"\n{name}: ".encode() for name in HEADERS)
TICK_S = 0.02
MOST = 1.3


class Bare(asyncio.Protocol):
    """The limit: what any reader of these events has to do at least."""

    def __init__(self) -> None:
        self.events = 0
        self._held = b""

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        at = 0
        while (blank := data.find(b"\n\n", at)) >= 0:
            length = data.find(b"Content-Length: ", at, blank) + 16
            stop = blank + 2 + int(data[length : data.find(b"\n", length)])
            if stop > len(data):
                break
            content = data[blank + 1 : stop]
            for needle in NEEDLES:
                start = content.find(needle)
                if start >= 0:
                    start += len(needle)
                    content[start : content.find(b"\n", start)]
            self.events += 1
            at = stop
        self._held = data[at:]


class Ours(asyncio.Protocol):
    """The Decoder, and the same six headers by `Event.get`."""

    def __init__(self) -> None:
        self.events = 0
        self._decoder = Decoder()

    def data_received(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            assert isinstance(event, Event)
            for name in HEADERS:
                event.get(name)
            self.events += 1


Reader = Bare | Ours


def recorded_events() -> list[bytes]:
    """Return every event of the four kinds, as it stood on the wire, in the order of the recordings."""
    found: list[bytes] = []
    for path in sorted(CAPTURES.glob("*/esl.bin.jsonl.gz")):
        streams: defaultdict[int, bytes] = defaultdict(bytes)
        with gzip.open(path, "rt") as lines:
            for row in map(json.loads, lines):
                if row.get("dir") == "fs>gw" and "data" in row:
                    streams[row["conn"]] += base64.b64decode(row["data"])
        for stream in streams.values():
            for message in Decoder().feed(stream):
                if isinstance(message, Event) and message.name in KINDS and not message.body_bytes:
                    content = message.raw.strip(b"\n") + b"\n\n"
                    found.append(b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % len(content) + content)
    return found


def alone(factory: Callable[[], Reader], blocks: list[bytes], passes: int) -> float:
    """Return the CPU seconds per event of the parser alone."""
    reader = factory()
    before = time.process_time()
    for _ in range(passes):
        for block in blocks:
            reader.data_received(block)
    spent = time.process_time() - before
    assert reader.events == passes * len(blocks)
    return spent / reader.events


def tick(port: int, calls: int, ticks: int) -> None:
    """Be the switch: one event on each connection every 20 ms."""
    blocks = recorded_events()
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(calls)]
    for connection in connections:
        assert connection.recv(1)  # the reader's sign that all have been accepted and its clock runs
    due, at = time.monotonic(), 0
    for _ in range(ticks):
        for connection in connections:
            connection.sendall(blocks[at % len(blocks)])
            at += 1
        due += TICK_S
        time.sleep(max(due - time.monotonic(), 0))
    for connection in connections:
        connection.close()


async def on_the_loop(factory: Callable[[], Reader], calls: int, ticks: int) -> float:
    """Return the CPU seconds per event of a process that reads them from sockets."""
    loop = asyncio.get_running_loop()
    readers: list[Reader] = []
    transports: list[asyncio.Transport] = []
    accepted, ended = asyncio.Event(), asyncio.Event()

    class Counted(factory):  # type: ignore[misc,valid-type]
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            readers.append(self)
            transports.append(cast(asyncio.Transport, transport))  # uvloop's derives from no asyncio class
            if len(readers) == calls:
                accepted.set()

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop()
            if not transports:
                ended.set()

    server = await loop.create_server(Counted, "127.0.0.1", 0, backlog=calls)
    switch = get_context("spawn").Process(target=tick, args=(server.sockets[0].getsockname()[1], calls, ticks))
    switch.start()
    await accepted.wait()
    for transport in transports:
        transport.write(b"!")
    before = time.process_time()
    await ended.wait()
    spent = time.process_time() - before
    await asyncio.to_thread(switch.join)
    server.close()
    await server.wait_closed()
    events = sum(reader.events for reader in readers)
    assert events == calls * ticks, f"{events} events of {calls * ticks} arrived"
    return spent / events


def main() -> int:
    """Run both comparisons; exit code 1 where the loop's misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=64)
    parser.add_argument("--ticks", type=int, default=150)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop" if uvloop else "asyncio")
    options = parser.parse_args()
    blocks = recorded_events()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if options.loop == "uvloop" else None)
    spent: defaultdict[tuple[str, type[Reader]], list[float]] = defaultdict(list)
    with runner:
        for _ in range(options.rounds):
            for factory in (Bare, Ours):
                spent["loop", factory].append(runner.run(on_the_loop(factory, options.calls, options.ticks)))
                spent["alone", factory].append(alone(factory, blocks, 50))
    size = sum(map(len, blocks)) / len(blocks)
    print(f"{len(blocks)} recorded events of {size:.0f} bytes on average, six headers of each; CPU time per event")
    for place, title in (("loop", f"on {options.loop}"), ("alone", "the parser alone")):
        bare, ours = (statistics.median(spent[place, factory]) * 1e6 for factory in (Bare, Ours))
        print(f"{title:>18}: bare {bare:6.2f} us   ours {ours:6.2f} us   ratio {ours / bare:.2f}")
    ratio = statistics.median(spent["loop", Ours]) / statistics.median(spent["loop", Bare])
    print(f"target on the loop: at most {MOST} x bare: {'met' if ratio <= MOST else 'MISSED'}")
    return int(ratio > MOST)


if __name__ == "__main__":
    sys.exit(main())
