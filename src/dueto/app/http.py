"""The status listener: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever decides to send calls here."""

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

from dueto.app.addresses import Address
from dueto.errors import SettingsError

PATIENCE_S = 5.0
"For a whole exchange, from the connection to the last byte of the answer."
MAX_REQUEST_BYTES = 8192
"Request line and headers together."
MAX_CONNECTIONS = 32
"At a time; more are closed at once."

_TEXT = "text/plain; charset=utf-8"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    content_type: str = _TEXT
    head_only: bool = False
    path: str = "other"

    def encode(self) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        if self.status == 405:
            lines.append("Allow: GET, HEAD")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        return head if self.head_only else head + self.body


class StatusServer:
    """A tiny HTTP/1.1 server on the gateway's own loop: GET and HEAD, one request a connection. One per registry."""

    def __init__(self, listen: Address, registry: CollectorRegistry, ready: Callable[[], tuple[bool, str]]) -> None:
        """`ready` tells whether calls are welcome, and a word about it: `ready`, `full`, `draining`."""
        self._listen = listen
        self._registry = registry
        self._ready = ready
        self._server: asyncio.Server | None = None
        self._exchanges: set[asyncio.Task[None]] = set()
        self._requests = Counter(
            "dueto_http_requests", "Requests to the status listener.", ["path", "status"], registry=registry
        )

    @property
    def address(self) -> Address:
        """Where it listens; after `start()` with the port that the system chose."""
        if self._server is None or not self._server.sockets:
            return self._listen
        return Address(self._listen.host, int(self._server.sockets[0].getsockname()[1]))

    async def start(self) -> None:
        """Open the listener.

        Raises: SettingsError: the address can't be listened on.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, self._listen.host, self._listen.port, limit=MAX_REQUEST_BYTES
            )
        except OSError as error:
            why = "is in use by another program" if error.errno == errno.EADDRINUSE else _why(error)
            raise SettingsError(
                f'[metrics] listen: {self._listen} {why}; choose another port, or none with ""'
            ) from None

    async def aclose(self) -> None:
        """Close the listener and every connection. Returns when they are gone."""
        if self._server is None:
            return
        self._server.close()
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = asyncio.current_task()
        if exchange is None or len(self._exchanges) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._exchanges.add(exchange)
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._answer(reader)
                if answer is not None:
                    writer.write(answer.encode())
                    await writer.drain()
                    self._requests.labels(answer.path, str(answer.status)).inc()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):  # a client that went away, or was too slow
            return
        finally:
            writer.transport.abort()
            self._exchanges.discard(exchange)

    async def _answer(self, reader: asyncio.StreamReader) -> _Answer | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _Answer(431, b"too large\n")
        except asyncio.IncompleteReadError:
            return None
        line, *header_lines = head.decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
            return _Answer(400, b"not an HTTP/1 request\n")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _Answer(405, b"GET and HEAD only\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (h.partition(":") for h in header_lines)}
        return self._page(target.partition("?")[0], headers.get("accept", ""), head_only=method == "HEAD")

    def _page(self, path: str, accept: str, *, head_only: bool) -> _Answer:
        match path:
            case "/metrics":
                encoder, content_type = choose_encoder(accept)
                return _Answer(200, encoder(self._registry), content_type, head_only, path)
            case "/healthz":
                return _Answer(200, b"ok\n", head_only=head_only, path=path)
            case "/readyz":
                ready, word = self._ready()
                return _Answer(200 if ready else 503, f"{word}\n".encode(), head_only=head_only, path=path)
        return _Answer(404, b"/metrics, /healthz, /readyz\n", head_only=head_only)


def _why(error: OSError) -> str:
    return f"can't be listened on ({os.strerror(error.errno) if error.errno else error})"
