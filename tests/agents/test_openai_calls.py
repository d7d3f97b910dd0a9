"""Whole calls with OpenAI Realtime on real sockets: simulated switch, both legs, the gateway, a strict server over TLS.

What the simulated caller really heard is the judge.
"""

import asyncio
import io
import json
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from tests.agents.fakes.openai_realtime import KEY, Answer, FakeOpenAI, fake_openai
from tests.support.running import Running, running
from tests.support.tls import client_context

from dueto.agents.openai_realtime import openai_realtime
from dueto.agents.own_tools import load_tools
from dueto.agents.provider import ProviderAgent
from dueto.app.gateway import Gateway
from dueto.app.logs import configure_logs
from dueto.app.settings import load_settings
from dueto.call import CallRules, Destination
from dueto.sim import Caller, Endpoint, Line, SimCall, Switch, tone

pytestmark = pytest.mark.at_once

SECRET = "0123456789abcdef0123456789abcdef"
LOG = io.StringIO()
"Of all tests here: they run at once."


def agent_of(server: FakeOpenAI, *tools: str, **options: Any) -> ProviderAgent:
    connect = openai_realtime(url=server.url, api_key=KEY, ssl=client_context(), **options)
    return ProviderAgent(connect, tools=load_tools(tools))


def narrowband(here: Running, **more: Any) -> Switch:
    """A switch whose stream runs at 8 kHz: G.711 all the way."""
    url = (
        f"ws://127.0.0.1:{here.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=8000&mix=mono&token={{token}}"
    )
    return here.switch(media_url=url, **more)


def utterances_ms(call: SimCall) -> list[int]:
    """What the caller heard: how much of each sound, in frames of 20 ms; gaps below 200 ms, of a machine that was busy,
    do not end it."""
    heard = np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50)
    loud = np.flatnonzero(np.abs(heard).max(axis=1) > 500)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > 10)
    groups = np.split(loud, breaks + 1)
    return [len(group) * 20 for group in groups]


async def test_a_greeting_and_a_turn_are_heard_and_written_down() -> None:
    async def talk(line: Line) -> None:
        await line.hears_speech()
        await line.hears_silence(240)
        await line.say(tone(8000, 0.3, 300.0))
        await line.hears_speech()
        await line.hears_silence(240)

    script = [Answer("Acme, good day.", 500), Answer("On Monday at nine.", 300)]
    async with fake_openai(script, tls=True, caller_says="When do you open?") as server:
        async with running(agent_of(server, greeting="Acme, good day.")) as here:
            async with here.switch(record=True) as switch:
                call = await switch.place(Caller(script=talk))
                await call.done()
                await here.until_noted("call_ended")
        there = await server.conversation()
    assert there.session["audio"]["input"]["format"]["type"] == "audio/pcm"
    lines = [(fields["who"], fields["text"]) for _, name, fields in here.journal if name == "transcript"]
    assert lines == [("agent", "Acme, good day."), ("caller", "When do you open?"), ("agent", "On Monday at nine.")]
    assert utterances_ms(call) == [pytest.approx(500, abs=60), pytest.approx(300, abs=60)]
    turn = here.fields("turn")
    assert 200 < int(str(turn["latency_ms"])) < 3000
    assert here.fields("provider_ended")["output_audio_tokens"] == 16
    assert "agent_failed" not in here.names()


@pytest.mark.parametrize("rate_hz", [8000, 16000])
async def test_the_model_is_cut_exactly_where_the_caller_stopped_hearing_it(rate_hz: int) -> None:
    async def talk(line: Line) -> None:
        await line.hears_speech()
        await line.wait(0.5)
        await line.say(tone(8000, 0.4, 300.0))
        await line.hears_speech()  # it was silenced while he spoke; the answer needs 300 ms of his silence
        await line.hears_silence(240)

    script = [Answer("One two three four five six.", 6000, pace=0.1), Answer("Yes?", 300)]
    async with fake_openai(script, tls=True) as server:
        async with running(agent_of(server)) as here:
            make = narrowband if rate_hz == 8000 else Running.switch
            async with make(here, record=True) as switch:
                call = await switch.place(Caller(script=talk))
                await call.done()
                await here.until_noted("call_ended")
        there = await server.conversation()
    cut = next(iter(there.items.values()))
    assert cut.truncated_ms is not None
    assert 500 < cut.truncated_ms < 2500
    heard_ms = utterances_ms(call)
    assert heard_ms[0] == pytest.approx(cut.truncated_ms, abs=60)
    assert heard_ms[1] == pytest.approx(300, abs=60)
    assert len(there.of("conversation.item.truncate")) == 1


async def test_a_transfer_by_the_model_happens_on_the_switch_behind_what_it_said() -> None:
    async def talk(line: Line) -> None:
        await line.hears_speech()
        await line.bridged()
        await here.until_noted("bridged")  # until its event is here, up to 20 ms of him still are
        await line.say(tone(8000, 0.3, 300.0))
        await line.hears_speech()
        await line.hears_silence(240)

    asks = Answer("I put you through.", 400, tool=("transfer_call", '{"destination":"sales","reason":"wants to buy"}'))
    sales = Endpoint(hangs_up_after_s=0.8, answer_after_s=0.3)
    async with fake_openai([asks, Answer("Anything else?", 300)], tls=True) as server:
        async with (
            running(
                agent_of(server, "transfer_call", "end_call"),
                destinations={"sales": Destination("sales", "user/2001")},
            ) as here,
            narrowband(here, record=True, endpoints={"user/2001": sales}) as switch,
        ):
            call = await switch.place(Caller(script=talk))
            await call.done()
            await here.until_noted("call_ended")
        there = await server.conversation()
    assert here.fields("transfer")["outcome"] == "bridged"
    assert utterances_ms(call)[0] == pytest.approx(400, abs=60)
    output = json.loads(next(iter(there.outputs.values())))
    assert "connected" in json.dumps(output) or "bridged" in json.dumps(output)
    assert not np.abs(np.frombuffer(bytes(there.audio), np.int16)).max() > 500, "he said it to sales alone"
    assert utterances_ms(call)[-1] == pytest.approx(300, abs=60)


async def test_the_model_ends_the_call_when_its_goodbye_was_heard() -> None:
    async def talk(line: Line) -> None:
        await line.until_hangup()

    asks = Answer("Goodbye.", 1200, tool=("end_call", '{"reason":"all is said"}'))
    async with fake_openai([asks], tls=True) as server:
        async with running(agent_of(server, "end_call")) as here, narrowband(here, record=True) as switch:
            call = await switch.place(Caller(script=talk))
            await call.done()
            await here.until_noted("call_ended")
    assert utterances_ms(call) == [pytest.approx(1200, abs=60)]
    assert call.hangup_cause == "NORMAL_CLEARING"
    assert not any(happening.leg == "caller" and happening.name == "hangup" for happening in call.events)


async def test_keys_reach_the_model_and_a_limit_is_passed_unnoticed() -> None:
    async def talk(line: Line) -> None:
        await line.hears_speech()
        await line.hears_silence(240)
        await line.press("42#", ms=60)
        await line.hears_speech()
        await line.hears_silence(240)

    async with fake_openai([Answer("Your number?", 400), Answer("Thank you.", 400)], tls=True) as server:
        async with running(agent_of(server, session_s=0.5)) as here, narrowband(here, record=True) as switch:
            call = await switch.place(Caller(script=talk))
            await call.done()
            await here.until_noted("call_ended")
        lines = [line for there in server.conversations for line in there.lines]
    assert "provider_rolled_over" in here.names()
    assert any("42#" in text for role, text in lines if role == "user")
    assert utterances_ms(call) == [pytest.approx(400, abs=60)] * 2


TROUBLES: list[tuple[dict[str, Any], list[Answer], str]] = [
    ({"refuses": (401, json.dumps({"error": {"message": f"Incorrect API key: {KEY}"}}).encode())}, [], "auth"),
    ({"refuses": (429, b'{"error":{"message":"You exceeded your current quota"}}')}, [], "quota"),
    ({}, [Answer(ms=400, garbage=b'{"type":"response.output_audio.delta","delta":7}')], "protocol"),
    ({}, [Answer(ms=400, breaks=True)], "dropped"),
]


@pytest.mark.parametrize(
    ("options", "script", "fault"), TROUBLES, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_whatever_the_provider_does_the_caller_gets_somebody_and_the_log_one_sentence_without_a_key(
    options: dict[str, Any], script: list[Answer], fault: str
) -> None:
    async def talk(line: Line) -> None:
        await line.bridged(timeout=20)
        await line.wait(0.1)

    configure_logs("json", LOG)
    async with fake_openai(script, **options) as server:
        settings = load_settings(
            None,
            {
                "control": {"listen": "127.0.0.1:0"},
                "media": {"listen": "127.0.0.1:0", "secret": SECRET, "dialect": "audio_stream-binary"},
                "metrics": {"listen": ""},
                "agent": {"use": "secretary"},
                "agents": {
                    "secretary": {
                        "use": "openai",
                        "api_key": KEY,
                        "base_url": server.url,
                        "connect_s": 0.5,
                        "fallbacks": ["operator"],
                        "apology": "",
                    }
                },
                "destinations": {"operator": {"dial": "user/1000"}},
            },
            {},
        )
        async with Gateway(settings) as gateway:
            url = f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=8000&token={{token}}"
            async with Switch(
                f"127.0.0.1:{gateway.control_port}", url, secret=SECRET, endpoints={"user/1000": Endpoint()}
            ) as switch:
                call = await switch.place(Caller(script=talk, unique_id=str(uuid4())))
                await call.done()
                await gateway.desk.empty()
    lines = [line for line in map(json.loads, LOG.getvalue().splitlines()) if line.get("call") == call.unique_id]
    failed = [line for line in lines if line["event"] == "provider_failed"]
    assert [line["fault"] for line in failed] == [fault]
    assert failed[0]["error"].startswith(("OpenAI", "the connection to OpenAI"))
    assert call.bridged_to
    assert KEY not in LOG.getvalue()
    assert KEY[:8] not in LOG.getvalue()
    assert not [line for line in lines if line["event"] in ("task_failed", "agent_traceback")]


async def test_the_hangup_ends_the_conversation_with_the_provider_at_once() -> None:
    async def talk(line: Line) -> None:
        await line.hears_speech()

    async with fake_openai([Answer(ms=20_000, pace=1.0)], tls=True) as server:
        async with running(agent_of(server), rules=CallRules()) as here, narrowband(here) as switch:
            call = await switch.place(Caller(script=talk))
            await call.done()
            there = await server.conversation()
            await asyncio.wait_for(there.gone.wait(), 10)
            await here.until_noted("call_ended")
    assert "agent_failed" not in here.names()
