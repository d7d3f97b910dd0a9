"""A provider in trouble, through the whole gateway: the log says it in one sentence, the caller gets the fall-back, and
nothing leaks."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.agents.fakes.openai_realtime import KEY, Answer, fake_openai
from tests.app.test_gateway import settings, switch_for
from tests.call.test_transfers import loudness

from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.call import Call
from dueto.sim import Caller, Line, tone

SPARE_HZ = 900.0
WRONG_KEY = "sk-wrong-hunter2"
NO_MORE = b'{"error":{"message":"You exceeded your quota"}}'


async def spare(call: Call) -> None:
    """Takes over, says one thing, and is done."""
    call.note("spare_found", lines=[line.text for line in call.transcript])
    await call.say(tone(call.rate_hz, 0.5, SPARE_HZ))


class Whistle:
    """A mouth that needs little time."""

    async def speak(self, text: str, rate_hz: int) -> bytes:
        return tone(rate_hz, 0.2, 500.0)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs("json", stream, level="info")
    yield stream
    configure_logs("json", sys.stdout)


def told(log: io.StringIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == event]


def gateway_settings(url: str, folder: Path, **agent: Any) -> Any:
    front = {"use": "openai", "api_key": KEY, "base_url": url, "fallbacks": [f"{__name__}:spare"]}
    return settings(
        agent={"use": "front"}, agents={"front": front | agent}, records={"timelines": str(folder / "timelines")}
    )


@pytest.mark.parametrize(
    ("server", "agent", "script", "fault", "sentence"),
    [
        ({}, {"api_key": WRONG_KEY}, [], "auth", "API key"),
        (
            {"refuses": (429, NO_MORE)},
            {},
            [],
            "quota",
            "exceeded your quota",
        ),
        ({"refuses": (404, b"{}")}, {"model": "gpt-nonsense"}, [], "model", "no such"),
        ({}, {}, [Answer(text="Good morning.", ms=3000, garbage=b"\xff\xfe no json")], "protocol", ""),
        ({}, {}, [Answer(text="Good morning.", ms=3000, breaks=True)], "dropped", ""),
    ],
    ids=["wrong key", "quota", "unknown model", "malformed answer", "connection broken"],
)
async def test_the_log_says_it_in_one_sentence_and_the_caller_gets_the_fall_back(
    log: io.StringIO,
    tmp_path: Path,
    server: dict[str, Any],
    agent: dict[str, Any],
    script: list[Answer],
    fault: str,
    sentence: str,
) -> None:
    async def script_of_caller(line: Line) -> None:
        await line.until_hangup()

    async with fake_openai(script, **server) as openai:
        async with Gateway(gateway_settings(openai.url, tmp_path, **agent)) as gateway, switch_for(gateway) as switch:
            call = await switch.place(Caller(script=script_of_caller, rate_hz=16000))
            await call.over()
    (replaced,) = told(log, "agent_replaced")
    assert (replaced["level"], replaced["name"], replaced["fault"]) == ("warning", "front", fault)
    assert replaced["by"].endswith(":spare")
    assert sentence in replaced["error"]
    assert len(replaced["error"]) < 300
    assert "\n" not in replaced["error"]
    assert told(log, "agent_failed") == []
    assert told(log, "agent_traceback") == []
    fifths = [call.heard[at : at + 6400] for at in range(0, len(call.heard), 6400)]
    assert max(loudness(part, SPARE_HZ, 16000) for part in fifths) > 0.8, "the caller was left with somebody who spoke"
    (path,) = (tmp_path / "timelines").rglob("*.jsonl")
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events.index("provider_failed") < events.index("agent_replaced") < events.index("spare_found")
    assert events[-1] == "call_ended"
    for secret in (KEY, WRONG_KEY, "hunter2"):
        assert secret not in log.getvalue()
        assert secret not in path.read_text()


async def test_where_nobody_takes_over_the_caller_goes_back_to_the_dialplan(log: io.StringIO, tmp_path: Path) -> None:
    async with fake_openai(refuses=(401, b"{}")) as openai:
        async with Gateway(gateway_settings(openai.url, tmp_path, fallbacks=[]), mouth=Whistle()) as gateway:
            async with switch_for(gateway) as switch:
                call = await switch.place(Caller())
                await call.over()
    assert call.channel.variables["dueto_result"] == "agent_failed"
    (failed,) = told(log, "agent_failed")
    assert failed["error"].startswith("ProviderFailed: OpenAI does not accept the API key")
    assert told(log, "agent_traceback") == [], "it is no bug: one sentence is enough"
