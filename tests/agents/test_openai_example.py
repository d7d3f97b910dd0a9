"""The examples for OpenAI Realtime run as they stand there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agents.fakes.openai_realtime import KEY, Answer, fake_openai
from tests.support.running import running

from dueto.app.gateway import Gateway
from dueto.app.settings import load_settings
from dueto.sim import Caller, Line, Switch

pytestmark = pytest.mark.at_once

SECRET = "0123456789abcdef0123456789abcdef"
EXAMPLES = Path(__file__).parents[2] / "examples"


async def hears_two_answers(line: Line) -> None:
    await line.hears_speech()
    await line.hears_silence(300)


@pytest.fixture(autouse=True, scope="module")
def _beside_them_with_the_key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        patch.setenv("OPENAI_API_KEY", KEY)
        yield


async def test_the_example_in_python_is_a_secretary_with_a_tool() -> None:
    import openai_realtime as example

    script = [Answer("Acme, good day!", 200, tool=("opening_hours", '{"day":"Monday"}')), Answer("From nine.", 200)]
    async with fake_openai(script) as server:
        async with running(example.secretary(url=server.url)) as here, here.switch() as switch:
            call = await switch.place(Caller(script=hears_two_answers))
            await call.done()
        there = server.conversations[0]
    assert "from nine to five" in next(iter(there.outputs.values()))
    assert "Acme, good day!" in there.lines[0][1]


async def test_the_example_as_a_configuration_serves_a_call() -> None:
    script = [Answer("Acme, good day!", 200, tool=("opening_hours", '{"day":"Sunday"}')), Answer("Closed.", 200)]
    async with fake_openai(script) as server:
        environment = {
            "DUETO_MEDIA__SECRET": SECRET,
            "DUETO_MEDIA__LISTEN": "127.0.0.1:0",
            "DUETO_CONTROL__LISTEN": "127.0.0.1:0",
            "DUETO_METRICS__LISTEN": "",
            "DUETO_AGENTS__SECRETARY__BASE_URL": server.url,
        }
        async with Gateway(load_settings(EXAMPLES / "openai_realtime.toml", {}, environment)) as gateway:
            url = f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=8000&token={{token}}"
            async with Switch(f"127.0.0.1:{gateway.control_port}", url, secret=SECRET) as switch:
                call = await switch.place(Caller(script=hears_two_answers))
                await call.done()
        there = server.conversations[0]
    assert "closed" in next(iter(there.outputs.values()))
    assert {tool["name"] for tool in there.session["tools"]} == {"transfer_call", "end_call", "opening_hours"}
