"""The agent's voice through the audio module that the switch has: tones, measured at their return from an echoing leg.

Which module that is, and how it plays, is found out as in service. Without DUETO_SWITCH several kinds are simulated.
"""

import asyncio
import os

import numpy as np
import pytest
from tests.contract.engines import ENGINES
from tests.switch.conftest import ECHOES, Scene, scene
from tests.switch.test_switch import Doing
from tests.switch.test_unicast import assert_came_back, echo_of

from dueto.call import Call
from dueto.errors import Interrupted
from dueto.sim import AudioDialect, tone
from dueto.wire.media import DIALECTS

pytestmark = pytest.mark.timeout(60)
Trial = tuple[AudioDialect, str]
SIMULATED: tuple[Trial, ...] = (
    ("audio_stream", "native"),
    ("audio_stream-base64", "native"),
    ("audio_fork", "greenswitch"),
    ("audio_fork-binary", "native"),
)
TRIALS = tuple(("audio_stream", engine) for engine in ENGINES) if os.environ.get("DUETO_SWITCH") else SIMULATED


async def placed(here: Scene) -> None:
    """Place the call, where there is an audio module at all."""
    there = [await here.link.api("module_exists", module) for module in ("mod_audio_stream", "mod_audio_fork")]
    if "true" not in there:
        pytest.skip("this switch has no audio module; `unicast` needs none")
    await here.place(ECHOES)


@pytest.mark.parametrize(("kind", "engine"), TRIALS)
async def test_a_tone_comes_back_whole_at_its_pitch_and_level(kind: AudioDialect, engine: str) -> None:
    agent = Doing(lambda call: echo_of(call, 600, 0.6))
    async with scene(agent, engine=engine, simulated=kind) as here:
        await placed(here)
        assert_came_back(await agent.result(), 600, 0.6)
        found = await here.gateway.until_noted("media_dialect")
        assert found["found"] in DIALECTS


async def test_what_is_cut_is_silent_soon_and_stays_so() -> None:
    async def cut(call: Call) -> tuple[int, int, int]:
        loud: list[float] = []
        now = asyncio.get_running_loop().time

        def hear(frame: bytes) -> None:
            if np.abs(np.frombuffer(frame, "<i2").astype(int)).max() > 300:
                loud.append(now())

        call.audio_to(hear)
        old = call.utterance()
        old.add(tone(call.rate_hz, 10.0, 600))
        old.finish()
        while not loud:  # noqa: ASYNC110 - frames come 50 times a second
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        decided, heard_ms = now(), await call.stop()
        with pytest.raises(Interrupted):
            await old.heard()
        await asyncio.sleep(0.6)  # a lead, and the way through the switch and back
        dialect = call._session.dialect
        return round((loud[-1] - decided) * 1000), heard_ms, 0 if dialect.clear_text else dialect.lead_ms

    agent = Doing(cut)
    async with scene(agent, simulated="audio_stream") as here:
        await placed(here)
        sounded_ms, heard_ms, lead_ms = await agent.result()
        assert sounded_ms <= lead_ms + 150  # the way through the switch, and back
        assert 300 <= heard_ms <= 1500
