"""What the fake providers stand on: a WebSocket server on loopback, a script per connection, an ear for the caller."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ssl import SSLContext
from typing import Any

import numpy as np
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)


class Broke(Exception):
    """The client broke the protocol; the fake closes with this, as the real one would."""

    def __init__(self, code: int, reason: str, complaint: str = "") -> None:
        super().__init__(complaint or reason)
        self.code = code
        self.reason = reason


class Connection(WSListener):
    """One client's WebSocket. What it says goes to whoever listens; a `Broke` raised there closes it."""

    def __init__(self, server: "FakeServer", request: WSUpgradeRequest) -> None:
        super().__init__()
        self.path = bytes(request.path).decode()
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        self.closed = asyncio.Event()
        self.close_code: int | None = None
        self._server = server
        self._transport: WSTransport | None = None
        self._listener: Callable[[bytes], None] | None = None
        self._early: list[bytes] = []

    def listen(self, listener: Callable[[bytes], None]) -> None:
        """Say who listens, from the first message on."""
        self._listener = listener
        early, self._early = self._early, []
        for message in early:
            self._take(message)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._server.came(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            if not transport.is_close_frame_sent:
                self._take(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.close_code = int(frame.get_close_code())
            if not transport.is_close_frame_sent:
                transport.send_close(WSCloseCode(self.close_code or 1000))
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        self.closed.set()

    def _take(self, message: bytes) -> None:
        if self._listener is None:
            self._early.append(message)
            return
        try:
            self._listener(message)
        except Broke as broke:
            self._server.complaints.append(f"{broke} in {message[:300]!r}")
            self.close(broke.code, broke.reason)

    def send_text(self, message: bytes) -> None:
        if self._transport is not None and not self._transport.is_close_frame_sent:
            self._transport.send(WSMsgType.TEXT, message)

    def send_binary(self, message: bytes) -> None:
        if self._transport is not None and not self._transport.is_close_frame_sent:
            self._transport.send(WSMsgType.BINARY, message)

    def close(self, code: int, reason: str = "") -> None:
        if self._transport is not None and not self._transport.is_close_frame_sent:
            self._transport.send_close(code, reason.encode()[:123])  # type: ignore[arg-type]

    def drop(self) -> None:
        """Break off without a CLOSE."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)


class FakeServer:
    """Listens on loopback until `aclose`; `serve` runs once per connection, until the client is gone."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        "What a client did wrong. A test that does not look at it wants it empty."
        self.requests: list[str] = []
        self.connections: list[Connection] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []

    async def start(self, tls: SSLContext | None = None) -> None:
        self._server = await ws_create_server(
            self._upgrade, "127.0.0.1", 0, ssl=tls, max_frame_size=1 << 22, websocket_handshake_timeout=10
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self.connections:
            connection.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failures:
            raise ExceptionGroup("a script failed", self._failures)

    def answer(self, request: WSUpgradeRequest, path: str) -> WSUpgradeResponse | None:
        """Answer a request with something else than a WebSocket; None: let it in."""
        return None

    async def serve(self, connection: Connection) -> None:
        raise NotImplementedError

    def came(self, connection: Connection) -> None:
        self.connections.append(connection)
        task = asyncio.get_running_loop().create_task(self._run(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, connection: Connection) -> None:
        serving = asyncio.ensure_future(self.serve(connection))
        gone = asyncio.ensure_future(connection.closed.wait())
        try:
            await asyncio.wait((serving, gone), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
                await gone
        except Exception as error:
            self._failures.append(error)
            connection.drop()
        finally:
            for task in (serving, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    def _upgrade(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        path = bytes(request.path).decode()
        self.requests.append(path)
        answer = self.answer(request, path)
        if answer is not None:
            return WSUpgradeResponseWithListener(answer, None)
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(), Connection(self, request))


def said_json(status: int, value: Any) -> WSUpgradeResponse:
    """Return a small HTTP answer."""
    body, kind = json.dumps(value).encode(), {"Content-Type": "application/json"}
    if status == 200:
        return WSUpgradeResponse.create_ok_response(body, kind)
    return WSUpgradeResponse.create_error_response(status, body, kind)


class Hearing:
    """Tells when the caller speaks, by loudness: two loud frames begin it, `silence_ms` of quiet end it."""

    def __init__(self, silence_ms: int = 200) -> None:
        self.speaking = False
        self.heard_ms = 0.0
        "All audio that came, loud or not."
        self.turns = 0
        "How often the caller has begun."
        self.ends = 0
        "How often he has stopped."
        self._silence_ms = silence_ms
        self._loud_ms = self._quiet_ms = 0.0
        self._wakers: set[asyncio.Future[None]] = set()

    def hear(self, samples: "np.ndarray[Any, np.dtype[np.int16]]", rate_hz: int) -> None:
        ms = len(samples) * 1000 / rate_hz
        self.heard_ms += ms
        if len(samples) and int(np.abs(samples.astype(np.int32)).max()) > 1500:
            self._loud_ms, self._quiet_ms = self._loud_ms + ms, 0.0
        else:
            self._quiet_ms += ms
            if self._quiet_ms >= 60:
                self._loud_ms = 0.0
        before = self.speaking
        if not self.speaking and self._loud_ms >= 40:
            self.speaking = True
            self.turns += 1
        elif self.speaking and self._quiet_ms >= self._silence_ms:
            self.speaking = False
            self.ends += 1
        if self.speaking != before or self._wakers:
            for waker in self._wakers:
                if not waker.done():
                    waker.set_result(None)

    async def until(self, found: Callable[[], bool]) -> None:
        """Wait until `found()` holds; it is asked whenever something was heard."""
        while not found():
            waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wakers.add(waker)
            try:
                await waker
            finally:
                self._wakers.discard(waker)

    async def ms(self, ms: float) -> None:
        """Wait until that much was heard, from the beginning."""
        await self.until(lambda: self.heard_ms >= ms)


def tone(ms: float, rate_hz: int, hz: float = 440.0, level: int = 8000) -> bytes:
    """Return a tone as L16."""
    at = np.arange(round(ms * rate_hz / 1000)) / rate_hz
    return (np.sin(2 * np.pi * hz * at) * level).astype("<i2").tobytes()


async def either(done: Awaitable[Any], other: Awaitable[Any]) -> bool:
    """Wait for one of both; return whether it was the first. The other is cancelled."""
    tasks = [asyncio.ensure_future(done), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
