"""A connection that one process accepts and another serves: only looked at, within bounds, and left as it is."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from dueto.errors import Refused
from dueto.legs import handover
from dueto.legs.handover import mark_of

ANSWER = b"Event-Name: CHANNEL_DATA\nvariable_other: x\nvariable_mark: worker%201\nContent-Type: command/reply\n\n"


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The accepted end, and the switch's."""
    ours, switch = socket.socketpair()
    with ours, switch:
        ours.setblocking(False)
        switch.setblocking(False)
        yield ours, switch


async def refusal(ours: socket.socket) -> str:
    with pytest.raises(Refused) as caught:
        async with asyncio.timeout(60):
            await mark_of(ours, "mark")
    return caught.value.reason


async def test_the_mark_is_read_and_every_byte_left_for_whoever_serves_the_call() -> None:
    with connection() as (ours, switch):
        switch.send(ANSWER + b"Content-Length: 2\n")
        assert await mark_of(ours, "mark") == "worker 1"
        assert switch.recv(100) == b"connect\n\n"
        assert ours.recv(4096) == ANSWER + b"Content-Length: 2\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"Event-Name: CHANNEL_DATA\n\n",
        b"Event-Name: CHANNEL_DATA\nvariable_other: x%0Avariable_mark: y\n\n",
        b"Event-Name: CHANNEL_DATA\nvariable_marks: y\nOther-variable_mark: y\n\n",
        b"Event-Name: CHANNEL_DATA\n\nvariable_mark: y\n\n",
    ],
)
async def test_a_channel_without_the_mark_has_none_and_can_not_forge_it(answer: bytes) -> None:
    with connection() as (ours, switch):
        switch.send(answer)
        assert await mark_of(ours, "mark") == ""


async def test_an_answer_may_come_in_pieces() -> None:
    with connection() as (ours, switch):
        asking = asyncio.ensure_future(mark_of(ours, "mark"))
        for at in range(0, len(ANSWER), 20):
            switch.send(ANSWER[at : at + 20])
            await asyncio.sleep(0)
        assert await asking == "worker 1"


async def test_who_hangs_up_or_sends_no_end_is_refused() -> None:
    with connection() as (ours, switch):
        switch.close()
        assert await refusal(ours) in ("protocol_error", "connection_lost")
    with connection() as (ours, switch):
        switch.shutdown(socket.SHUT_WR)
        assert await refusal(ours) == "protocol_error"


async def test_a_header_without_end_is_refused_as_soon_as_it_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "PEEK_BYTES", 64)
    monkeypatch.setattr(handover, "ANSWER_S", 300.0)
    with connection() as (ours, switch):
        switch.send(b"x" * 64)
        assert await refusal(ours) == "protocol_error"


@pytest.mark.parametrize("half", [b"", ANSWER[:30]])
async def test_who_stops_halfway_is_refused_in_time_and_costs_little_until_then(
    half: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    class Counted(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            nonlocal looks
            looks += 1
            return super().recv(size, flags)

    monkeypatch.setattr(handover, "ANSWER_S", 0.5)
    with connection() as (plain, switch), Counted(fileno=plain.detach()) as ours:
        ours.setblocking(False)
        switch.send(half)
        assert await refusal(ours) == "connect_timeout"
        assert looks <= 20


async def test_cancelling_leaves_the_connection_as_it_was() -> None:
    with connection() as (ours, switch):
        asking = asyncio.ensure_future(mark_of(ours, "mark"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert not asyncio.get_running_loop().remove_reader(ours.fileno())
        switch.send(ANSWER)
        assert ours.recv(4096) == ANSWER
