"""The machine that measures: cores, the CPU clocks and the memory of other processes, spreads of values."""

import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
"Who is measured runs on one core, who measures on another; on a machine with a single one they share it."


def pin(core: int) -> bool:
    """Bind this process to one core. Returns whether that core is there: if not, nothing is bound."""
    try:  # what we may use now says nothing: who measures is bound to a core already when it starts who is measured
        os.sched_setaffinity(0, {core})
    except OSError:
        return False
    return True


def go_ahead() -> None:
    """Run ahead of all other work of the machine from here on, children included. Raises: PermissionError."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used so far, all its threads, in nanosecond steps (Linux's clock of it)."""
    return time.clock_gettime((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)


def rss_kb(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def open_fds(pid: int) -> int:
    """Return how many files and sockets a process holds open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def described() -> str:
    """Say what machine and what versions the figures are of."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    cores = os.cpu_count()
    python = platform.python_version()
    ours = ", ".join(f"{name} {version(name)}" for name in ("uvloop", "picows"))
    return f"{cores} cores ({model}), Linux {platform.release()}, CPython {python}, {ours}"


@dataclass(frozen=True, slots=True)
class Spread:
    """How values are spread, in their own unit."""

    count: int
    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Raises: ValueError: there are no values."""
        ordered = sorted(values)
        if not ordered:
            raise ValueError("nothing was measured")
        return cls(len(ordered), percentile(ordered, 0.5), percentile(ordered, 0.99), ordered[-1])


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of the ordered values that `share` (0 to 1) of them do not exceed: nearest rank."""
    return ordered[max(-(-int(share * 1000) * len(ordered) // 1000) - 1, 0)]
