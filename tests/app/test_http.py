"""The status listener, on real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from dueto.app import http
from dueto.app.addresses import Address
from dueto.app.metrics import Metrics
from dueto.app.status import StatusServer
from dueto.errors import SettingsError


class House:
    """A listener with something to say."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.ready = (True, "ready")
        self.server = StatusServer(Address("127.0.0.1", 0), self.registry, lambda: self.ready)

    async def send(self, request: bytes) -> bytes:
        """Send `request` and return everything until the server closes."""
        reader, writer = await self.connect()
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self.server.address
        return await asyncio.open_connection(address.host, address.port)

    async def get(self, target: str, *, method: str = "GET", headers: str = "") -> tuple[int, dict[str, str], str]:
        answer = await self.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        head, _, body = answer.decode().partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        return int(status.split(" ")[1]), dict(line.lower().split(": ", 1) for line in lines), body


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await house.server.start()
    yield house
    await house.server.aclose()


async def test_prometheus_can_read_the_metrics(house: House) -> None:
    house.metrics.journal("a", "control_connected", {})
    status, headers, body = await house.get("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert int(headers["content-length"]) == len(body.encode())
    families = {family.name: family for family in text_string_to_metric_families(body)}
    assert {s.labels["state"]: s.value for s in families["dueto_calls_in_progress"].samples}["waiting"] == 1


async def test_a_scraper_that_asks_for_openmetrics_gets_it(house: House) -> None:
    _, headers, body = await house.get("/metrics", headers="Accept: application/openmetrics-text; version=1.0.0\r\n")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


async def test_readiness_follows_the_gateway_and_health_does_not(house: House) -> None:
    assert (await house.get("/readyz"))[::2] == (200, "ready\n")
    house.ready = (False, "draining")
    assert (await house.get("/readyz"))[::2] == (503, "draining\n")
    assert (await house.get("/healthz"))[::2] == (200, "ok\n")


async def test_head_has_the_length_and_no_body(house: House) -> None:
    status, headers, body = await house.get("/healthz", method="HEAD")
    assert (status, headers["content-length"], body) == (200, "3", "")


async def test_a_query_is_ignored_and_an_unknown_path_is_not_found(house: House) -> None:
    assert (await house.get("/healthz?x=1"))[0] == 200
    assert (await house.get("/metrics/../etc"))[0] == 404


async def test_other_methods_are_not_allowed(house: House) -> None:
    status, headers, _ = await house.get("/metrics", method="POST")
    assert (status, headers["allow"]) == (405, "get, head")


@pytest.mark.parametrize(
    "request_line", [b"GET", b"GET /metrics", b"GET http://x/ HTTP/1.1", b"\xff\x00", b"GET /a b HTTP/1.1"]
)
async def test_what_is_no_request_is_refused(house: House, request_line: bytes) -> None:
    assert (await house.send(request_line + b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_a_request_without_an_end_is_cut_off_at_its_bound(house: House) -> None:
    answer = await house.send(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * http.MAX_REQUEST_BYTES)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_client_that_says_nothing_is_let_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_S", 0.0)
    assert await house.send(b"") == b""


async def test_a_client_that_leaves_early_does_no_harm(house: House) -> None:
    _, writer = await house.connect()
    writer.write(b"GET /met")
    writer.transport.abort()
    assert (await house.get("/healthz"))[0] == 200


async def test_more_connections_than_allowed_are_closed_and_the_others_served(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 1)
    reader, writer = await house.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    with pytest.raises((ConnectionError, IndexError)):  # accepted in the order of arrival, so this one is the second
        await house.get("/healthz")
    writer.write(b"\r\n")
    assert b"200 OK" in await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_requests_are_counted_without_growing_with_their_paths(house: House) -> None:
    for path in ("/healthz", "/a", "/b"):
        await house.get(path)
    count = house.registry.get_sample_value
    assert count("dueto_http_requests_total", {"path": "/healthz", "status": "200"}) == 1
    assert count("dueto_http_requests_total", {"path": "other", "status": "404"}) == 2


async def test_closing_lets_nobody_hang(house: House) -> None:
    reader, writer = await house.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    assert (await house.get("/healthz"))[0] == 200, "by now the first connection has been accepted too"
    address = house.server.address
    await house.server.aclose()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(address.host, address.port)


async def test_a_port_in_use_is_told_in_a_sentence(house: House) -> None:
    second = StatusServer(house.server.address, CollectorRegistry(), lambda: (True, "ready"))
    with pytest.raises(
        SettingsError, match=r"\[metrics\] listen: can't listen on 127\.0\.0\.1:\d+ .*in use.*or nowhere"
    ):
        await second.start()
    await second.aclose()
