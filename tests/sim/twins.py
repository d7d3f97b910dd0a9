"""Gateways for the simulated switch's own tests: a recorder on the control leg, a scripted audio server."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from dueto.sim import MediaConnection, MediaListener, UpgradeRefused
from dueto.wire.esl import ConnectAnswer, Decoder, Event, Message

from .recordings import Block, block


class Recorder(asyncio.Protocol):
    """The gateway's end of one control connection: remembers what came, writes what it is told."""

    def __init__(self, opening: bytes = b"", on_message: "Callable[[Recorder, Message], None] | None" = None) -> None:
        self._opening, self._on_message = opening, on_message
        self._decoder = Decoder()
        self.blocks: list[Block] = []
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.opened_at = 0.0
        self.lost: list[Exception | None] = []
        self.eof = False
        self.pieces = 0
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.opened_at = asyncio.get_running_loop().time()
        if self._opening:
            self.send(self._opening)

    def data_received(self, data: bytes) -> None:
        self.pieces += 1
        for message in self._decoder.feed(data):
            self.blocks.append(block(asyncio.get_running_loop().time(), message))
            if self._on_message is not None:
                self._on_message(self, message)
        self._changed.set()

    def eof_received(self) -> None:
        self.eof = True
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)
        self._changed.set()

    def send(self, data: bytes | str) -> None:
        """Write; of a string every line is a command."""
        if isinstance(data, str):
            data = b"".join(line.encode() + b"\n\n" for line in data.splitlines())
        self.transport.write(data)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds that only what comes in can change."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def event(self, name: str, nth: int = 1) -> Event:
        """Wait for the nth event of a name."""
        await self.until(lambda: len(self.named(name)) >= nth)
        return self.named(name)[nth - 1]

    async def answered(self, count: int) -> list[str]:
        """Wait for so many replies (the connect answer counts) and return their texts."""
        await self.until(lambda: len(self.replies) >= count)
        return self.replies

    def named(self, name: str) -> list[Event]:
        return [item.message for item in self.blocks if isinstance(item.message, Event) and item.kind == name]

    @property
    def kinds(self) -> list[str]:
        return [item.kind for item in self.blocks]

    @property
    def replies(self) -> list[str]:
        """Texts of replies and outputs of api commands, in order."""
        return [
            "connect answer" if isinstance(item.message, ConnectAnswer) else item.telling[0][1]
            for item in self.blocks
            if item.kind in ("reply", "api", "connect answer")
        ]


@dataclass(eq=False)
class Server:
    """The gateway's end of the audio connections, in memory. A MediaOpener."""

    answers_close: bool = True
    echo: bool = False
    on_open: "Callable[[ServerSide], None] | None" = None
    sides: "list[ServerSide]" = field(default_factory=list)
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, url: str, headers: Sequence[tuple[str, str]], listener: MediaListener) -> MediaConnection:
        if ":8999/" in url:
            raise ConnectionRefusedError(111, "Connection refused")
        if url.endswith("/refused"):
            raise UpgradeRefused("403")
        if url.endswith("/mute"):
            await asyncio.Event().wait()
        side = ServerSide(self, url, list(headers), listener)
        self.sides.append(side)
        self._came.set()
        listener.on_open(side)
        if self.on_open is not None:
            self.on_open(side)
        if url.endswith("/told-late"):
            await asyncio.sleep(2.0)
        return side

    async def side(self, nth: int = 0) -> "ServerSide":
        """Wait for a connection and return it."""
        while len(self.sides) <= nth:
            self._came.clear()
            await self._came.wait()
        return self.sides[nth]

    def frames(self, nth: int = 0) -> list[bytes]:
        """Return the binary messages of one connection."""
        return [data for _, data in self.sides[nth].got if isinstance(data, bytes)]


@dataclass(eq=False)
class ServerSide:
    """One accepted audio connection; also what the module holds as its connection."""

    server: Server
    url: str
    headers: list[tuple[str, str]]
    listener: MediaListener
    got: list[tuple[float, bytes | str]] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    closed: tuple[int, str] | None = None
    aborted: bool = False
    reading: bool = True
    unread_bytes: int = 0
    "What the server has left unread."
    opened_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def send_binary(self, data: bytes) -> None:
        self.got.append((asyncio.get_running_loop().time(), data))
        if self.server.echo:
            self.binary(data)

    def send_text(self, text: str) -> None:
        self.got.append((asyncio.get_running_loop().time(), text))

    def ping(self, payload: bytes) -> None:
        self.pings.append(payload)

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        if self.server.answers_close:
            asyncio.get_running_loop().call_soon(self.listener.on_close, None, "")

    def abort(self) -> None:
        if not self.aborted and self.closed is None:
            asyncio.get_running_loop().call_soon(self.listener.on_close, None, "")
        self.aborted = True

    def unsent_bytes(self) -> int:
        return self.unread_bytes

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    # What the server does.

    def text(self, text: str) -> None:
        self.listener.on_text(text)

    def binary(self, data: bytes) -> None:
        self.listener.on_binary(data)

    def leave(self, code: int, reason: str) -> None:
        self.listener.on_close(code, reason)

    def drop(self) -> None:
        self.listener.on_close(None, "")
