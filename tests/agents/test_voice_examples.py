"""The examples for Gemini Live and for ElevenLabs run as they stand there."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.agents.fakes import elevenlabs as fake_elevenlabs
from tests.agents.fakes import gemini_live as fake_gemini
from tests.support.running import running

from dueto.app.gateway import Gateway
from dueto.app.settings import load_settings
from dueto.sim import Caller, Line, Switch

pytestmark = pytest.mark.at_once

SECRET = "0123456789abcdef0123456789abcdef"
EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = {
    "DUETO_MEDIA__SECRET": SECRET,
    "DUETO_MEDIA__LISTEN": "127.0.0.1:0",
    "DUETO_CONTROL__LISTEN": "127.0.0.1:0",
    "DUETO_METRICS__LISTEN": "",
}


async def hears_two_answers(line: Line) -> None:
    await line.hears_speech()
    await line.hears_silence(300)


async def served(toml: str, environment: dict[str, str]) -> None:
    """Serve one call by a configuration."""
    settings = load_settings(EXAMPLES / toml, {}, ENVIRONMENT | environment)
    async with asyncio.timeout(20), Gateway(settings) as gateway:
        url = f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=8000&token={{token}}"
        async with Switch(f"127.0.0.1:{gateway.control_port}", url, secret=SECRET) as switch:
            call = await switch.place(Caller(script=hears_two_answers))
            await call.done()


async def served_by(agent: Any) -> None:
    """Serve one call by an agent in Python."""
    async with asyncio.timeout(20), running(agent) as here, here.switch() as switch:
        call = await switch.place(Caller(script=hears_two_answers))
        await call.done()


@pytest.fixture(autouse=True, scope="module")
def _beside_them_with_the_keys() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        patch.setenv("GEMINI_API_KEY", fake_gemini.KEY)
        patch.setenv("ELEVENLABS_API_KEY", fake_elevenlabs.KEY)
        yield


@pytest.mark.parametrize("way", ["python", "toml"])
async def test_gemini_live_looks_an_order_up(way: str) -> None:
    brought: list[Any] = []

    async def script(session: fake_gemini.Session) -> None:
        assert "exactly these words: Acme, good day! How can I help you?" in await session.told()
        await session.says("Acme, good day!", 200, done=False)
        brought.append(await session.asks("lookup_order", {"number": 4711}))
        brought.append(await session.asks("lookup_order", {"number": 1001}))
        await session.says("It left on Monday.", 200)

    server = fake_gemini.FakeGemini(script)
    await server.start()
    base_url = f"http://127.0.0.1:{server.port}"
    try:
        if way == "python":
            import gemini_live as example

            await served_by(example.secretary(base_url=base_url))
        else:
            await served("gemini_live.toml", {"DUETO_AGENTS__SECRETARY__BASE_URL": base_url})
    finally:
        await server.aclose()
    assert server.complaints == []
    assert "left the house on Monday" in str(brought[0])
    assert "there is no order of that number" in str(brought[1])
    assert server.sessions[0].setup["generationConfig"]["speechConfig"]["voiceConfig"]


@pytest.mark.parametrize("way", ["python", "toml"])
async def test_an_elevenlabs_agent_answers(way: str) -> None:
    async def script(session: fake_elevenlabs.Session) -> None:
        await session.says(session.first_message, 200)

    agent = fake_elevenlabs.Agent(
        output_format="ulaw_8000",
        input_format="ulaw_8000",
        variables=frozenset({"company", "caller_number"}),
        tools=frozenset({"transfer_call", "end_call"}),
    )
    server = fake_elevenlabs.FakeElevenLabs(script, agent)
    await server.start()
    try:
        if way == "python":
            import elevenlabs_agent as example

            await served_by(example.secretary(fake_elevenlabs.AGENT, base_url=server.base_url))
        else:
            keys = {"BASE_URL": server.base_url, "AGENT_ID": fake_elevenlabs.AGENT}
            await served("elevenlabs_agent.toml", {f"DUETO_AGENTS__SECRETARY__{key}": keys[key] for key in keys})
    finally:
        await server.aclose()
    assert server.complaints == []
    assert server.sessions[0].initiation["dynamic_variables"]["company"] == "Acme"
