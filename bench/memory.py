"""What a waiting call costs in memory: its control leg is up, no stream has come, no agent runs.

python -m bench.memory [--calls 1000]
"""

import argparse
import asyncio
import sys

from bench._calls import Load
from bench._servers import SECRET, Server
from bench._support import be_apart, rss_kb
from rich.console import Console

from dueto.app.serve import new_event_loop

MOST_KB = 20.0


async def measure(server: Server, calls: int) -> float:
    """Return the resident KiB per waiting call."""
    async with Load(control_port=server.ports["control"], secret=SECRET) as load:
        warm = [await load.place() for _ in range(50)]  # what the first calls bring with them stays: not theirs
        for call in warm:
            call.hang_up()
        await asyncio.gather(*(call.over() for call in warm))
        server.figures()
        before_kb = rss_kb(server.pid)
        waiting = [await load.place() for _ in range(calls)]
        server.figures()
        grown_kb = rss_kb(server.pid) - before_kb
        for call in waiting:
            call.hang_up()
        await asyncio.gather(*(call.over() for call in waiting))
    return grown_kb / calls


def main() -> int:
    """Measure; exit code 1 where it is more than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    console = Console(highlight=False)
    with Server("gateway") as server, asyncio.Runner(loop_factory=new_event_loop) as runner:
        be_apart(console)
        each_kb = runner.run(measure(server, options.calls))
    met = each_kb <= MOST_KB
    console.print(f"{each_kb:.1f} KiB per waiting call ({options.calls} of them, the connect answer of 7 kB included)")
    console.print(f"bar, at most {MOST_KB:.0f} KiB: {'met' if met else 'MISSED'}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
