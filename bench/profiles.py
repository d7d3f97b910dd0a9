"""Flame graphs: where the gateway's time goes while 200 calls are echoed, and while 100 talk to a provider."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.lab import DUETO, Load, Server
from bench.measures.media import CALLS as ECHOED
from bench.measures.provider import CALLS as BRIDGED
from bench.measures.provider import bridges, talking
from bench.venvs import HERE, python

DOCS = HERE.parent / "docs"
SECONDS, SAMPLES_PER_S = 6, 500


def draw() -> list[Path]:
    """Draw both into docs/; return what was written. Raises: subprocess.CalledProcessError: py-spy may not look."""
    drawn = []
    with Server(DUETO) as server, Load(server) as load:
        load.place(ECHOED)
        load.talk()
        with _watched(server, drawn, "flame-echo.svg"):
            load.measure(SECONDS + 1)
    with bridges() as (servers, _), Load(servers[0]) as load:
        talking(servers[0], load, BRIDGED)
        with _watched(servers[0], drawn, "flame-bridged.svg"):
            load.measure(SECONDS + 1)
    return drawn


@contextmanager
def _watched(server: Server, drawn: list[Path], name: str) -> Iterator[None]:
    svg = DOCS / name
    spy = Path(python("tools")).parent / "py-spy"
    words = [spy, "record", "--pid", str(server.pid), "--duration", str(SECONDS), "--rate", str(SAMPLES_PER_S)]
    words.append("--nonblocking")  # to stop the process for a look would make its audio late, and change its way
    watching = subprocess.Popen([*words, "--output", svg], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.2)
    yield
    if watching.wait(SECONDS + 10):
        raise subprocess.CalledProcessError(watching.returncode, str(spy))
    title = f"{server.name}, {name.removeprefix('flame-').removesuffix('.svg')}: {SECONDS} s"
    svg.write_text(re.sub(r"py-spy record[^<]*|[^<>]*/py-spy record[^<]*", title, svg.read_text()))
    drawn.append(svg)
