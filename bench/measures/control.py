"""The control leg: events, hangups, set-ups, memory."""

import time
from contextlib import ExitStack

from bench.lab import (
    BARE_CONTROL,
    DUETO,
    DUETO_LEG,
    GENESIS,
    GREENSWITCH,
    LIVING,
    Kind,
    Load,
    Server,
)
from bench.machine import Spread
from bench.recording import recorded_events, value
from bench.rows import Goal, Metric, Pace, Row

EVENT_CALLS, EVENTS, EVENT_RATE = 64, 6400, 3200
AT_THE_AGENT = "dueto, call.events()"


def events(row: Row, pace: Pace) -> None:
    """E1: one event on each of 64 calls every 20 ms; the process's CPU time per event, its socket reads included."""
    count = pace.count(EVENTS)
    blocks = recorded_events(LIVING)
    named = [value(block, b"Event-Name: ") for block in blocks[:250]]
    keys = sum(named[at % len(named)] == b"DTMF" for at in range(count))
    row.note(
        f"{len(blocks)} recorded events of {sum(map(len, blocks)) // len(blocks)} bytes on average, {count} a round"
    )
    row.note(
        f"at `call.events()` the agent gets what is meant for it, here each DTMF ({keys / count:.0%}), logged as well"
    )
    with ExitStack() as stack:
        at_the_agent = Kind(AT_THE_AGENT, DUETO.program, DUETO.arguments)
        kinds = (DUETO_LEG, at_the_agent, BARE_CONTROL, GREENSWITCH, GENESIS)
        servers = [stack.enter_context(Server(kind)) for kind in kinds]
        for _ in range(pace.rounds):
            for server in servers:
                agent = server.name == AT_THE_AGENT
                with Load(server, media=agent) as load:
                    load.place(EVENT_CALLS)
                    time.sleep(0.2)
                    before_s, seen = server.spent_s(), server.report()["events"]
                    figures = load.events(count, EVENT_RATE)
                    spent_s = server.wait_for(seen + (keys if agent else count)) - before_s
                row.add(server.name, event_us=spent_s / count * 1e6, load_busy=load.busy(figures))


HANGUPS, HANGUP_RATE, HANGUP_CALLS, HANGUP_EVENTS = 250, 50, 1000, 1000


def hangups(row: Row, pace: Pace) -> None:
    """E2: hang up calls of 1000 and more, while the others have 1000 events a second."""
    count = pace.count(HANGUPS)
    row.note(
        f"{HANGUP_CALLS} calls are left when the last of {count} is hung up; dueto's have a stream as well, "
        "a silent one, or no agent would run"
    )
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(kind)) for kind in (DUETO, BARE_CONTROL, GREENSWITCH)]
        for _ in range(pace.rounds):
            for server in servers:
                with Load(server, media="media" in server.ports) as load:
                    load.place(HANGUP_CALLS + count)
                    load.background(HANGUP_EVENTS)
                    time.sleep(0.5)
                    server.report()
                    before_s, began = server.spent_s(), time.monotonic()
                    written = load.hang_up(count, HANGUP_RATE)
                    busy = (server.spent_s() - before_s) / (time.monotonic() - began)
                    time.sleep(0.2)  # who is not told by then never will be
                    told = server.report()["told"]
                delays = Spread.of((told[name] - at) / 1e6 for name, at in written.items() if name in told)
                lost = sum(name not in told for name in written)
                row.add(
                    server.name, p50_ms=delays.p50, p99_ms=delays.p99, max_ms=delays.most, lost=lost, server_busy=busy
                )


def set_ups(row: Row, pace: Pace) -> None:
    """E3: calls that are hung up as soon as they are set up: as many as it takes, then 20 a second."""
    row.note("a call is set up when the application knows its channel and has sent its first api command")
    row.note("CPU per set-up is that of the whole short call: connection, hangup, log lines, letting go")
    row.note("greenswitch looks for new connections every 100 ms; that is its p50")
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(kind)) for kind in (DUETO, BARE_CONTROL, GREENSWITCH, GENESIS)]
        for _ in range(pace.rounds):
            for server in servers:
                with Load(server, media=False) as load:
                    before_s = server.spent_s()
                    many = load.set_up(pace.seconds(2), 50)
                    time.sleep(0.3)
                    spent_s = server.spent_s() - before_s
                    few = load.set_up(pace.seconds(3), 50, 20)
                each_us = spent_s / many["placed"] * 1e6 if many["placed"] else None
                row.add(
                    server.name,
                    per_s=many["placed"] / many["seconds"],
                    setup_us=each_us,
                    p50_ms=few["setup_ms"]["p50"] if few["setup_ms"] else None,
                    failed=many["failed"] + few["failed"],
                    load_busy=load.busy(many),
                )


IDLE_CALLS = 1000


def memory(row: Row, pace: Pace) -> None:
    """E4: what 1000 idle control legs add to a process that has had 100 before."""
    row.note(
        "dueto: the whole gateway; each leg has its waiting call, and no agent; the connect answer's 7 kB included"
    )
    for _ in range(min(pace.rounds, 2)):
        for kind in (DUETO, BARE_CONTROL, GREENSWITCH):
            with Server(kind) as server:
                with Load(server, media=False) as load:
                    load.place(100)
                    load.hang_up(100, 1000)
                time.sleep(0.2)
                with Load(server, media=False) as load:
                    before_kb = server.rss_kb()
                    load.place(IDLE_CALLS)
                    time.sleep(0.2)
                    row.add(server.name, leg_kb=(server.rss_kb() - before_kb) / IDLE_CALLS)


FLOODED_CALLS = 4


def flood(row: Row, pace: Pace) -> None:
    """E5: four calls with events as fast as they are taken, to applications that are busy for good."""
    row.note(
        "dueto: a reader of an EventStream that never returns; its leg stops reading, and the switch keeps the events"
    )
    row.note("dueto, agent: an agent that reads no events; after 1000 it has failed, and the caller is rescued")
    slow = (
        Kind("dueto", "dueto_leg.py", ("slow",)),
        Kind("dueto, agent", "dueto_gateway.py", ("slow",)),
        Kind("greenswitch", GREENSWITCH.program, ("slow",), "greenswitch"),
        Kind("genesis", GENESIS.program, ("slow",), "genesis"),
    )
    for kind in slow:
        with Server(kind) as server, Load(server, media="agent" in kind.name) as load:
            load.place(FLOODED_CALLS)
            load.flood(0.3)  # what every flood costs once: buffers, the first thousand events
            before_kb = server.rss_kb()
            figures = load.flood(pace.seconds(3))
            row.add(
                server.name,
                grown_mb=max(server.rss_kb() - before_kb, 0) / 1024,
                taken_mb=figures["bytes"] / 1e6,
            )


LOAD = Metric("load busy", "", 2)
NEAR_THE_KERNEL = (
    "the kernel's share of an event is the larger half for both; in Python alone, one after the other, an event costs "
    "7.5 us where the bare search takes 4.8. Half of the rest are the six values, decoded, by a call each; the other "
    "half is that the event is copied out, seen to have no body, becomes an object that the leg asks for its name, and "
    "is handed from decoder to leg to sink"
)
REGISTERED = (
    "greenswitch is measured at its best, a handler registered on an otherwise idle hub, and is as far from the loop "
    "as we are: the bar lies below half of what a bare Protocol needs here"
)
WHOLE_CALL = (
    "from the bytes to the agent a hangup takes fourteen small steps of 4 to 31 us, 0.17 ms together in a traced run: "
    "a call among 1000 has been still for seconds, so all that they touch comes from memory and not from the caches"
)
SHORT_CALL = (
    "a set-up is a whole call: 136 us of Python in a row (31 parser, 30 log lines and counts, the rest spread thin), "
    "1.6 times that between the system calls of real sockets, beside the bare Protocol's 110; the bar leaves as much "
    "for all of it"
)
MEASURES = [
    (
        Row(
            "E1",
            "Events flood: CPU per event, six headers read of each",
            {"event_us": Metric("CPU per event", "us"), "load_busy": LOAD},
            [
                Goal("event_us", "greenswitch", 1 / 5, why=NEAR_THE_KERNEL),
                Goal("event_us", "genesis", 1 / 15, why=NEAR_THE_KERNEL),
                Goal("event_us", "bare protocol", 1.3, why=NEAR_THE_KERNEL),
            ],
        ),
        events,
    ),
    (
        Row(
            "E2",
            "CHANNEL_HANGUP bytes to the agent, 1000 calls with 1000 events/s",
            {
                "p50_ms": Metric("p50", "ms", 2),
                "p99_ms": Metric("p99", "ms", 2),
                "max_ms": Metric("max", "ms", 2),
                "lost": Metric("not told", "", 0),
                "server_busy": Metric("server busy", "", 2),
            },
            [
                Goal("p99_ms", "greenswitch", 1 / 8, why=REGISTERED),
                Goal("p99_ms", "bare protocol", 1.5, why=WHOLE_CALL),
                Goal("max_ms", limit=5),
                Goal("lost", limit=0),
            ],
        ),
        hangups,
    ),
    (
        Row(
            "E3",
            "Set-ups: per second with 50 in flight, and p50 at 20 calls/s",
            {
                "per_s": Metric("set-ups per second", "", 0),
                "p50_ms": Metric("p50 at 20/s", "ms", 2),
                "setup_us": Metric("CPU per set-up", "us", 0),
                "failed": Metric("failed", "", 0),
                "load_busy": LOAD,
            },
            [
                Goal("per_s", "greenswitch", 10, least=True, why=SHORT_CALL),
                Goal("per_s", "genesis", 6, least=True, why=SHORT_CALL),
                Goal("setup_us", "bare protocol", 2, why=SHORT_CALL),
            ],
        ),
        set_ups,
    ),
    (
        Row(
            "E4",
            "Memory of an idle control leg, 1000 of them",
            {"leg_kb": Metric("per leg", "KiB")},
            [Goal("leg_kb", "greenswitch", 1 / 3), Goal("leg_kb", limit=20)],
        ),
        memory,
    ),
    (
        Row(
            "E5",
            "Memory under a flood the agent can't follow",
            {"grown_mb": Metric("grown", "MiB"), "taken_mb": Metric("taken from the socket", "MB", 0)},
            [Goal("grown_mb", limit=2), Goal("grown_mb", limit=2, ours="dueto, agent")],
        ),
        flood,
    ),
]
