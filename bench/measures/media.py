"""The media leg: what an echo costs, how many calls a core carries, what it adds to the latency."""

import time
from contextlib import ExitStack

from bench.lab import BARE_PICOWS, DUETO, FULL_S, PIPECAT, WEBSOCKETS, Failed, Figures, Load, Server
from bench.machine import open_fds
from bench.rows import Goal, Metric, Pace, Row

CALLS, FEW_CALLS = 200, 25
SLICES = 3
LATE_MS = 20.0
"An echo with a p99 above that is too late: the core carries no more calls."
LOAD = Metric("load busy", "", 2)


def echoed(server: Server, load: Load, calls: int, seconds: float) -> tuple[Figures, float, float]:
    """Have so many calls more talk; return the load's figures, the server's CPU us per pair, and how busy it was."""
    load.place(calls)
    load.talk()
    time.sleep(0.5)  # a warm start
    return sample(server, load, seconds)


def sample(server: Server, load: Load, seconds: float) -> tuple[Figures, float, float]:
    """The same for the calls that are there."""
    before_s = server.spent_s()
    figures = load.measure(seconds)
    spent_s = server.spent_s() - before_s
    return figures, spent_s / max(figures["back"], 1) * 1e6, spent_s / figures["seconds"]


def _add(row: Row, server: Server, load: Load, figures: Figures, pair_us: float, busy: float, suffix: str = "") -> None:
    echo, missing = (
        figures["echo_ms"],
        figures["wrong"] + max(figures["sent"] - figures["back"] - load_in_flight(figures), 0),
    )
    row.add(
        server.name + suffix,
        pair_us=pair_us,
        p50_ms=echo["p50"],
        p99_ms=echo["p99"],
        wrong=missing,
        server_busy=busy,
        load_busy=load.busy(figures),
        late_ms=figures["late_ms"]["p99"],
    )


def load_in_flight(figures: Figures) -> int:
    """Return how many frames may still be under way when a measure ends: one of each call."""
    return int(figures["live"])


def echo(row: Row, pace: Pace) -> None:
    """M1 and M3: 200 calls with audio on a core that carries many more; 25 where pipecat is compared."""
    row.note(
        "640-byte frames (16 kHz, 20 ms), each call in a slot of its own; dueto's calls have both legs, tokens and logs"
    )
    row.note(f"each round in {SLICES} slices, by turns: what else the host has to do changes within seconds")
    with ExitStack() as stack:
        dueto, bare, websockets, pipecat = (
            stack.enter_context(Server(kind)) for kind in (DUETO, BARE_PICOWS, WEBSOCKETS, PIPECAT)
        )
        for _ in range(pace.rounds):
            with ExitStack() as calls:
                loads = [
                    (server, calls.enter_context(Load(server, control=server is dueto)))
                    for server in (dueto, bare, websockets)
                ]
                for _, load in loads:
                    load.place(CALLS)
                for _ in range(SLICES):
                    for server, load in loads:
                        load.talk()
                        time.sleep(0.5)
                        _add(row, server, load, *sample(server, load, pace.seconds(4) / SLICES))
                        load.talk(on=False)
            for server in (dueto, pipecat):
                with Load(server, control=server is dueto) as load:
                    _add(row, server, load, *echoed(server, load, FEW_CALLS, pace.seconds(4)), f", {FEW_CALLS} calls")


def capacity(row: Row, pace: Pace) -> None:
    """M2: more and more calls on one core, until the echo's p99 is 20 ms or frames go missing."""
    row.note("steps of 5 %; three failures (20 ms, or 3 % missing) were too much")
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(kind)) for kind in (DUETO, BARE_PICOWS, WEBSOCKETS, PIPECAT)]
        for _ in range(min(pace.rounds, 2)):
            for server in servers:
                with Load(server, control="control" in server.ports, room=6000) as load:
                    row.add(server.name, **_carried(server, load, pace))


def more(calls: int, frame_us: float, pace: Pace) -> int:
    """Return how many calls to try after so many: most of what their CPU per frame promises, then small steps.

    A frame costs less the busier a core is, so the promise grows on the way.
    """
    return max(round(calls * (1 + pace.step)), round(0.75 * 1e6 / (frame_us * 50)))


def _carried(server: Server, load: Load, pace: Pace) -> Figures:
    calls = 10 if server.name == "pipecat" else 100
    good: Figures = {"calls": 0}
    load.place(calls)
    load.talk()
    while True:
        for _ in range(pace.tries):
            load.measure(0.3)
            figures, pair_us, busy = sample(server, load, pace.seconds(1.5))
            echo, rate = figures["echo_ms"], figures["back"] / figures["seconds"]
            carried = bool(echo) and echo["p99"] < LATE_MS and rate > calls * 50 * 0.97
            if carried:
                break
        if not carried:
            return good
        good = {"calls": calls, "load_busy": load.busy(figures), "server_busy": busy}
        wanted = more(calls, pair_us, pace)
        try:
            load.place(wanted - calls, in_flight=20, patience_s=FULL_S)
        except Failed:
            return good
        calls = wanted


GROWTH = (10, 50, 100, 200, 500, 1000)


def growth(row: Row, pace: Pace) -> None:
    """G1: the echo at 10 to 1000 calls."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(kind)) for kind in (DUETO, BARE_PICOWS)]
        for calls in GROWTH if pace.scale == 1 else GROWTH[::2]:
            for server in servers:
                with Load(server, control="control" in server.ports) as load:
                    _add(row, server, load, *echoed(server, load, calls, pace.seconds(2)), f", {calls} calls")


SOAKED, AT_ONCE, PARTS = 6000, 200, 6


def soak(row: Row, pace: Pace) -> None:
    """S1: thousands of short calls: nothing of any may be left, and memory has to become flat."""
    count = pace.count(SOAKED) // PARTS
    row.note(f"{PARTS * count} calls on both legs, {AT_ONCE} at once, each with 0.1 s of audio and five digits")
    with Server(DUETO) as server:
        before, files = server.alive(), open_fds(server.pid)
        for part in range(PARTS):
            with Load(server, events=("DTMF",), room=count + 1) as load:
                before_s = server.spent_s()
                figures = load.soak(count, AT_ONCE)
                spent_s = server.spent_s() - before_s
            done = max(figures["placed"], 1)
            per_s, call_us = done / figures["seconds"], spent_s / done * 1e6
            row.add(f"{(part + 1) * count} calls", rss_mb=server.rss_kb() / 1024, per_s=per_s, call_us=call_us)
            row.add("dueto", per_s=per_s, call_us=call_us, failed=figures["failed"], load_busy=load.busy(figures))
        time.sleep(2.0)  # the last ones let go
        left = {kind: count - before.get(kind, 0) for kind, count in server.alive().items()}
        left["open files"] = open_fds(server.pid) - files
        row.note(
            "left at the end: " + (", ".join(f"{count} {kind}" for kind, count in left.items() if count) or "nothing")
        )
        row.add("dueto", left=sum(max(count, 0) for count in left.values()))


ECHO = {
    "pair_us": Metric("CPU per frame pair", "us"),
    "p50_ms": Metric("p50", "ms", 2),
    "p99_ms": Metric("p99", "ms", 2),
    "wrong": Metric("frames missing", "", 0),
    "server_busy": Metric("server busy", "", 2),
    "load_busy": LOAD,
    "late_ms": Metric("load late, p99", "ms", 2),
}
THREE_CALLS = (
    "a frame passes three Python calls (leg, player, ledger) where the bare one has one, and account is kept "
    "of what the caller hears; on a machine whose caches others use as well, that counts double"
)
NEAR_BARE = "2.5 times what websockets carry is about what the bare echo does; what lies between is M1's difference"
MEASURES = [
    (
        Row(
            "M1",
            "Echo: CPU per 20 ms frame pair at 200 calls; M3: latency added there",
            ECHO,
            [
                Goal("pair_us", "websockets", 0.6),
                Goal("pair_us", f"pipecat, {FEW_CALLS} calls", 1 / 4, ours=f"dueto, {FEW_CALLS} calls"),
                Goal("pair_us", "bare picows", 1.3, why=THREE_CALLS),
                Goal("p50_ms", "bare picows", plus=0.2),
                Goal("p99_ms", "bare picows", plus=2),
                Goal("wrong", limit=0),
            ],
        ),
        echo,
    ),
    (
        Row(
            "M2",
            "Calls per core with an echo p99 below 20 ms",
            {"calls": Metric("calls", "", 0), "server_busy": Metric("server busy", "", 2), "load_busy": LOAD},
            [
                Goal("calls", "websockets", 2.5, least=True, why=NEAR_BARE),
                Goal("calls", "pipecat", 10, least=True),
                Goal("calls", "bare picows", 0.75, least=True),
            ],
        ),
        capacity,
    ),
    (
        Row(
            "S1",
            "Soak: many short calls",
            {
                "rss_mb": Metric("RSS", "MiB"),
                "per_s": Metric("calls per second", "", 0),
                "call_us": Metric("CPU per call", "us", 0),
                "failed": Metric("failed", "", 0),
                "left": Metric("left", "", 0),
                "load_busy": LOAD,
            },
            [Goal("failed", limit=0), Goal("left", limit=0)],
        ),
        soak,
    ),
    (Row("G1", "How the echo's cost grows with calls", ECHO, []), growth),
]
