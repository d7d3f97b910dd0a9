"""What the measurements share: cores, CPU clocks of other processes, spreads, tables."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

SERVER_CORE, LOAD_CORE = 0, 1
"Who is measured runs on one core, who measures on another; on a machine with a single one they share it."


def pin(core: int) -> bool:
    """Bind this process to one core. Returns whether that core is there: if not, nothing is bound."""
    if core not in os.sched_getaffinity(0):
        return False
    os.sched_setaffinity(0, {core})
    return True


def be_apart(console: Console) -> None:
    """Bind this process, the load, to its own core, and say so where there is none."""
    if not pin(LOAD_CORE):
        console.print("Only one core here: the load and the server share it, so the latencies mean little.")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used so far, all its threads, in nanosecond steps (Linux's clock of it)."""
    return time.clock_gettime((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)


def rss_kb(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def open_fds(pid: int) -> int:
    """Return how many files and sockets a process holds open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


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


class Busy:
    """How much of a core some processes use between two looks at them."""

    def __init__(self, **pids: int) -> None:
        self._pids = pids
        self._began_s = time.monotonic()
        self._before = {name: cpu_s(pid) for name, pid in pids.items()}

    def spent_s(self) -> dict[str, float]:
        """Return the CPU seconds each has used since."""
        return {name: cpu_s(pid) - self._before[name] for name, pid in self._pids.items()}

    def shares(self) -> dict[str, float]:
        """Return the same as shares of one core."""
        passed_s = time.monotonic() - self._began_s
        return {name: spent_s / passed_s for name, spent_s in self.spent_s().items()}


def show(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1) -> None:
    """Print a table; its first `text` columns are words, the others numbers."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < text else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
