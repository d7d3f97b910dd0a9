"""Both legs at once: an echo that goes on while calls end."""

import time
from contextlib import ExitStack

from bench.lab import DUETO, Kind, Load, Server
from bench.machine import Spread
from bench.measures.media import CALLS, echoed
from bench.rows import Goal, Metric, Pace, Row

TOGETHER = Kind("greenswitch + websockets", "greenswitch_and_websockets.py", venv="websockets")
HANGUPS, RATE = 150, 50
EVENTS = 1000
"A second, on all calls together, where the control legs have something to say as well."


def together(row: Row, pace: Pace) -> None:
    """X1: 200 calls talk, others end, 50 a second; once more while the control legs have events."""
    count = pace.count(HANGUPS)
    row.note(f"{CALLS} calls are left when the last of {count} is hung up; CPU is per frame pair, before the hangups")
    row.note("the bars are those of silent control legs; the rounds with events are two at most")
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(kind)) for kind in (DUETO, TOGETHER)]
        for done in range(pace.rounds):
            for server in servers:
                _add(row, server, pace, count)
            if done < 2 and pace.rounds > 1:
                for server in servers:
                    _add(row, server, pace, count, EVENTS, f", {EVENTS} events/s")


def _add(row: Row, server: Server, pace: Pace, count: int, events: int = 0, suffix: str = "") -> None:
    with Load(server) as load:
        load.background(events)
        figures, pair_us, busy = echoed(server, load, CALLS, pace.seconds(3))
        load.place(count)
        time.sleep(0.5)
        server.report()
        written = load.hang_up(count, RATE)
        time.sleep(0.3)  # who is not told by then never will be
        told = server.report()["told"]
    delays = Spread.of((told[name] - at) / 1e6 for name, at in written.items() if name in told)
    row.add(
        server.name + suffix,
        hangup_p50_ms=delays.p50,
        hangup_p99_ms=delays.p99,
        lost=sum(name not in told for name in written),
        echo_p50_ms=figures["echo_ms"]["p50"],
        echo_p99_ms=figures["echo_ms"]["p99"],
        pair_us=pair_us,
        server_busy=busy,
        load_busy=load.busy(figures),
    )


AT_REST = (
    "the peer's application does nothing else: its handler is registered, its threads rest, and it neither paces, "
    "keeps account, nor logs; what its threads cost each other shows where control legs have events, too (in the "
    "table, no bar), and the bare echo of M1 does not reach the echo's bar either"
)
MEASURES = [
    (
        Row(
            "X1",
            "Both legs, 200 calls: hangup, echo, CPU",
            {
                "hangup_p50_ms": Metric("hangup p50", "ms", 2),
                "hangup_p99_ms": Metric("hangup p99", "ms", 2),
                "lost": Metric("not told", "", 0),
                "echo_p50_ms": Metric("echo p50", "ms", 2),
                "echo_p99_ms": Metric("echo p99", "ms", 2),
                "pair_us": Metric("CPU per frame pair", "us"),
                "server_busy": Metric("server busy", "", 2),
                "load_busy": Metric("load busy", "", 2),
            },
            [
                Goal("hangup_p99_ms", TOGETHER.name, 1 / 8, why=AT_REST),
                Goal("echo_p99_ms", TOGETHER.name, 1 / 5, why=AT_REST),
                Goal("pair_us", TOGETHER.name, 1 / 2, why=AT_REST),
                Goal("lost", limit=0),
            ],
        ),
        together,
    ),
]
