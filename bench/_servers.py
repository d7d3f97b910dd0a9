"""The processes that are measured: a gateway, and the bare servers that mark the limit. Each runs in a child."""

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Literal, Self, TextIO

from bench._support import SERVER_CORE, pin
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from dueto.agents.echo import echo
from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.app.serve import new_event_loop
from dueto.app.settings import Settings
from dueto.call import Call
from dueto.call.events import HungUp
from dueto.call.hearing import Hearing
from dueto.call.mailbox import Mailbox
from dueto.call.session import Session
from dueto.call.stream_player import StreamPlayer
from dueto.legs.esl_outbound import OutboundLeg
from dueto.legs.media_server import PicowsMediaLeg

SECRET = "0123456789abcdef-bench"
KINDS = (Session, Call, OutboundLeg, PicowsMediaLeg, StreamPlayer, Hearing, Mailbox)
"Of which nothing may be alive when no call is."

Kind = Literal["gateway", "noting gateway", "bare echo"]
"A gateway with the echo agent; one whose agent also notes when it is told of the hangup; a server that only echoes."


@dataclass(frozen=True, slots=True)
class Figures:
    """How a server process stands, by its own account."""

    tasks: int
    alive: dict[str, int]
    "Objects of calls, by class; counted after a full collection."
    hung_up_ns: dict[str, int]
    "When the agent got `HungUp`, by Unique-ID, on the system-wide monotonic clock. Told once, then forgotten."
    bare_ns: dict[str, int]
    "The same for the bare Protocol."


@dataclass(slots=True)
class _Notes:
    hung_up_ns: dict[str, int] = field(default_factory=dict)
    bare_ns: dict[str, int] = field(default_factory=dict)


class BareControl(asyncio.Protocol):
    """The limit of noticing a hangup: frames the blocks, finds the event's name and its channel, notes the time."""

    def __init__(self, notes: _Notes) -> None:
        self._notes = notes
        self._held = b""

    def data_received(self, data: bytes) -> None:
        data = self._held + data if self._held else data
        at = 0
        while (blank := data.find(b"\n\n", at)) >= 0:
            length = data.find(b"Content-Length: ", at, blank) + 16
            stop = blank + 2 + int(data[length : data.find(b"\n", length)])
            if stop > len(data):
                break
            if _value(data, b"Event-Name: ", blank, stop) == b"CHANNEL_HANGUP":
                self._notes.bare_ns[_value(data, b"\nUnique-ID: ", blank, stop).decode()] = time.monotonic_ns()
            at = stop
        self._held = data[at:]


def _value(data: bytes, needle: bytes, start: int, stop: int) -> bytes:
    at = data.find(needle, start, stop) + len(needle)
    return data[at : data.find(b"\n", at)]


class _BareEcho(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            transport.send(WSMsgType.BINARY, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


async def _bare_echo() -> tuple[dict[str, int], Callable[[], Awaitable[None]]]:
    def listener(request: WSUpgradeRequest) -> WSListener:
        return _BareEcho()

    server = await ws_create_server(listener, "127.0.0.1", 0, backlog=1024)

    async def close() -> None:
        server.close()

    return {"media": server.sockets[0].getsockname()[1]}, close


def settings(engine: str = "native", max_calls: int = 20_000) -> Settings:
    """Return the configuration of the gateway that is measured: free ports, tokens required, everything as it comes."""
    return Settings.model_validate(
        {
            "control": {"listen": "127.0.0.1:0", "engine": engine, "max_calls": max_calls},
            "media": {"listen": "127.0.0.1:0", "secret": SECRET, "dialect": "audio_stream-binary"},
            "metrics": {"listen": ""},
        }
    )


async def _gateway(
    notes: _Notes, nobody: TextIO, engine: str, *, noting: bool
) -> tuple[dict[str, int], Callable[[], Awaitable[None]]]:
    async def noting_echo(call: Call) -> None:
        call.audio_to(call.write_now)
        async for event in call.events():
            if isinstance(event, HungUp):
                notes.hung_up_ns[call.unique_id] = time.monotonic_ns()

    configure_logs("json", nobody)
    gateway = Gateway(settings(engine), agent=noting_echo if noting else echo)
    await gateway.start()
    ports = {"control": gateway.control_port, "media": gateway.media_port}
    if not noting:
        return ports, gateway.aclose
    bare = await asyncio.get_running_loop().create_server(lambda: BareControl(notes), "127.0.0.1", 0, backlog=1024)

    async def close() -> None:
        bare.close()
        await gateway.aclose()

    return ports | {"bare": bare.sockets[0].getsockname()[1]}, close


async def _serve(kind: Kind, engine: str, line: Connection, nobody: TextIO) -> None:
    """`nobody` gets the log lines: they are made as in service, and not written down."""
    notes = _Notes()
    ports, close = await (
        _bare_echo() if kind == "bare echo" else _gateway(notes, nobody, engine, noting=kind == "noting gateway")
    )
    line.send(ports)
    over = asyncio.Event()

    def asked() -> None:
        try:
            line.recv()
        except EOFError:  # whoever measured is gone
            over.set()
            return
        gc.collect()
        kinds = map(type, gc.get_objects())  # of the type: `isinstance` asks a weak proxy, which may be dead
        alive = Counter(kind.__name__ for kind in kinds if issubclass(kind, KINDS))
        line.send(Figures(len(asyncio.all_tasks()), dict(alive), notes.hung_up_ns, notes.bare_ns))
        notes.hung_up_ns, notes.bare_ns = {}, {}

    loop = asyncio.get_running_loop()
    loop.add_reader(line.fileno(), asked)
    os.set_blocking(line.fileno(), True)  # uvloop has it not block, and a long answer would be cut off
    try:
        await over.wait()
    finally:
        loop.remove_reader(line.fileno())
        await close()


def _child(kind: Kind, engine: str, line: Connection) -> None:
    pin(SERVER_CORE)
    with open(os.devnull, "w") as nobody, asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(kind, engine, line, nobody))


class Server:
    """A server in a process of its own, on the servers' core. `with Server("gateway") as server: ...`"""

    def __init__(self, kind: Kind, engine: str = "native") -> None:
        context = get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_child, args=(kind, engine, theirs), name=kind, daemon=True)
        self._process.start()
        theirs.close()
        self.ports: dict[str, int] = self._line.recv()
        "`control`, `media`, `bare`: those it has."

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process.pid is not None
        return self._process.pid

    def figures(self) -> Figures:
        """Ask the process how it stands. Stops its loop for a full collection: not while something is measured."""
        self._line.send(None)
        figures: Figures = self._line.recv()
        return figures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._line.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
