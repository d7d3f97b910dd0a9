"""Many short calls over real sockets: nothing may be left of any, and memory must stay flat.

    python -m bench.soak [--calls 10000] [--at-once 200]

A gateway runs in a process of its own. The load keeps `--at-once` calls going: each opens both legs, talks and is
echoed for a tenth of a second, presses five keys, hangs up, and waits until the gateway has let go of both legs.
"""

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from bench._calls import Load
from bench._servers import SECRET, Figures, Server
from bench._support import Busy, be_apart, open_fds, rss_kb, show
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dueto.app.serve import new_event_loop

TALK_S = 0.1
SAMPLES = 10
WARM_CALLS = 1000
MOST_GROWN_KB = 2048
"Over the second half of the calls; one kept session alone would be ten times that in 5,000 of them."


@dataclass(slots=True)
class Soak:
    """What happened."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[int, int, int, float]] = field(default_factory=list)
    "Calls done, resident KiB, open files, seconds since the beginning."
    cpu_s: dict[str, float] = field(default_factory=dict)
    took_s: float = 0.0


async def soak(server: Server, calls: int, at_once: int, console: Console) -> Soak:
    """Run them all."""
    result = Soak()
    began_s = time.monotonic()
    busy = Busy(server=server.pid, load=os.getpid())
    step = max(calls // SAMPLES, 1)
    todo = iter(range(calls))
    bar = Progress(
        TextColumn("{task.completed}/{task.total} calls"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    shown = bar.add_task("", total=calls)

    async def caller(load: Load) -> None:
        for _ in todo:
            try:
                call = await load.place()
                await asyncio.sleep(TALK_S)
                call.press()
                call.hang_up()
                await call.over()
            except (OSError, TimeoutError) as error:
                result.failed[f"{type(error).__name__}: {error}"] += 1
            result.done += 1
            bar.update(shown, completed=result.done)
            if result.done % step == 0:
                kb = rss_kb(server.pid)
                result.samples.append((result.done, kb, open_fds(server.pid), time.monotonic() - began_s))
                bar.update(shown, description=f"{kb / 1024:.1f} MiB")

    with bar:
        ports = server.ports
        async with Load(media_port=ports["media"], control_port=ports["control"], secret=SECRET) as load:
            await asyncio.gather(*(caller(load) for _ in range(at_once)))
    result.took_s, result.cpu_s = time.monotonic() - began_s, busy.spent_s()
    return result


def report(console: Console, result: Soak, before: Figures, after: Figures, fds: tuple[int, int]) -> bool:
    """Print it; return whether nothing was left and memory was flat."""
    calls = result.done
    show(
        console,
        f"{calls} calls over real sockets",
        ("calls", "RSS MiB", "open files", "calls/s"),
        (
            (str(done), f"{kb / 1024:.2f}", str(files), f"{done / seconds:.0f}")
            for done, kb, files, seconds in result.samples
        ),
    )
    warm = [kb for done, kb, _, _ in result.samples if done >= min(WARM_CALLS, calls)]
    half = [kb for done, kb, _, _ in result.samples if done >= calls / 2]
    grown_kb = half[-1] - half[0]
    alive = sum(after.alive.values())
    console.print(
        f"{calls / result.took_s:.0f} calls/s; CPU per call: server {result.cpu_s['server'] / calls * 1e3:.2f} ms"
    )
    console.print(
        f"busy: server {result.cpu_s['server'] / result.took_s:.0%}, load {result.cpu_s['load'] / result.took_s:.0%}"
    )
    console.print(
        f"memory after the first {WARM_CALLS}: {warm[-1] - warm[0]:+d} KiB, in the second half {grown_kb:+d} KiB"
    )
    console.print(f"failed calls: {dict(result.failed) or 0}")
    console.print(
        f"left at the end: {alive} objects of calls {after.alive or ''}, tasks {before.tasks} -> {after.tasks}"
    )
    console.print(f"open files {fds[0]} -> {fds[1]}")
    return (
        not alive
        and after.tasks == before.tasks
        and fds[0] == fds[1]
        and not result.failed
        and grown_kb <= MOST_GROWN_KB
    )


def main() -> int:
    """Run the soak; exit code 1 where a call failed, something is left, or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=200)
    options = parser.parse_args()
    console = Console(highlight=False)
    with Server("gateway") as server, asyncio.Runner(loop_factory=new_event_loop) as runner:
        be_apart(console)
        before, fds = server.figures(), open_fds(server.pid)
        result = runner.run(soak(server, options.calls, options.at_once, console))
        server.figures()  # lets the loop take what closed last
        ok = report(console, result, before, server.figures(), (fds, open_fds(server.pid)))
    console.print("nothing left, memory flat" if ok else "NOT CLEAN")
    return int(not ok)


if __name__ == "__main__":
    sys.exit(main())
