"""A measured server and the load on it: two processes, a core each, told what to do by this one."""

import json
import os
import resource
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from bench.machine import LOAD_CORE, SERVER_CORE, cpu_s, pin, rss_kb
from bench.recording import recorded_call, recorded_events
from bench.venvs import HERE, python

from dueto.wire.media.token import media_token

OUT = HERE / "out"
"Built programs, scripts of calls, results."
SECRET = "0123456789abcdef-bench"
"The token's secret of the gateways that are measured, as in `peers/dueto_gateway.py`."
LIVING = ("CHANNEL_STATE", "CHANNEL_EXECUTE", "DTMF")
"Events of a call that goes on."
PATIENCE_S = 60.0
FULL_S = 10.0
"A core on which more calls need so long to come up is full."
Figures = dict[str, Any]


def _settle_on(core: int) -> None:
    """Bind a child to its core, and let it open as many sockets as the system allows."""
    pin(core)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Failed(Exception):
    """A measured process did not do what it was told."""


class _Talker:
    """A child process that is told things by lines and answers by lines of JSON."""

    def __init__(self, name: str, words: Sequence[str | Path], core: int) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if "--loud" in sys.argv else subprocess.DEVNULL,
            preexec_fn=lambda: _settle_on(core),
            env={**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(HERE.parent)},
        )
        self._held = b""

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Say one line. Raises: Failed: nobody listens."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self.name} has ended") from None

    def hear(self, patience_s: float = PATIENCE_S) -> Figures:
        """Wait for the next answer. Raises: Failed: none came, or the process ended."""
        assert self._process.stdout is not None
        fd, until = self._process.stdout.fileno(), time.monotonic() + patience_s
        while True:
            line, end, rest = self._held.partition(b"\n")
            if end:
                self._held = rest
                if line.startswith(b"{"):  # libraries print what they like
                    return dict(json.loads(line))
                continue
            ready, _, _ = select.select([fd], [], [], max(until - time.monotonic(), 0))
            data = os.read(fd, 1 << 20) if ready else b""
            if not data:
                raise Failed(f"{self.name} " + ("has ended" if ready else f"said nothing for {patience_s:.0f} s"))
            self._held += data

    def ask(self, line: str, patience_s: float = PATIENCE_S) -> Figures:
        """Say one line and wait for its answer."""
        self.tell(line)
        return self.hear(patience_s)

    def close(self) -> None:
        """Have it end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that can be measured: a program of `peers/`, in the environment it needs."""

    name: str
    program: str
    arguments: tuple[str, ...] = ()
    venv: str = "dueto"


BARE_CONTROL = Kind("bare protocol", "bare_control.py")
BARE_PICOWS = Kind("bare picows", "bare_picows.py")
GREENSWITCH = Kind("greenswitch", "greenswitch_control.py", venv="greenswitch")
GENESIS = Kind("genesis", "genesis_control.py", venv="genesis")
WEBSOCKETS = Kind("websockets", "websockets_echo.py", venv="websockets")
PIPECAT = Kind("pipecat", "pipecat_echo.py", venv="pipecat")
DUETO_LEG = Kind("dueto", "dueto_leg.py")
DUETO = Kind("dueto", "dueto_gateway.py", ("echo_and_note",))


class Server(_Talker):
    """A measured server. `with Server(DUETO) as server: ...`"""

    def __init__(self, kind: Kind, *, core: int = SERVER_CORE) -> None:
        super().__init__(kind.name, [python(kind.venv), HERE / "peers" / kind.program, *kind.arguments], core)
        self.kind = kind
        self.ports: dict[str, int] = self.hear()
        self.placed = 0
        "How many calls it has been given: the next one's number."

    def spent_s(self) -> float:
        """Return the CPU seconds used so far, all threads."""
        return cpu_s(self.pid)

    def rss_kb(self) -> int:
        """Return the resident memory in KiB."""
        return rss_kb(self.pid)

    def report(self) -> Figures:
        """Ask what its application has seen: `events` in all, `told` since the last time."""
        return self.ask("")

    def alive(self) -> dict[str, int]:
        """Ask what calls have left behind. It stops for a full collection: not while something is measured."""
        return dict(self.ask("alive")["alive"])

    def wait_for(self, events: int, patience_s: float = PATIENCE_S) -> float:
        """Wait until its application has read so many events in all; return its CPU seconds then.

        Raises: Failed: they did not become so many.
        """
        until = time.monotonic() + patience_s
        while (seen := self.report()["events"]) < events:
            if time.monotonic() > until:
                raise Failed(f"{self.name} has read {seen} events of {events}")
            time.sleep(0.05)
        return self.spent_s()


class Load(_Talker):
    """Calls on a server's ports. See `load/calls.c` for what it can be told."""

    def __init__(
        self,
        server: Server,
        *,
        control: bool = True,
        media: bool = True,
        events: tuple[str, ...] = LIVING,
        room: int = 3000,
    ) -> None:
        """`control`, `media`: the legs of its calls; `events`: what is said on control legs; `room`: calls at most."""
        ports = server.ports
        self._server, self._first = server, server.placed
        server.placed += room
        self._script = script = _script(server, events, room if media else 0)
        control_port, media_port = ports["control"] if control else 0, ports["media"] if media else 0
        words = [*program(), script, str(control_port), str(media_port), str(self._first)]
        super().__init__("load", words, LOAD_CORE)

    def place(self, calls: int, in_flight: int = 50, patience_s: float = PATIENCE_S) -> Figures:
        """Bring up more calls. Raises: Failed: one did not come up, or not all in time."""
        figures = self.ask(f"place {calls} {in_flight}", patience_s)
        if figures["placed"] != calls:
            raise Failed(f"{self._server.name}: {figures['placed']} of {calls} calls came up")
        return figures

    def events(self, count: int, rate: float) -> Figures:
        """Write events, spread over the calls."""
        return self.ask(f"events {count} {rate}")

    def measure(self, seconds: float) -> Figures:
        """Let what goes on go on, and account for it."""
        return self.ask(f"measure {seconds}", seconds + PATIENCE_S)

    def talk(self, on: bool = True) -> None:
        """Have every call send a frame each 20 ms."""
        self.ask(f"talk {int(on)}")

    def listen(self) -> None:
        """What comes down is somebody else's voice, not our own back: its gaps are what counts."""
        self.ask("listen 1")

    def background(self, rate: float) -> None:
        """Write events, so many a second, from now on."""
        self.ask(f"background {rate}")

    def hang_up(self, count: int, rate: float) -> dict[str, int]:
        """Hang up calls; return when each CHANNEL_HANGUP was written, by Unique-ID, in ns of the monotonic clock."""
        figures = self.ask(f"hangup {count} {rate}", count / rate + PATIENCE_S)
        return {name_of(number): at_ns for number, at_ns in figures["hangups"]}

    def set_up(self, seconds: float, in_flight: int, rate: float = 0) -> Figures:
        """Place calls and hang each up at once: as many as it takes, or `rate` a second."""
        return self.ask(f"setups {seconds} {in_flight} {rate}", seconds + PATIENCE_S)

    def soak(self, calls: int, at_once: int) -> Figures:
        """Run many short calls, so many at once: both legs, five events, a tenth of a second of audio."""
        return self.ask(f"soak {calls} {at_once}", 300)

    def flood(self, seconds: float) -> Figures:
        """Write events as fast as they are taken."""
        return self.ask(f"flood {seconds}", seconds + PATIENCE_S)

    def close(self) -> None:
        """Have it end."""
        super().close()
        self._script.unlink(missing_ok=True)

    def busy(self, figures: Figures) -> float:
        """Return how busy the load was, as a share of its core."""
        return float(figures["load_cpu_s"] / figures["seconds"])


def name_of(number: int) -> str:
    """Return the Unique-ID of a load's call."""
    return f"{number:08x}-0d0e-4000-8000-{number:012x}"


def program() -> list[str | Path]:
    """Return the command of the load: in C, built now where it has changed; in Python where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return [sys.executable, HERE / "load" / "calls.py"]
    source = HERE / "load" / "calls.c"
    built = OUT / f"calls-{sha256(source.read_bytes()).hexdigest()[:12]}"
    if not built.exists():
        OUT.mkdir(exist_ok=True)
        fresh = built.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-o", fresh, source], check=True)
        fresh.rename(built)
    return [built]


def language() -> str:
    """Say what the load is written in, here."""
    return "C" if len(program()) == 1 else "Python"


def _script(server: Server, kinds: tuple[str, ...], paths: int) -> Path:
    """Write down what the switch says, and the paths of the streams."""
    call = recorded_call()
    parts = [(b"ID  ", call.unique_id.encode()), (b"CONN", call.connect_answer)]
    parts += [(b"HANG", call.hangup), (b"ENDI", call.ending)]
    parts += [(b"EVNT", block) for block in recorded_events(kinds)[:250]]
    first = server.placed - paths
    for number in range(first, first + paths):
        name = name_of(number)
        query = f"rate=16000&mix=mono&token={media_token(SECRET, name)}"
        parts.append((b"PATH", f"/stream/bench/{name}/1001?{query}".encode()))
    OUT.mkdir(exist_ok=True)
    path = OUT / f"script.{server.pid}"
    path.write_bytes(b"".join(tag + struct.pack("<I", len(data)) + data for tag, data in parts))
    return path
