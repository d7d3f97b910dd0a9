"""A gateway without a file descriptor left turns connections away at once, goes on with what it has, and recovers."""

import asyncio
import contextlib
import json
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.ports import free_ports

FILES = 64
"What the gateway may have open; a third of it is its own. Raising that is denied: it is the hard limit, too."
CONFIG = """
[control]
listen = "127.0.0.1:0"
[media]
listen = "127.0.0.1:0"
dialect = "audio_stream-binary"
token = "off"
[metrics]
listen = ""
[agent]
use = "echo"
"""


@dataclass
class Gateway:
    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]]
    ports: dict[str, int]

    async def until(self, event: str, **fields: Any) -> dict[str, Any]:
        """Read on to the next log line of that name."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            while True:
                self.lines.append(line := json.loads(await self.process.stdout.readline()))
                if line["event"] == event and line.items() >= fields.items():
                    return line


@contextlib.asynccontextmanager
async def serving(tmp_path: Any, *more: str) -> AsyncIterator[Gateway]:
    config = tmp_path / "dueto.toml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "dueto", "serve", "--config", str(config), *more]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
    )
    gateway = Gateway(process, [], {})
    try:
        ready = await gateway.until("ready")
        for leg in ("control", "media"):
            gateway.ports[leg] = int(str(ready.get(leg, 0)).rpartition(":")[2])
        yield gateway
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.communicate()


async def dial(port: int, hello: bytes) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    with contextlib.suppress(ConnectionError):
        await loop.sock_sendall(connection, hello)
    return connection


async def answered(connection: socket.socket) -> bool:
    """Whether something is said on it; False: it was closed."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(60):
            return bool(await asyncio.get_running_loop().sock_recv(connection, 1))
    return False


async def welcome(port: int, hello: bytes) -> bool:
    with await dial(port, hello) as connection:
        return await answered(connection)


UPGRADE = (
    b"GET /stream/a/%d/1001?rate=8000 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(("leg", "workers"), [("control", 0), ("media", 0), ("control", 2)])
async def test_who_can_not_be_taken_is_turned_away_at_once_and_there_is_room_again_when_others_leave(
    tmp_path: Any, leg: str, workers: int
) -> None:
    more: list[str] = []
    if workers:
        ports = free_ports(2 * workers)
        more = ["--workers", str(workers), "--set", "media.start=gateway", "--set", f"media.listen=127.0.0.1:{ports}"]
        more += ["--set", f"media.public_url=ws://127.0.0.1:{ports}"]

    def hello(number: int) -> bytes:
        return UPGRADE % number if leg == "media" else b""

    async with serving(tmp_path, *more) as gateway:
        port = gateway.ports[leg]
        connections = [await dial(port, hello(number)) for number in range(FILES)]
        answers = await asyncio.gather(*map(answered, connections))
        assert 5 <= sum(answers) < FILES
        turned_away = answers.count(False)
        for _ in range(turned_away):
            await gateway.until("refused", leg=leg, reason="no_files", peer="127.0.0.1")  # others may be for silence
        for connection in connections:
            connection.close()
        async with asyncio.timeout(60):
            while not await welcome(port, hello(FILES)):  # they are just leaving
                turned_away += 1
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.until("stopped")
    noted = [line for line in gateway.lines if line["event"] == "refused" and line["reason"] == "no_files"]
    assert len(noted) == turned_away  # each once: nobody tried again and again what could not be done
    assert not [line for line in gateway.lines if line["level"] == "error"]


async def test_a_limit_that_is_too_low_for_the_calls_is_told_with_what_to_do(tmp_path: Any) -> None:
    async with serving(tmp_path) as gateway:
        few = next(line for line in gateway.lines if line["event"] == "few_files")
        assert f"{FILES} are allowed" in few["text"]
        assert "LimitNOFILE=" in few["text"]
