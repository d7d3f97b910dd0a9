"""The status listener: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever decides to send calls here."""

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

from dueto.app.addresses import Address
from dueto.app.http import Answer, HttpServer, Request

PATHS = ("/metrics", "/healthz", "/readyz")


class StatusServer:
    """GET and HEAD of three pages. One per registry."""

    def __init__(
        self,
        listen: Address,
        registry: CollectorRegistry,
        ready: Callable[[], tuple[bool, str]],
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`ready` tells whether calls are welcome, and a word about it: `ready`, `full`, `draining`.

        `refresh` is awaited before the metrics are read.
        """
        self._refresh = refresh
        self._registry = registry
        self._ready = ready
        self._server = HttpServer(listen, self._page, section="metrics", answered=self._count)
        self._requests = Counter(
            "dueto_http_requests", "Requests to the status listener.", ["path", "status"], registry=registry
        )

    @property
    def address(self) -> Address:
        """Where it listens; after `start()` with the port that the system chose."""
        return self._server.address

    async def start(self) -> None:
        """Open the listener. Raises: SettingsError: the address can't be listened on."""
        await self._server.start()

    async def aclose(self) -> None:
        """Close the listener and every connection. Returns when they are gone."""
        await self._server.aclose()

    def _count(self, request: Request, answer: Answer) -> None:
        path = request.path if request.path in PATHS else "other"
        self._requests.labels(path, str(answer.status)).inc()

    async def _page(self, request: Request) -> Answer:
        match request.path:
            case "/metrics":
                if self._refresh is not None:
                    await self._refresh()
                encoder, content_type = choose_encoder(request.headers.get("accept", ""))
                return Answer(200, encoder(self._registry), content_type)
            case "/healthz":
                return Answer(200, b"ok\n")
            case "/readyz":
                ready, word = self._ready()
                return Answer(200 if ready else 503, f"{word}\n".encode())
        return Answer(404, f"{', '.join(PATHS)}\n".encode())
