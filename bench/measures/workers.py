"""Two workers against one: what a call costs when several processes share the control socket."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.lab import PATIENCE_S, Failed
from bench.machine import LOAD_CORE, SERVER_CORE, cpu_s, pin
from bench.rows import Goal, Metric, Pace, Row

from dueto.sim import Caller, Line, Switch

CALLS = 60
"For each worker: far from what it carries, so that the simulated switch, a Python program, keeps up with two."
ONE, TWO = "one worker", "dueto"


def _free_ports(count: int) -> int:
    for base in range(30_000, 60_000, 37):
        with contextlib.ExitStack() as held:
            try:
                for port in range(base, base + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    raise Failed("no free ports")


class Serving:
    """A `dueto serve --workers N`: its parent left to the system, its workers a core each."""

    def __init__(self, process: "subprocess.Popen[str]", workers: int) -> None:
        self._process = process
        self.control, pids = "", [process.pid]
        assert process.stdout is not None
        until = time.monotonic() + PATIENCE_S
        while not self.control:
            line = process.stdout.readline()
            if not line or time.monotonic() > until:
                raise Failed("the workers did not come up")
            said = json.loads(line)
            if said["event"] == "worker_ready":
                pids.append(said["pid"])
            elif said["event"] == "ready":
                self.control = f"127.0.0.1:{said['control']}"
        for number, pid in enumerate(pids[1:]):
            os.sched_setaffinity(pid, {(SERVER_CORE, LOAD_CORE)[number % 2]})
        self._pids = pids
        self._reader = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)

    def spent_s(self) -> float:
        """CPU seconds of the parent and all workers."""
        return sum(cpu_s(pid) for pid in self._pids)

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        self._reader.wait()


@contextlib.contextmanager
def _serving(workers: int) -> Iterator[Serving]:
    media = _free_ports(2 * workers)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "dueto.toml")
        config.write_text(
            f'[control]\nlisten = "127.0.0.1:0"\n[media]\nlisten = "127.0.0.1:{media}"\nstart = "gateway"\n'
            f'public_url = "ws://127.0.0.1:{media}"\ndialect = "audio_stream-binary"\nrate_hz = 8000\n'
            '[call]\ndrain_s = 1\n[agent]\nuse = "echo"\n[metrics]\nlisten = ""\n'
        )
        words = [sys.executable, "-m", "dueto", "serve", "--config", str(config), "--workers", str(workers)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        serving = Serving(process, workers)
        try:
            yield serving
        finally:
            serving.close()


async def _spent(serving: Serving, calls: int, seconds: float) -> tuple[float, int]:
    """CPU microseconds of each call in a second, and how many frames came back late or not at all."""

    async def stays(line: Line) -> None:
        await line.until_hangup(timeout=seconds + PATIENCE_S)

    async with Switch(serving.control, "", start="gateway", record=False) as switch:
        placed = [await switch.place(Caller(script=stays)) for _ in range(calls)]
        async with asyncio.timeout(PATIENCE_S):
            while not all(call.counters.frames_down for call in placed):  # noqa: ASYNC110 - the switch tells nobody
                await asyncio.sleep(0.05)
        before_s, began = serving.spent_s(), time.monotonic()
        up = sum(call.counters.frames_up for call in placed)
        await asyncio.sleep(seconds)
        spent_s, took_s = serving.spent_s() - before_s, time.monotonic() - began
        sent = sum(call.counters.frames_up for call in placed) - up
        for call in placed:
            call.hang_up()
        await asyncio.gather(*(call.done() for call in placed))
    return spent_s / (calls * took_s) * 1e6, round(calls * took_s * 50) - sent


def shared(row: Row, pace: Pace) -> None:
    """W1: what two workers carry, by what a call costs them."""
    row.note(f"{CALLS} calls for each worker, echo; CPU of the parent and of all workers")
    row.note("a core carries as many calls as go into its second: that is what is compared, not a core run full")
    row.note("the load is the simulated switch, in Python, on the second core beside the second worker")
    pin(LOAD_CORE)
    for _ in range(pace.rounds):
        costs = {}
        for workers in (1, 2):
            with _serving(workers) as serving:
                costs[workers], missing = asyncio.run(_spent(serving, CALLS * workers, pace.seconds(5)))
            row.add((ONE, TWO)[workers - 1], call_us=costs[workers], missing=missing)
        row.add(TWO, times=2 * costs[1] / costs[2])


MEASURES = [
    (
        Row(
            "W1",
            "Two workers on two cores",
            {
                "call_us": Metric("CPU per call-second", "us", 0),
                "times": Metric("calls of one worker", "x", 2),
                "missing": Metric("frames that the load did not send in time", "", 0),
            },
            [Goal("times", limit=1.8, least=True)],
        ),
        shared,
    )
]
