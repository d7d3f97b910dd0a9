"""From the bytes of CHANNEL_HANGUP to the agent's `HungUp`, against a bare Protocol that finds the event's name.

    python -m bench.hangup [--calls 200] [--hangups 300] [--rate 50] [--rounds 3] [--engines]

A gateway runs on one core with `--calls` paired calls whose audio goes on all the time (echo agent). On another core
the load hangs up one of them, `--rate` times a second, and places a new one for it; between two hangups it writes the
same bytes to the bare Protocol, which runs in the gateway's process and so waits for the same loop. The clock
starts right before the system call that hands the bytes to the kernel; it stops when the agent's `async for` over
`call.events()` yields `HungUp`, or when the bare Protocol has found the name. Both processes read the same clock.
"""

import argparse
import asyncio
import os
import statistics
import sys
import uuid
from dataclasses import dataclass

from bench._calls import Load, LoadCall, script_of, write_now
from bench._servers import SECRET, Server
from bench._support import Busy, Spread, be_apart, show
from rich.console import Console

from dueto.app.serve import new_event_loop

MOST_MS, MOST_TIMES = 2.0, 1.5


@dataclass(frozen=True, slots=True)
class Round:
    """Both, once."""

    ours_ms: Spread
    bare_ms: Spread
    untold: int
    "Hangups that the agent was never told of."
    server_busy: float
    load_busy: float


async def hang_up_one_by_one(
    server: Server, load: Load, calls: list[LoadCall], bare: list[asyncio.Transport], hangups: int, rate: float
) -> Round:
    """Hang up calls and write to the bare Protocol in turn; new calls take the place of those that are gone."""
    loop = asyncio.get_running_loop()
    ended: list[LoadCall] = []
    written_ns: dict[str, int] = {}
    replacing: set[asyncio.Task[None]] = set()

    async def replace(call: LoadCall) -> None:
        await call.over()
        calls.append(await load.place())

    busy = Busy(server=server.pid, load=os.getpid())
    began_s = loop.time()
    for number in range(2 * hangups):
        await asyncio.sleep(max(began_s + number / (2 * rate) - loop.time(), 0))
        if number % 2:
            unique_id = str(uuid.uuid4())
            block = script_of(unique_id).hangup
            written_ns[unique_id] = write_now(bare[number % len(bare)], block)
        else:
            call = calls.pop(0)
            call.hang_up()
            ended.append(call)
            replacing.add(task := loop.create_task(replace(call)))
            task.add_done_callback(replacing.discard)
    shares = busy.shares()
    await asyncio.gather(*replacing)
    await asyncio.sleep(0.2)  # the last bytes may still be on their way; who is not told by then never will be
    figures = server.figures()
    told = [call for call in ended if call.unique_id in figures.hung_up_ns]
    return Round(
        Spread.of((figures.hung_up_ns[call.unique_id] - call.hung_up_ns) / 1e6 for call in told),
        Spread.of((figures.bare_ns[unique_id] - at_ns) / 1e6 for unique_id, at_ns in written_ns.items()),
        len(ended) - len(told),
        shares["server"],
        shares["load"],
    )


async def compare(servers: list[Server], calls: int, hangups: int, rate: float, rounds: int) -> list[list[Round]]:
    """One server after the other, `rounds` times over; each is alone with the load while it is measured."""
    measured: list[list[Round]] = [[] for _ in servers]
    for _ in range(rounds):
        for server, its in zip(servers, measured, strict=True):
            its += await run(server, calls, hangups, rate, 1)
    return measured


async def run(server: Server, calls: int, hangups: int, rate: float, rounds: int) -> list[Round]:
    """Bring all calls up, then measure."""
    loop = asyncio.get_running_loop()
    ports = server.ports
    async with Load(media_port=ports["media"], control_port=ports["control"], secret=SECRET) as load:
        up = [await load.place() for _ in range(calls)]
        bare = [await loop.create_connection(asyncio.Protocol, "127.0.0.1", ports["bare"]) for _ in range(calls)]
        wires = [transport for transport, _ in bare]
        measured = []
        for _ in range(rounds):
            await asyncio.sleep(0.5)
            measured.append(await hang_up_one_by_one(server, load, up, wires, hangups, rate))
        for call in up:
            call.hang_up()
        await asyncio.gather(*(call.over() for call in up))
        for wire in wires:
            wire.abort()
    return measured


def main() -> int:
    """Run the comparison; exit code 1 where a hangup was not told, or the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--hangups", type=int, default=300, help="in each round, of either kind")
    parser.add_argument("--rate", type=float, default=50.0, help="hangups per second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", action="store_true", help="both control engines, interleaved, instead of one")
    options = parser.parse_args()
    console = Console(highlight=False)
    figures = (options.calls, options.hangups, options.rate, options.rounds)
    if options.engines:
        return engines(console, *figures)
    with Server("noting gateway") as server, asyncio.Runner(loop_factory=new_event_loop) as runner:
        be_apart(console)
        rounds = runner.run(run(server, *figures))
    return report(console, rounds, options.calls, options.rate)


def engines(console: Console, calls: int, hangups: int, rate: float, rounds: int) -> int:
    """Both engines side by side."""
    names = ("native", "greenswitch")
    with (
        Server("noting gateway", names[0]) as native,
        Server("noting gateway", names[1]) as green,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        be_apart(console)
        measured = runner.run(compare([native, green], calls, hangups, rate, rounds))
    missed = 0
    for name, its in zip(names, measured, strict=True):
        console.print(f"\n[bold]{name}")
        missed |= report(console, its, calls, rate, barred=name == "native")
    ratio = statistics.median(one.ours_ms.p99 for one in measured[1]) / statistics.median(
        one.ours_ms.p99 for one in measured[0]
    )
    console.print(f"p99 of greenswitch: {ratio:.1f} x native")
    return missed


def report(console: Console, rounds: list[Round], calls: int, rate: float, *, barred: bool = True) -> int:
    """Print the rounds and, where there is one, the bar; 1 where that is missed or a hangup was not told."""
    show(
        console,
        f"CHANNEL_HANGUP -> agent, {calls} paired calls with audio, {rate:.0f} hangups/s",
        ("ms", "p50", "p99", "max", "bare p50", "p99", "max", "untold", "server", "load"),
        (
            (
                f"round {number}",
                *(f"{value:.2f}" for value in (one.ours_ms.p50, one.ours_ms.p99, one.ours_ms.most)),
                *(f"{value:.2f}" for value in (one.bare_ms.p50, one.bare_ms.p99, one.bare_ms.most)),
                str(one.untold),
                f"{one.server_busy:.0%}",
                f"{one.load_busy:.0%}",
            )
            for number, one in enumerate(rounds, 1)
        ),
    )
    ours = statistics.median(one.ours_ms.p99 for one in rounds)
    limit = statistics.median(one.bare_ms.p99 for one in rounds)
    untold = sum(one.untold for one in rounds)
    met = not barred or ours <= MOST_MS or ours <= MOST_TIMES * limit
    console.print(f"median p99: dueto {ours:.2f} ms, bare {limit:.2f} ms, ratio {ours / limit:.2f}")
    if barred:
        console.print(f"bar, p99 at most {MOST_MS:.0f} ms or {MOST_TIMES} x bare: {'met' if met else 'MISSED'}")
    return int(bool(untold) or not met)


if __name__ == "__main__":
    sys.exit(main())
