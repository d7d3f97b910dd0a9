"""A provider in trouble, through the whole gateway: the log says it in one sentence, the caller gets the fall-back, and
nothing leaks."""

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from tests.agents.fakes.openai_realtime import KEY, Answer, fake_openai
from tests.app.test_gateway import settings, switch_for
from tests.call.test_transfers import loudness

from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.call import Call
from dueto.sim import Caller, Line, SimCall, tone

pytestmark = pytest.mark.at_once

LOG = io.StringIO()
"Of all tests here: they run at once."
APOLOGY_HZ, SPARE_HZ = 500.0, 900.0
WRONG_KEY = "sk-wrong-hunter2"
NO_MORE = b'{"error":{"message":"You exceeded your quota"}}'


async def spare(call: Call) -> None:
    """Takes over, says one thing, and is done."""
    call.note("spare_found", lines=[line.text for line in call.transcript])
    await call.say(tone(call.rate_hz, 0.4, SPARE_HZ))


class Whistle:
    """A mouth that needs little time."""

    async def speak(self, text: str, rate_hz: int) -> bytes:
        return tone(rate_hz, 0.4, APOLOGY_HZ)


def told(call: SimCall, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, LOG.getvalue().splitlines())
    return [line for line in lines if (line.get("call"), line["event"]) == (call.unique_id, event)]


def hears(call: SimCall, hz: float) -> bool:
    """Whether the caller heard that tone for 200 ms."""
    fifths = [call.heard[at : at + 6400] for at in range(0, len(call.heard), 6400)]
    return max(loudness(part, hz, 16000) for part in fifths) > 0.8


def timeline_in(folder: str) -> str:
    (path,) = Path(folder).rglob("*.jsonl")
    return path.read_text()


def gateway_settings(url: str, folder: str, **agent: Any) -> Any:
    configure_logs("json", LOG, level="info")
    front = {"use": "openai", "api_key": KEY, "base_url": url, "fallbacks": [f"{__name__}:spare"]}
    return settings(agent={"use": "front"}, agents={"front": front | agent}, records={"timelines": folder})


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
        ({}, {}, [Answer(text="Good morning.", ms=400, garbage=b"\xff\xfe no json")], "protocol", ""),
        ({}, {}, [Answer(text="Good morning.", ms=400, breaks=True)], "dropped", ""),
    ],
    ids=["wrong key", "quota", "unknown model", "malformed answer", "connection broken"],
)
async def test_the_log_says_it_in_one_sentence_and_the_caller_gets_the_fall_back(
    server: dict[str, Any],
    agent: dict[str, Any],
    script: list[Answer],
    fault: str,
    sentence: str,
) -> None:
    async def script_of_caller(line: Line) -> None:
        await line.until_hangup()

    with TemporaryDirectory() as folder:
        async with fake_openai(script, **server) as openai:
            prepared = gateway_settings(openai.url, folder, **agent)
            async with Gateway(prepared, mouth=Whistle()) as gateway, switch_for(gateway) as switch:
                call = await switch.place(Caller(script=script_of_caller, rate_hz=16000, unique_id=str(uuid4())))
                await call.over()
        timeline = timeline_in(folder)
    (replaced,) = told(call, "agent_replaced")
    assert (replaced["level"], replaced["name"], replaced["fault"]) == ("warning", "front", fault)
    assert replaced["by"].endswith(":spare")
    assert sentence in replaced["error"]
    assert len(replaced["error"]) < 300
    assert "\n" not in replaced["error"]
    assert told(call, "agent_failed") == []
    assert told(call, "agent_traceback") == []
    assert hears(call, SPARE_HZ), "the caller was left with somebody who spoke"
    assert hears(call, APOLOGY_HZ) == bool(script), "and heard a word of apology if he had been spoken to"
    events = [json.loads(line)["event"] for line in timeline.splitlines()]
    assert events.index("provider_failed") < events.index("agent_replaced") < events.index("spare_found")
    assert events[-1] == "call_ended"
    for secret in (KEY, WRONG_KEY, "hunter2"):
        assert secret not in LOG.getvalue()
        assert secret not in timeline


async def test_where_nobody_takes_over_the_caller_goes_back_to_the_dialplan() -> None:
    with TemporaryDirectory() as folder:
        async with fake_openai(refuses=(401, b"{}")) as openai:
            prepared = gateway_settings(openai.url, folder, fallbacks=[])
            async with Gateway(prepared, mouth=Whistle()) as gateway, switch_for(gateway) as switch:
                call = await switch.place(Caller(unique_id=str(uuid4())))
                await call.over()
    assert call.channel.variables["dueto_result"] == "agent_failed"
    (failed,) = told(call, "agent_failed")
    assert failed["error"].startswith("ProviderFailed: OpenAI does not accept the API key")
    assert told(call, "agent_traceback") == [], "it is no bug: one sentence is enough"
