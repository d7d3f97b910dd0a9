"""A small HTTP/1.1 server on the gateway's own loop: one request a connection, all of it bounded. Two listeners use it.

No framework and no second server in the process: what is served here is a handful of fixed paths, and it has to share
the loop with the calls.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from dueto.app.addresses import Address, why_deaf
from dueto.errors import SettingsError

PATIENCE_S = 5.0
"For a whole exchange, from the connection to the last byte of the answer."
MAX_REQUEST_BYTES = 8192
"Request line and headers together."
MAX_CONNECTIONS = 32
"At a time; more are closed at once."

TEXT = "text/plain; charset=utf-8"
_REASONS = {
    200: "OK",
    201: "Created",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants."""

    method: str
    path: str
    "Without the query; as it came, not decoded."
    headers: Mapping[str, str]
    "Names in lower case; of two of one name, the last."
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What he gets."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, *, head_only: bool = False) -> bytes:
        """Return it as it goes out."""
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        return head if head_only else head + self.body


class HttpServer:
    """Listens, reads a request, asks `handle`, answers."""

    def __init__(
        self,
        listen: Address,
        handle: Callable[[Request], Awaitable[Answer]],
        *,
        section: str,
        methods: tuple[str, ...] = ("GET", "HEAD"),
        max_body_bytes: int = 0,
        answered: Callable[[Request, Answer], None] = lambda request, answer: None,
    ) -> None:
        """`section`: whose `listen` it is, for texts. `answered` is told of every request that `handle` was asked."""
        self._listen = listen
        self._handle = handle
        self._section = section
        self._methods = methods
        self._max_body_bytes = max_body_bytes
        self._answered = answered
        self._server: asyncio.Server | None = None
        self._exchanges: set[asyncio.Task[None]] = set()

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
            why = why_deaf(self._listen, error)
            raise SettingsError(f'[{self._section}] listen: {why}; or nowhere, with ""') from None

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
                answer = await self._exchange(reader)
                if answer:
                    writer.write(answer)
                    await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):  # a client that went away, or was too slow
            return
        finally:
            writer.transport.abort()
            self._exchanges.discard(exchange)

    async def _exchange(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Answer(431, b"too large\n").encode()
        except asyncio.IncompleteReadError:
            return b""
        line, *header_lines = head.decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
            return Answer(400, b"not an HTTP/1 request\n").encode()
        method, target, _ = words
        headers = {name.strip().lower(): value.strip() for name, _, value in (h.partition(":") for h in header_lines)}
        request = Request(method, target.partition("?")[0], headers)
        if method not in self._methods:
            text = f"{', '.join(self._methods)} only\n".encode()
            answer = Answer(405, text, headers={"Allow": ", ".join(self._methods)})
        else:
            request, refusal = await self._with_body(reader, request)
            answer = refusal or await self._handle(request)
        self._answered(request, answer)
        return answer.encode(head_only=method == "HEAD")

    async def _with_body(self, reader: asyncio.StreamReader, request: Request) -> tuple[Request, Answer | None]:
        length = request.headers.get("content-length", "")
        if "transfer-encoding" in request.headers:
            return request, Answer(411, b"a body needs its Content-Length\n")
        if not length or request.method in ("GET", "HEAD"):
            return request, None
        if not (length.isascii() and length.isdigit()):
            return request, Answer(400, b"not a length\n")
        if len(length) > 9 or int(length) > self._max_body_bytes:
            return request, Answer(413, f"at most {self._max_body_bytes} bytes\n".encode())
        try:
            body = await reader.readexactly(int(length))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the client left in the middle of its request") from error
        return Request(request.method, request.path, request.headers, body), None
