"""The way of a caller's voice to the agent and back: the gateway with the echo agent against a bare picows echo.

    python -m bench.echo [--calls 200] [--seconds 5] [--rounds 3]

Both servers run all the time in processes of their own on one core; the load runs on another and places its calls at
one of them after the other, A B A B. At the gateway every call has both legs and is paired (the control leg says what
a real switch was recorded to say); the bare server only sends back what comes. Each frame carries the time it was sent
and a number: all must come back, once, in order. The latency is that from the load's send to the load's receive.
"""

import argparse
import asyncio
import os
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass

from bench._calls import Load
from bench._servers import SECRET, Server
from bench._support import Busy, Spread, be_apart, show
from rich.console import Console

from dueto.app.serve import new_event_loop

MOST_MS, MOST_TIMES = 20.0, 1.5


@dataclass(frozen=True, slots=True)
class Round:
    """One server, once."""

    paired: int
    frames: int
    missing: int
    echo_ms: Spread
    cpu_us: float
    "CPU time of the server per frame pair, one up and one down."
    server_busy: float
    load_busy: float
    late_ms: float


async def measure(server: Server, calls: int, seconds: float) -> Round:
    """Run `calls` calls at once; measure while all of them talk, and count until the last frame is back."""
    async with Load(
        media_port=server.ports["media"], control_port=server.ports.get("control", 0), secret=SECRET
    ) as load:
        placed = [await load.place() for _ in range(calls)]
        await asyncio.sleep(0.5)  # a warm start for both
        load.account.echo_ns = load.account.echo_ns[:0]
        load.late_ms = 0.0
        back_before = load.account.came_back
        busy = Busy(server=server.pid, load=os.getpid())
        await asyncio.sleep(seconds)
        shares, spent = busy.shares(), busy.spent_s()
        back, echo_ns, late_ms = load.account.came_back - back_before, load.account.echo_ns[:], load.late_ms
        for call in placed:
            call.talks = False
        await load.all_back()
        for call in placed:
            call.hang_up()
        await asyncio.gather(*(call.over() for call in placed))
    return Round(
        paired=len(placed),
        frames=load.account.sent,
        missing=load.account.lost + load.account.wrong,
        echo_ms=Spread.of(ns / 1e6 for ns in echo_ns),
        cpu_us=spent["server"] / back * 1e6,
        server_busy=shares["server"],
        load_busy=shares["load"],
        late_ms=late_ms,
    )


def main() -> int:
    """Run the comparison; exit code 1 where a call or a frame is missing, or the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console(highlight=False)
    rounds: defaultdict[str, list[Round]] = defaultdict(list)
    with (
        Server("gateway") as gateway,
        Server("bare echo") as bare,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        be_apart(console)
        for _ in range(options.rounds):
            for name, server in (("dueto", gateway), ("bare picows", bare)):
                rounds[name].append(runner.run(measure(server, options.calls, options.seconds)))
    show(
        console,
        f"Echo, {options.calls} calls at once, 20 ms frames of 640 bytes",
        ("server", "frames", "missing", "p50 ms", "p99 ms", "max ms", "us/pair", "server", "load", "load late ms"),
        (
            (
                name,
                str(one.frames),
                str(one.missing),
                f"{one.echo_ms.p50:.2f}",
                f"{one.echo_ms.p99:.2f}",
                f"{one.echo_ms.most:.2f}",
                f"{one.cpu_us:.1f}",
                f"{one.server_busy:.0%}",
                f"{one.load_busy:.0%}",
                f"{one.late_ms:.1f}",
            )
            for pair in zip(*rounds.values(), strict=True)
            for name, one in zip(rounds, pair, strict=True)
        ),
    )
    ours, limit = rounds["dueto"], rounds["bare picows"]

    def medians(of: list[Round]) -> tuple[float, float, float]:
        return (
            statistics.median(one.echo_ms.p50 for one in of),
            statistics.median(one.echo_ms.p99 for one in of),
            statistics.median(one.cpu_us for one in of),
        )

    p50, p99, cpu = (mine / bare for mine, bare in zip(medians(ours), medians(limit), strict=True))
    console.print(f"medians, dueto / bare: p50 {p50:.2f}, p99 {p99:.2f}, CPU per pair {cpu:.2f}")
    missing = sum(one.missing for one in ours)
    met = medians(ours)[1] <= MOST_MS or p99 <= MOST_TIMES
    paired = sum(one.paired for one in ours)
    console.print(f"paired: {paired} of {options.calls * options.rounds} calls; frames missing: {missing}")
    console.print(f"bar, p99 at most {MOST_MS:.0f} ms or {MOST_TIMES} x bare: {'met' if met else 'MISSED'}")
    return int(bool(missing) or not met)


if __name__ == "__main__":
    sys.exit(main())
