"""The switch's own event socket is held against recordings: the same commands get the same answers."""

import asyncio
import re

import pytest
from tests.wire.recordings import blocks, streams

from dueto.sim import Access, Switch, User, run_virtual
from dueto.sim.pipes import pipe

LIMITED = User(
    "1001@127.0.0.1",
    "eslpass",
    events=("CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_HANGUP"),
    api=("status", "uptime", "uuid_dump"),
)
RECORDED = Access("ClueCon", users=(LIMITED,))


class Client(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.received = b""
        self.closed = False

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True


def shape(stream: bytes) -> list[str]:
    """What was said, without what differs from switch to switch: the output of api commands, and its length."""
    shapes = []
    for head, body in blocks(stream):
        kept = [line for line in head.decode().split("\n") if not line.startswith("Content-Length")]
        text = "" if "api/response" in head.decode() else body.decode()
        shapes.append("\n".join([*kept, text]))
    return shapes


def answers(commands: bytes, access: Access) -> bytes:
    """Say `commands` to a simulated switch, and return all it says."""
    heard: list[bytes] = []

    async def scene() -> None:
        async with Switch(control="") as switch:
            client = Client()
            transport, _ = pipe(client, switch.inbound(access))
            await asyncio.sleep(0.1)
            for command in re.findall(rb".*?\n\n", commands, re.DOTALL):
                if not client.closed:
                    transport.write(command)
                await asyncio.sleep(0.1)
            heard.append(client.received)

    run_virtual(scene())
    return heard[0]


@pytest.mark.parametrize("connection", sorted(streams("17b-inbound-auth")))
def test_logging_in_and_what_a_limited_user_may_do(connection: int) -> None:
    commands = streams("17b-inbound-auth", "gw>fs").get(connection, b"")
    assert shape(answers(commands, RECORDED)) == shape(streams("17b-inbound-auth")[connection])


def test_an_address_that_is_not_allowed_is_told_to_go_away() -> None:
    assert shape(answers(b"", Access(reject=True))) == shape(streams("17d-inbound-rude-rejection")[1])


def test_who_does_not_log_in_is_sent_away_after_25_seconds() -> None:
    async def scene() -> None:
        async with Switch(control="") as switch:
            client = Client()
            pipe(client, switch.inbound())
            await asyncio.sleep(24.5)
            assert not client.closed
            await asyncio.sleep(1.0)
            assert client.closed

    run_virtual(scene())
