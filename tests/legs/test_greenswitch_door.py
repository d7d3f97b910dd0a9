"""Who the greenswitch engine lets in, and who it turns away."""

import asyncio
from ipaddress import ip_network

import pytest
from tests.legs.greenswitch_peer import engine

from dueto.legs.esl_outbound import OutboundOptions
from dueto.legs.greenswitch_engine import GreenswitchServer
from dueto.wire.esl.switch_end import encode_reply


async def test_a_switch_that_does_not_answer_connect_is_given_up() -> None:
    async with engine(OutboundOptions(connect_s=0.05)) as running:
        peer = await running.dial(connect=lambda command: b"")
        assert await running.door.refusal() == ("control", "silent", "127.0.0.1")
        await peer.ended.wait()


@pytest.mark.parametrize("reply", [b"Content-Type: command/reply\nEvent-Name: CHANNEL_DATA\n\n", encode_reply("-ERR")])
async def test_a_connect_answer_without_a_channel_is_a_protocol_error(reply: bytes) -> None:
    async with engine() as running:
        peer = await running.dial(connect=lambda command: reply)
        assert await running.door.refusal() == ("control", "protocol_error", "127.0.0.1")
        await peer.ended.wait()
        assert len(running.door.refusals) == 1


async def test_a_network_that_is_not_allowed_gets_no_word() -> None:
    async with engine(OutboundOptions(allow=(ip_network("192.0.2.0/24"),))) as running:
        peer = await running.dial()
        assert await running.door.refusal() == ("control", "not_allowed", "127.0.0.1")
        await peer.ended.wait()
        assert peer.commands == []


async def test_a_port_that_is_taken_is_an_os_error() -> None:
    async with engine() as running:
        other = GreenswitchServer(running.door, OutboundOptions())
        with pytest.raises(OSError, match="in use"):
            await other.start("127.0.0.1", running.port)
        await other.aclose()


async def test_who_stops_listening_keeps_its_calls() -> None:
    async with engine() as running:
        _, leg, _ = await running.call()
        await running.server.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)
        assert await leg.api("status") == "+OK"


async def test_more_than_a_hundred_calls_at_once() -> None:
    async with engine() as running:
        calls = await asyncio.gather(*(running.dial(f"call {number}") for number in range(130)))
        legs = [await running.door.leg() for _ in calls]
        assert await asyncio.gather(*(leg.api("status") for leg in legs)) == ["+OK"] * 130
        assert len(running.server) == 130
