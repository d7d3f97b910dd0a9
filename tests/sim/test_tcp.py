"""The same switch on real sockets: handshake, refusals, breaks, and its pace."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import pytest
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

from dueto.sim import Caller, Faults, Line, SimCall, Switch, TcpDoors, tone
from dueto.sim.doors import MediaListener

from .twins import Recorder

OPENING = (
    b"connect\n\nlinger 5\n\nmyevents\n\nevent plain CUSTOM mod_audio_stream::error mod_audio_stream::disconnect\n\n"
)


class EchoSide(WSListener):
    """Sends binary back, answers CLOSE, remembers."""

    def __init__(self, request: WSUpgradeRequest) -> None:
        self.request = request
        self.frames: list[bytes] = []
        self.closed = asyncio.Event()
        self.close_code = 0
        self.first_frame = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            data = frame.get_payload_as_bytes()
            self.frames.append(data)
            self.first_frame.set()
            transport.send(WSMsgType.BINARY, data)
        elif frame.msg_type == WSMsgType.CLOSE:
            self.close_code = int(frame.get_close_code())
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed.set()


@dataclass
class Gateway:
    """Both doors of a gateway on loopback."""

    control_port: int = 0
    media_port: int = 0
    controls: list[Recorder] = field(default_factory=list)
    sides: list[EchoSide] = field(default_factory=list)
    refuse: bool = False
    upgraded: asyncio.Event = field(default_factory=asyncio.Event)

    def switch(self, **more: object) -> Switch:
        url = f"ws://127.0.0.1:{self.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=16000&mix=mono"
        return Switch(f"127.0.0.1:{self.control_port}", url, **more)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def gateway(**given: bool) -> AsyncIterator[Gateway]:
    here = Gateway(**given)  # type: ignore[arg-type]

    def accept() -> Recorder:
        here.controls.append(Recorder(OPENING))
        return here.controls[-1]

    def upgrade(request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        if here.refuse:
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(403, b"no"), None)
        here.sides.append(EchoSide(request))
        here.upgraded.set()
        return here.sides[-1]

    loop = asyncio.get_running_loop()
    control = await loop.create_server(accept, "127.0.0.1", 0)
    media = await ws_create_server(upgrade, "127.0.0.1", 0)
    here.control_port = control.sockets[0].getsockname()[1]
    here.media_port = media.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        control.close()
        media.close()
        for side in here.sides:
            side.transport.disconnect(graceful=False)
        for recorder in here.controls:
            recorder.transport.abort()
        await asyncio.sleep(0)


async def test_a_whole_call_over_tcp_is_paired_echoed_and_closed_with_1000() -> None:
    async def script(line: Line) -> None:
        await line.say(tone(16000, 0.2, 500))
        await line.hears_speech()
        await line.press("7", ms=40)

    async with gateway() as here, here.switch() as switch:
        call = await switch.place(Caller("1001", "Alice", script, rate_hz=16000))
        await call.done()
        assert call.paired
        said, heard = ([part for part in _frames(pcm) if part.strip(b"\0")] for pcm in (call.said, call.heard))
        assert len(said) == 10
        assert heard == said[: len(heard)] != []  # a machine that stalls may be late, but not out of order
        side, control = here.sides[0], here.controls[0]
        await side.closed.wait()
        assert side.close_code == 1000
        assert {len(frame) for frame in side.frames} == {640}
        assert call.counters.frames_up == len(side.frames)
        await control.event("CHANNEL_HANGUP_COMPLETE")
        assert [event.get("DTMF-Digit") for event in control.named("DTMF")] == ["7"]
        control.send("exit")
        await call.released()


def _frames(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + 640] for at in range(0, len(pcm), 640)]


async def test_the_upgrade_request_is_the_modules_own_as_far_as_the_client_lets_it_be() -> None:
    extra = (("STREAM_EXTRA_HEADERS", '{"X-Tenant":"seven"}'),)
    async with gateway() as here, here.switch() as switch:
        call = await switch.place(Caller("1001", secretary="desk", variables=extra))
        await here.upgraded.wait()
        request = here.sides[0].request
        assert request.path == f"/stream/desk/{call.unique_id}/1001?rate=16000&mix=mono".encode()
        assert request.headers["Origin"] == f"http://127.0.0.1:{here.media_port}"
        assert request.headers["X-Tenant"] == "seven"
        assert request.headers["Sec-WebSocket-Version"] == "13"
        assert "Sec-WebSocket-Protocol" not in request.headers
        assert "Sec-WebSocket-Extensions" not in request.headers
        assert "User-Agent" not in request.headers


async def test_a_refused_upgrade_is_error_6_and_the_call_goes_on() -> None:
    async with gateway(refuse=True) as here, here.switch(start="gateway") as switch:
        call = await switch.place()
        await call.channel.control_ready.wait()
        control = here.controls[0]
        await control.answered(4)
        url = f"ws://127.0.0.1:{here.media_port}/x"
        control.send(f"api uuid_audio_stream {call.unique_id} start {url} mono 8k")
        error = await control.event("CUSTOM")
        assert error.body == '{"status":"error","message":{"code":6,"error":"WebSocket upgrade failed"}}'
        assert call.channel.up


async def test_nobody_listening_is_error_6_with_the_systems_words() -> None:
    async with gateway() as here, here.switch(start="gateway") as switch:
        call = await switch.place()
        await call.channel.control_ready.wait()
        await here.controls[0].answered(4)
        here.controls[0].send(f"api uuid_audio_stream {call.unique_id} start ws://127.0.0.1:1/x mono 8k")
        error = await here.controls[0].event("CUSTOM")
        assert error.body == ('{"status":"error","message":{"code":6,"error":"Connection refused (system error 111)"}}')


@pytest.mark.parametrize("way", ["close", "drop"])
async def test_a_server_that_goes_is_told_apart_by_its_close(way: str) -> None:
    async with gateway() as here, here.switch() as switch:
        call = await switch.place()
        await here.upgraded.wait()
        await here.sides[0].first_frame.wait()
        await call.channel.control_ready.wait()
        await here.controls[0].answered(4)
        if way == "close":
            here.sides[0].transport.send_close(WSCloseCode.GOING_AWAY, b"bye")
        else:
            here.sides[0].transport.disconnect(graceful=False)
        event = await here.controls[0].event("CUSTOM")
        expected = "::disconnect" if way == "close" else "::error"
        assert event.subclass == f"mod_audio_stream{expected}"
        assert ('"code":1001,"reason":"bye"' if way == "close" else '"code":1,') in event.body


async def test_a_reset_of_the_control_leg_is_a_real_rst() -> None:
    async with gateway() as here, here.switch(faults=Faults(control_reset_after_s=0.05)) as switch:
        call = await switch.place()
        await call.done()
        await here.controls[0].until(lambda: here.controls[0].lost)
        assert isinstance(here.controls[0].lost[0], ConnectionResetError)


async def test_a_late_upgrade_request_is_given_up_after_a_second() -> None:
    async with gateway() as here, here.switch(start="gateway", doors=TcpDoors(upgrade_late_s=30)) as switch:
        call = await switch.place()
        await call.channel.control_ready.wait()
        await here.controls[0].answered(4)
        url = f"ws://127.0.0.1:{here.media_port}/x"
        here.controls[0].send(f"api uuid_audio_stream {call.unique_id} start {url} mono 8k")
        error = await here.controls[0].event("CUSTOM")
        assert '"code":10,"error":"Timeout"' in error.body
        assert here.sides == []


async def test_frames_that_measure_their_way_come_back_and_are_counted() -> None:
    calls: list[SimCall] = []

    async def script(line: Line) -> None:
        while len(calls[0].counters.echo_ms) < 10:
            await line.wait(0.02)

    async with gateway() as here, here.switch(record=False) as switch:
        calls.append(await switch.place(Caller(script=script, rate_hz=16000, measure_echo=True)))
        await calls[0].done()
        counters = calls[0].counters
        assert min(counters.echo_ms) >= 0
        assert len(counters.echo_ms) + len(counters.sent_marks) == counters.frames_up
        assert counters.frames_down <= counters.frames_up == len(here.sides[0].frames)


async def test_a_gateway_that_hangs_up_before_the_upgrade_is_no_stream() -> None:
    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hangs_up, "127.0.0.1", 0) as listening:
        url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/stream"
        with pytest.raises(ConnectionResetError):
            await TcpDoors().media(url, [], cast(MediaListener, None))
