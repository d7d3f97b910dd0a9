"""Audio over `unicast` through a whole switch and back: tones, measured at their return from an echoing far leg."""

import asyncio

import numpy as np
import pytest
from tests.contract.engines import ENGINES
from tests.support.running import Listening
from tests.switch.conftest import ECHOES, scene
from tests.switch.test_switch import Doing

from dueto.call import Call, TransferResult
from dueto.call.events import Unbridged
from dueto.call.ports import Accept
from dueto.sim import tone

pytestmark = pytest.mark.timeout(60)


async def echo_of(call: Call, hz: int, seconds: float) -> tuple[int, float, int]:
    """Say a tone; return the pitch of its echo in Hz, its level in dB against what was said, and how many ms came."""
    heard, quiet, over = bytearray(), 0, asyncio.Event()

    def hear(frame: bytes) -> None:
        nonlocal quiet
        loud = bool(np.abs(np.frombuffer(frame, "<i2").astype(int)).max() > 300)
        quiet = 0 if loud else quiet + 1
        if loud or heard:
            heard.extend(frame)
            if quiet >= 10:
                over.set()

    stop = call.audio_to(hear)
    said = tone(call.rate_hz, seconds, hz)
    await call.say(said)
    async with asyncio.timeout(10):
        await over.wait()
    stop()
    frames = np.frombuffer(bytes(heard), "<i2").astype(float).reshape(-1, call.rate_hz // 50)
    levels = np.sqrt((frames**2).mean(axis=1))
    sounding = np.flatnonzero(levels > 300)
    middle = frames[sounding[0] + 5 : sounding[-1] - 5].reshape(-1)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    reference = np.frombuffer(said, "<i2").astype(float)
    level = 20 * np.log10(np.sqrt((middle**2).mean()) / np.sqrt((reference**2).mean()))
    return round(np.argmax(spectrum) * call.rate_hz / len(middle)), float(level), 20 * len(sounding)


def assert_came_back(echo: tuple[int, float, int], hz: int, seconds: float) -> None:
    """Pitch within 5 Hz, level within 3 dB, all of it but what a codec's or a queue's beginning may cost."""
    pitch, level, ms = echo
    assert abs(pitch - hz) <= 5
    assert abs(level) <= 3.0
    assert abs(ms - 1000 * seconds) <= 60


@pytest.mark.parametrize("engine", sorted(ENGINES))
async def test_a_tone_comes_back_whole_at_its_pitch_and_level(engine: str) -> None:
    agent = Doing(lambda call: echo_of(call, 600, 0.5))
    async with scene(agent, engine=engine, unicast=True) as here:
        await here.place(ECHOES)
        assert_came_back(await agent.result(), 600, 0.5)


async def test_after_something_of_the_switchs_own_the_stream_is_back() -> None:
    async def play(call: Call) -> tuple[int, float, int]:
        await call.play("tone_stream://%(200,0,440)")
        return await echo_of(call, 900, 0.4)

    agent = Doing(play)
    async with scene(agent, unicast=True) as here:
        await here.place(ECHOES)
        assert_came_back(await agent.result(), 900, 0.4)


async def test_after_a_bridge_the_stream_is_back_and_the_agent_the_same() -> None:
    async def transfer(call: Call) -> tuple[int, float, int]:
        result = await call.transfer("answers", timeout_s=10)
        assert result.ok
        await call.wait_for(Unbridged, timeout_s=20)
        return await echo_of(call, 700, 0.4)

    agent = Doing(transfer)
    async with scene(agent, unicast=True) as here:
        await here.place(ECHOES)
        bridged = await here.gateway.until_noted("bridged")
        await here.link.api("uuid_kill", str(bridged["other"]))
        assert_came_back(await agent.result(), 700, 0.4)
        assert here.gateway.names().count("agent_started") == 1


async def test_an_attended_transfer_ends_with_the_two_together() -> None:
    accept = Accept(prompt="", silence="accept", within_s=0.1)
    said = tone(8000, 0.2, 500)
    agent = Doing(
        lambda call: call.transfer(
            "answers", mode="attended", accept=accept, introduce=lambda call: call.say(said), timeout_s=10
        )
    )
    async with scene(agent, unicast=True) as here:
        await here.place(ECHOES)
        result: TransferResult = await agent.result()
        assert result.ok
        assert "conference" in here.gateway.names()


async def test_a_hangup_leaves_no_port_behind(listening: Listening) -> None:
    async with scene(listening, unicast=True) as here:
        unique_id = await here.place(ECHOES)
        await listening.started.wait()
        door = here.gateway.desk.house.unicast
        gone = here.gone(unique_id)
        await here.link.api("uuid_kill", unique_id)
        await gone
        await here.gateway.desk.empty()
        assert len(door) == 0  # type: ignore[arg-type]
