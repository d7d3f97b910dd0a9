"""Both doors ask the kernel to watch their connections."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.support.listeners import RememberingDoor
from tests.support.module_peer import RememberingMediaDoor, media_bench
from tests.support.switch_peer import SwitchPeer

from dueto.legs.esl_outbound import ControlServer, OutboundLeg, OutboundOptions
from dueto.legs.keepalive import IDLE_S, UNANSWERED_MS, keep_alive

Watched = Callable[[], Coroutine[Any, Any, None]]


def assert_watched(sock: socket.socket) -> None:
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == IDLE_S
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNANSWERED_MS


async def a_control_leg() -> None:
    door = RememberingDoor()
    server = ControlServer(door, OutboundOptions())
    peer = await SwitchPeer.dial(await server.start("127.0.0.1", 0))
    await peer.open()
    leg = await door.leg()
    assert isinstance(leg, OutboundLeg)
    assert leg._transport is not None
    assert_watched(leg._transport.get_extra_info("socket"))
    await peer.aclose()
    await door.sink.until("closed")
    await server.aclose()


async def a_stream() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        await bench.stream()
        leg: Any = door.legs[0]
        assert_watched(leg._transport.underlying_transport.get_extra_info("socket"))


@pytest.mark.parametrize("connection", [a_control_leg, a_stream])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_is_watched(connection: Watched, loop: str) -> None:
    factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(connection())


def test_a_socket_that_can_not_be_watched_is_left_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keep_alive(ours)
        ours.send(b"x")
        assert theirs.recv(1) == b"x"
