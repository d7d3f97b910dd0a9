"""Whole calls over `unicast` on real sockets, with every control engine; the switch has no audio module."""

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from tests.contract.engines import ENGINES
from tests.support.running import Listening, Running, running
from tests.support.unicast import RULES, samples

from dueto.call import Agent, Call, Destination
from dueto.call.events import Bridged, Dtmf, HungUp, Unbridged
from dueto.call.house import Whereabouts
from dueto.legs.unicast import UnicastDoor, UnicastOptions
from dueto.sim import Caller, Endpoint, Line, tone
from dueto.wire.media import UNICAST

HELLO = tone(8000, 0.4, 600)
OPTIONS = UnicastOptions(ports=(41000, 44999))


@contextlib.asynccontextmanager
async def over_unicast(agent: Agent, engine: str, **house: Any) -> AsyncIterator[tuple[Running, UnicastDoor]]:
    """Stand a gateway up whose streams come over UDP; at the end every port is free again."""
    door, where = UnicastDoor(OPTIONS), Whereabouts()
    async with running(
        agent, engine=engine, rules=RULES, dialect=UNICAST, unicast=door, whereabouts=where, **house
    ) as here:
        where.control = f"127.0.0.1:{here.control_port}"
        yield here, door
    assert len(door) == 0


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_udp_sockets() -> int:
    """How many UDP sockets this process holds."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/self/fd/{fd}")
            if link.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(fd))) as sock:
                    count += sock.type == socket.SOCK_DGRAM
    return count


async def test_a_full_call_with_no_module_on_the_switch(engine: str) -> None:
    """A caller talks, hears himself and the agent, presses a digit and hangs up; nothing is left of the call."""
    agent = Listening()

    async def both(call: Call) -> None:
        await call.say(HELLO)
        call.audio_to(call.write_now)
        await agent(call)

    async def script(line: Line) -> None:
        await line.hears_speech(10)
        await line.hears_silence(200, 10)
        await line.say(tone(8000, 0.4, 900))
        await line.hears_speech(10)
        await line.press("1")
        await agent.saw(Dtmf)

    before = open_udp_sockets()
    async with over_unicast(both, engine) as (here, _), here.switch(media_url="") as switch:
        call = await switch.place(Caller(script=script))
        await call.done()
        await agent.ended.wait()
        await here.desk.empty()
        await call.released()
    assert isinstance(agent.events[-1], HungUp)
    assert agent.events[-1].cause == "NORMAL_CLEARING"
    assert here.fields("paired")["order"] == "control_first"
    assert _loudest(call.heard) == {600, 900}
    assert open_udp_sockets() == before


async def test_a_bridge_out_and_back_and_the_agent_goes_on(engine: str) -> None:
    """The second control leg, the second stream, the same agent."""
    agent = Listening()
    back = asyncio.Event()

    async def transfers(call: Call) -> None:
        reading = asyncio.ensure_future(agent(call))
        result = await call.transfer("operator")
        assert result.ok
        await call.wait_for(Unbridged, timeout_s=20)
        await call.say(HELLO)
        back.set()
        await reading

    destinations = {"operator": Destination("operator", "user/1001")}
    endpoints = {"user/1001": Endpoint(answer_after_s=0.1, hangs_up_after_s=0.3, says=tone(8000, 1.0, 900))}
    async with (
        over_unicast(transfers, engine, destinations=destinations) as (here, door),
        here.switch(media_url="", endpoints=endpoints) as switch,
    ):
        call = await switch.place(Caller())
        async with asyncio.timeout(30):
            await back.wait()
        assert len(door) == 2
        call.hang_up()
        await call.done()
        await agent.ended.wait()
        await here.desk.empty()
        await call.released()
    kinds = [type(event) for event in agent.events if isinstance(event, Bridged | Unbridged | HungUp)]
    assert kinds == [Bridged, Unbridged, HungUp]
    assert here.names().count("agent_started") == 1
    assert here.names().count("control_connected") == here.names().count("media_connected") == 2
    assert _loudest(call.heard) == {600, 900}


async def test_a_port_that_somebody_else_has_on_the_switch_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance has it that the first try meets it."""
    agent = Listening()
    door, where = UnicastDoor(UnicastOptions(switch_address="127.0.0.3", ports=(45990, 45997))), Whereabouts()
    drawn = itertools.chain((0, 0), itertools.repeat(5))  # ours and theirs, of the first try and of later ones
    monkeypatch.setattr("dueto.legs.unicast.secrets.randbelow", lambda count: next(drawn))

    async def speak(call: Call) -> None:
        await call.say(HELLO)
        await agent(call)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.3", 45990))
        async with running(speak, rules=RULES, dialect=UNICAST, unicast=door, whereabouts=where) as here:
            where.control = f"127.0.0.1:{here.control_port}"
            async with here.switch(media_url="") as switch:
                call = await switch.place(Caller())
                await here.until_noted("said")
                call.hang_up()
                await call.done()
                await here.desk.empty()
    assert here.names().count("unicast_unanswered") == 1
    assert here.names().count("media_connected") == 1
    assert _loudest(call.heard) == {600}
    assert len(door) == 0


async def test_whoever_finds_the_port_is_not_heard() -> None:
    """A thief on the same machine, with the switch's address and another port: counted, then dropped by the kernel."""
    agent, heard = Listening(), bytearray()

    async def listens(call: Call) -> None:
        call.audio_to(heard.extend)
        await agent(call)

    async with over_unicast(listens, "native") as (here, _), here.switch(media_url="") as switch:
        call = await switch.place(Caller())
        await agent.started.wait()
        session = here.desk.find(call.unique_id)
        assert session is not None
        leg: Any = session.media
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.bind(("127.0.0.1", 0))
            for _ in range(500):
                thief.sendto(tone(8000, 0.02, 1000), (leg.offer.remote_ip, leg.offer.remote_port))
        before = leg.datagrams
        async with asyncio.timeout(10):
            while leg.datagrams < before + 20:  # noqa: ASYNC110 - the switch goes on being heard
                await asyncio.sleep(0.02)
        assert 50 <= leg.refused < 500
        call.hang_up()
        await call.done()
    assert len(heard) > 0
    assert np.abs(samples(bytes(heard))).max() < 600
    assert here.fields("refused")["reason"] == "other_source"


def _loudest(heard: bytes) -> set[int]:
    """Which tones sound in 100 ms pieces of what was heard, to 50 Hz."""
    found: set[int] = set()
    for at in range(0, len(heard) - 1600, 1600):
        piece = samples(heard[at : at + 1600])
        if np.abs(piece).min(initial=0) >= 0 and np.sqrt((piece**2).mean()) > 4000:
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
            found.add(int(round(np.argmax(spectrum) * 10 / 50) * 50))
    return found
