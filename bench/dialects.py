"""Each dialect with many calls at once: what is missing, the gaps, what a frame costs, and the delay added.

    python -m bench.dialects [--calls 200] [--seconds 10] [--only audio_fork] [--quick] [--ahead]

The gateway is the real `Gateway` in a process of its own; the load is the faithful simulator on another core, with the
audio module of each dialect in turn, and listens at every caller's end. Twice per dialect:

- `deaf`: the agent hears every frame and says nothing. The cost of the way up.
- `talk`: each agent says a sweep, whose pitch tells where in it one is. What of it a caller misses, the worst silence
  in it, and the cost of the way down (what the same run costs more than `deaf`).

At the end the delay that resampling and gathering add per pair of rates: an impulse in, an impulse out.
"""

import argparse
import asyncio
import gc
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from bench.machine import LOAD_CORE, SERVER_CORE, cpu_s, go_ahead, percentile, pin
from bench.report import print_table
from rich.console import Console

from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.app.serve import new_event_loop
from dueto.app.settings import Settings
from dueto.audio import Resampler
from dueto.call import Call
from dueto.call.events import HungUp
from dueto.call.hearing import Hearing
from dueto.sim import Caller, Line, SimCall, Switch
from dueto.sim.listening import compare, sweep
from dueto.wire.media import DIALECTS, StreamRequest

SECRET = "0123456789abcdef-bench"
RATE_HZ = 8000
RATES_HZ = (8000, 16000, 24000, 48000)
PLACED_PER_S = 50


# -- the gateway


def _child(dialect: str, seconds: float, talks: bool, line: Connection) -> None:
    pin(SERVER_CORE)
    with open(os.devnull, "w") as nobody, asyncio.Runner(loop_factory=new_event_loop) as runner:
        configure_logs("json", nobody)
        runner.run(_serve(dialect, sweep(RATE_HZ, seconds) if talks else b"", line))


async def _serve(dialect: str, sound: bytes, line: Connection) -> None:
    frames = {"up": 0, "down": 0, "underruns": 0}

    def note(unique_id: str, event: str, fields: Mapping[str, Any]) -> None:
        if event == "call_ended":
            frames["up"] += fields["frames_up"]
            frames["down"] += fields["frames_down"]
            frames["underruns"] += fields["underruns"]

    async def agent(call: Call) -> None:
        call.audio_to(lambda frame: None)
        speaking = asyncio.ensure_future(call.say(sound)) if sound else None
        async for event in call.events():
            if isinstance(event, HungUp) and speaking is not None:
                speaking.cancel()

    settings = Settings.model_validate(
        {
            "control": {"listen": "127.0.0.1:0", "max_calls": 20_000},
            "media": {"listen": "127.0.0.1:0", "secret": SECRET, "dialect": dialect, "rate_hz": RATE_HZ},
            "metrics": {"listen": ""},
        }
    )
    over = asyncio.Event()
    async with Gateway(settings, agent=agent, journal=note) as gateway:
        line.send((gateway.control_port, gateway.media_port))
        asyncio.get_running_loop().add_reader(line.fileno(), over.set)
        await over.wait()
        asyncio.get_running_loop().remove_reader(line.fileno())
        await gateway.desk.empty()
    os.set_blocking(line.fileno(), True)
    line.send(frames)


# -- the load


@dataclass(frozen=True, slots=True)
class Run:
    """One dialect, deaf or talking."""

    calls: list[SimCall]
    frames_up: int
    missing_up: int
    frames_down: int
    underruns: int
    cpu_s: float
    server_busy: float
    load_busy: float
    late_s: float
    "How late a frame of the load was at most: what it measured then it did not do in time itself."


async def run(dialect: str, calls: int, seconds: float, *, talks: bool) -> Run:
    """Place the calls, let each last `seconds` (and a little), and count.

    What the runs before left is collected now, not in the middle: a full collection stands still for 50 ms and more.
    """
    gc.collect()
    gc.disable()
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(dialect, seconds, talks, theirs), daemon=True)
    process.start()
    assert process.pid is not None
    control, media = await asyncio.to_thread(ours.recv)
    stays_s = seconds + 2.5  # a file's last words, and what warms up first

    async def script(line: Line) -> None:
        await line.wait(stays_s)

    switch = Switch(
        f"127.0.0.1:{control}",
        f"ws://127.0.0.1:{media}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate={RATE_HZ}&mix=mono&token={{token}}",
        secret=SECRET,
        dialect=dialect,  # type: ignore[arg-type]
    )
    placed = []
    pids = {"server": process.pid, "load": os.getpid()}
    began_s, before = time.monotonic(), {name: cpu_s(pid) for name, pid in pids.items()}
    async with switch:
        for _ in range(calls):
            placed.append(await switch.place(Caller(script=script, rate_hz=RATE_HZ)))
            await asyncio.sleep(1 / PLACED_PER_S)
        for call in placed:
            await call.over()
            await call.released()
        spent = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
        passed_s, late_s = time.monotonic() - began_s, switch.latest_s
        ours.send(None)
        frames = await asyncio.to_thread(ours.recv)
    process.join(10)
    sent = sum(call.counters.frames_up for call in placed)
    return Run(
        placed,
        frames["up"],
        sent - frames["up"],
        frames["down"],
        frames["underruns"],
        spent["server"],
        spent["server"] / passed_s,
        spent["load"] / passed_s,
        late_s,
    )


# -- delay


def impulse_ms(pcm: bytes, rate_hz: int) -> float:
    """When the impulse sounds."""
    return float(np.abs(np.frombuffer(pcm, "<i2").astype(int)).argmax()) * 1000 / rate_hz


def delay_up_ms(stream_hz: int, agent_hz: int) -> float:
    """From the stream to an agent that listens at another rate."""
    heard = bytearray()
    hearing = Hearing(StreamRequest("u", "s", "", stream_hz, "mono", ""))
    hearing.add(heard.extend, agent_hz)
    sound = np.zeros(stream_hz // 5, "<i2")
    sound[stream_hz // 10] = 20_000
    step = stream_hz // 25
    data = sound.tobytes()
    for at in range(0, len(data), step):
        hearing.message(data[at : at + step])
    return impulse_ms(bytes(heard), agent_hz) - 100


def delay_down_ms(agent_hz: int, stream_hz: int, down_hz: int) -> float:
    """From an agent that speaks at another rate to what is sent: to the stream's rate, then to the dialect's."""
    sound = np.zeros(agent_hz // 5, "<i2")
    sound[agent_hz // 10] = 20_000
    first, second = Resampler(agent_hz, stream_hz), Resampler(stream_hz, down_hz)
    return impulse_ms(second.process(first.process(sound.tobytes())), down_hz) - 100


def show_delays(console: Console) -> None:
    """Print what the pairs of rates cost."""
    pairs = [(stream, agent) for stream in (8000, 16000) for agent in RATES_HZ]
    print_table(
        console,
        "Delay added, ms: an impulse in, an impulse out",
        ("stream", "agent", "up", "down", "down, base64 fork"),
        (
            (
                str(stream),
                str(agent),
                f"{delay_up_ms(stream, agent):.2f}",
                f"{delay_down_ms(agent, stream, stream):.2f}",
                f"{delay_down_ms(agent, stream, DIALECTS['audio_stream-base64'].down_hz(stream)):.2f}",
            )
            for stream, agent in pairs
        ),
    )


def main() -> int:
    """Run it all; exit code 1 where a frame or a word is missing, or a gap is longer than the dialect may have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true", help="20 calls, 3 s")
    parser.add_argument("--ahead", action="store_true", help="ahead of all other work of the machine (needs root)")
    options = parser.parse_args()
    calls, seconds = (20, 3.0) if options.quick else (options.calls, options.seconds)
    console = Console(highlight=False)
    if options.ahead:
        go_ahead()
    pin(LOAD_CORE)
    sound, failed, rows = sweep(RATE_HZ, seconds), False, []
    for name, dialect in DIALECTS.items():
        if not dialect.module or (options.only and name != options.only):
            continue  # `unicast`: bench.unicast
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            deaf = runner.run(run(name, calls, seconds, talks=False))
            talk = runner.run(run(name, calls, seconds, talks=True))
        heard = [compare(call.heard, sound, RATE_HZ) for call in talk.calls]
        worst_gaps = sorted(max(one.gaps_ms, default=0.0) for one in heard)
        whole = sum(
            abs(one.last_ms - seconds * 1000) <= 25 and abs(one.missing_ms) <= 1 and one.worst_error < 0.3
            for one in heard
        )
        up_us = deaf.cpu_s / max(deaf.frames_up, 1) * 1e6
        down_us = (talk.cpu_s - deaf.cpu_s) / max(talk.frames_down, 1) * 1e6
        limit_ms = 60 if dialect.downlink == "file" else 20
        missing = deaf.missing_up + talk.missing_up
        failed |= whole < len(heard) or missing > 0 or percentile(worst_gaps, 0.99) > limit_ms
        rows.append(
            (
                name,
                f"{whole}/{len(heard)}",
                str(missing),
                f"{percentile(worst_gaps, 0.5):.0f}",
                f"{percentile(worst_gaps, 0.99):.0f}",
                str(talk.underruns),
                f"{up_us:.1f}",
                f"{down_us:.1f}",
                f"{talk.server_busy:.0%}",
                f"{talk.load_busy:.0%}",
                f"{talk.late_s * 1000:.0f}",
            )
        )
    print_table(
        console,
        f"{calls} calls at once, {seconds:.0f} s of speech each, streams of {RATE_HZ} Hz",
        (
            "dialect",
            "heard whole",
            "missing up",
            "gap p50 ms",
            "gap p99 ms",
            "underruns",
            "us/frame up",
            "us/frame down",
            "server",
            "load",
            "load late ms",
        ),
        rows,
    )
    show_delays(console)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
