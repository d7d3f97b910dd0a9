"""Whole calls with Gemini Live and with ElevenLabs: a simulated switch, the gateway's desk, the agent, a strict fake.

What the simulated caller heard is the judge.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tests.agents.fakes import elevenlabs as fake_elevenlabs
from tests.agents.fakes import gemini_live as fake_gemini
from tests.agents.fakes.sockets import FakeServer, tone
from tests.support.running import Running, running

from dueto.agents.elevenlabs import elevenlabs
from dueto.agents.gemini_live import gemini_live
from dueto.agents.own_tools import load_tools
from dueto.agents.ports import Connect
from dueto.agents.provider import ProviderAgent
from dueto.call import CallRules, Destination
from dueto.sim import Caller, Endpoint, Line, SimCall

pytestmark = [pytest.mark.at_once, pytest.mark.usefixtures("patient_switch")]

DESTINATIONS = {"sales": Destination("sales", "user/1002")}
TOOLS = ("transfer_call", "end_call")
FAKES = ["gemini", "elevenlabs"]
on_both = pytest.mark.parametrize("kind", FAKES)


@dataclass
class Scene:
    """A fake provider that follows a script, and a line to it."""

    fake: Any
    here: Running
    agent: ProviderAgent

    async def call(self, talk: Callable[[Line], Awaitable[None]], **switch: Any) -> SimCall:
        async with self.here.switch(**switch) as sim:
            call = await sim.place(Caller(script=talk))
            await call.done()
            await call.released()
        return call

    async def said(self, text: str, line: Line) -> None:
        """Wait until the agent has said that, and the caller heard the last of it."""
        while ("agent", text) not in self.transcript:
            await self.here.until_noted("transcript", times=len(self.transcript) + 1)
        await line.hears_silence(100)

    def noted(self, name: str) -> list[dict[str, Any]]:
        return [dict(fields) for _, entry, fields in self.here.journal if entry == name]

    @property
    def transcript(self) -> list[tuple[str, str]]:
        return [(fields["who"], fields["text"]) for fields in self.noted("transcript")]


def _provider(kind: str, script: Any) -> tuple[FakeServer, Callable[[], Connect]]:
    if kind == "gemini":
        server = fake_gemini.FakeGemini(script, speed=8)
        return server, lambda: gemini_live(api_key=fake_gemini.KEY, base_url=f"http://127.0.0.1:{server.port}")
    agent = fake_elevenlabs.Agent(output_format="ulaw_8000", input_format="ulaw_8000", tools=frozenset(TOOLS))
    eleven = fake_elevenlabs.FakeElevenLabs(script, agent, speed=8)
    return eleven, lambda: elevenlabs(
        agent_id=fake_elevenlabs.AGENT, api_key=fake_elevenlabs.KEY, base_url=eleven.base_url
    )


@contextlib.asynccontextmanager
async def scene(kind: str, script: Any, **house: Any) -> AsyncIterator[Scene]:
    fake, connect = _provider(kind, script)
    await fake.start()
    agent = ProviderAgent(connect(), tools=load_tools(TOOLS))
    try:
        async with asyncio.timeout(40), running(agent, destinations=DESTINATIONS, **house) as here:
            yield Scene(fake, here, agent)
        assert fake.complaints == []
    finally:
        await fake.aclose()


def audible_ms(call: SimCall, hz: float) -> int:
    """How much of a tone the caller heard, in frames of 20 ms."""
    frames = np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50).astype(np.float64)
    at = np.arange(frames.shape[1]) / call.rate_hz
    strength = np.abs(frames @ np.exp(-2j * np.pi * hz * at)) / frames.shape[1]
    return int((strength > 1000).sum()) * 20


async def opens(session: Any, text: str, ms: int, hz: float) -> bool:
    """The model's greeting, in each provider's way."""
    if isinstance(session, fake_gemini.Session):
        assert "Greet the caller" in await session.told()
    return bool(await session.says(text, ms, hz=hz))


def outcome(brought: Any) -> str:
    return str(brought["output"] if isinstance(brought, dict) else brought[0])


@on_both
async def test_a_caller_is_transferred_to_a_busy_department_and_said_goodbye(kind: str) -> None:
    brought: list[str] = []

    async def script(session: Any) -> None:
        await opens(session, "Good morning, this is Dueto.", 400, 500)
        await session.hears("Sales, please.")
        brought.append(outcome(await session.asks("transfer_call", {"destination": "sales", "reason": "an invoice"})))
        await session.says("Sales is busy. Goodbye.", 400, hz=900)
        brought.append(outcome(await session.asks("end_call", {"reason": "done"})))

    async def talk(line: Line) -> None:
        await at.said("Good morning, this is Dueto.", line)
        await line.say(tone(200, 8000, 300))
        await line.until_hangup()

    async with scene(kind, script) as at:
        call = await at.call(talk, endpoints={"user/1002": Endpoint("busy", answer_after_s=0.1)})
        assert audible_ms(call, 500) == pytest.approx(400, abs=40)
        assert audible_ms(call, 900) == pytest.approx(400, abs=40)  # the goodbye was heard before the end
        assert at.transcript == [
            ("agent", "Good morning, this is Dueto."),
            ("caller", "Sales, please."),
            ("agent", "Sales is busy. Goodbye."),
        ]
        assert "busy" in brought[0]
        assert call.hangup_cause == "NORMAL_CLEARING"
        assert {note["name"] for note in at.noted("tool")} == {"transfer_call", "end_call"}
        turns = at.noted("turn")
        assert turns
        assert all(0 < turn["latency_ms"] < 10_000 for turn in turns)
        session = at.fake.sessions[0]
        assert audible_up(session, kind, 300) == pytest.approx(200, abs=60)


def audible_up(session: Any, kind: str, hz: float) -> int:
    """How much of the caller's tone came to the provider."""
    from dueto.audio.g711 import ulaw_decode

    rate_hz, pcm = (16000, bytes(session.audio)) if kind == "gemini" else (8000, ulaw_decode(bytes(session.audio)))
    size = rate_hz // 50
    samples = np.frombuffer(pcm, np.int16)
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    strength = np.abs(frames @ np.exp(-2j * np.pi * hz * np.arange(size) / rate_hz)) / size
    return int((strength > 1000).sum()) * 20


@on_both
async def test_a_caller_who_interrupts_is_heard_and_the_transcript_says_how_far_it_came(kind: str) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"

    async def script(session: Any) -> None:
        session.server.speed = 200  # far ahead of what is heard, on a busy machine too
        assert not await opens(session, text, 8000, 500)
        session.server.speed = 8
        await session.hears("Stop!")
        await session.says("Yes?", 200, hz=900)

    async def talk(line: Line) -> None:
        await line.hears_speech()
        await line.wait(0.4)
        await line.say(tone(300, 8000, 300))
        await at.said("Yes?", line)

    async with scene(kind, script) as at:
        call = await at.call(talk)
        heard_ms = audible_ms(call, 500)
        assert 0 < heard_ms < 7800  # it was cut while the caller still spoke
        assert audible_ms(call, 900) == pytest.approx(200, abs=40)
        (cut,) = [note for note in at.noted("transcript") if note.get("interrupted")]
        assert cut["heard_ms"] == pytest.approx(heard_ms, abs=100)
        assert cut["text"].startswith("one")
        assert cut["text"] != text
        assert text.startswith(cut["text"].removesuffix("...").strip())


@on_both
async def test_a_key_that_is_pressed_cuts_the_model_and_is_answered(kind: str) -> None:
    async def script(session: Any) -> None:
        first = asyncio.ensure_future(opens(session, "Press one for sales, or just say what you want.", 5000, 500))
        await session.hearing.ms(20)  # by then the greeting was asked for
        text = await session.told()
        assert "pressed 1 #" in text
        first.cancel()
        if kind == "gemini":
            session.turn_over()
        else:
            session.interrupts()
        await session.says("Sales.", 300, hz=900)

    async def talk(line: Line) -> None:
        await line.hears_speech()
        await line.press("1#", ms=80)
        await at.said("Sales.", line)

    async with scene(kind, script) as at:
        call = await at.call(talk)
        assert audible_ms(call, 500) < 4000
        assert audible_ms(call, 900) == pytest.approx(300, abs=40)


@on_both
async def test_a_provider_that_is_slower_than_its_speech_is_heard_to_the_end(kind: str) -> None:
    async def script(session: Any) -> None:
        session.server.speed = 0.8
        await opens(session, "Good morning.", 600, 500)

    async def talk(line: Line) -> None:
        await at.said("Good morning.", line)

    async with scene(kind, script) as at:
        call = await at.call(talk)
        assert audible_ms(call, 500) == pytest.approx(600, abs=60)
        assert at.transcript == [("agent", "Good morning.")]


async def test_a_gemini_session_moves_in_mid_call_and_the_caller_notices_nothing() -> None:
    async def script(session: fake_gemini.Session) -> None:
        if session.resumed:
            await session.hears("Are you still there?")
            await session.says("I am.", 300, hz=900)
        else:
            await opens(session, "Good morning.", 400, 500)
            await session.goes_away(50)

    async with scene("gemini", script) as at:

        async def talk(line: Line) -> None:
            await line.hears_speech()
            await at.here.until_noted("provider_rolled_over")
            await line.say(tone(300, 8000, 300))
            await at.said("I am.", line)

        call = await at.call(talk)
        assert audible_ms(call, 500) == pytest.approx(400, abs=40)
        assert audible_ms(call, 900) == pytest.approx(300, abs=40)
        assert at.transcript == [
            ("agent", "Good morning."),
            ("caller", "Are you still there?"),
            ("agent", "I am."),
        ]


@on_both
@pytest.mark.parametrize("trouble", ["key", "garbage", "drop", "quota"])
async def test_whatever_goes_wrong_is_told_in_one_sentence_and_the_caller_goes_on(kind: str, trouble: str) -> None:
    async def script(session: Any) -> None:
        match trouble:
            case "garbage":
                session.connection.send_text(b"{nonsense")
            case "drop":
                session.connection.drop()

    rules = CallRules(when_failed="return_to_dialplan")
    async with scene(kind, script, rules=rules) as at:
        if trouble == "key":
            at.fake.key = "another"
        elif trouble == "quota":
            at.fake.refuse = (
                (1002, "This request exceeds your quota limit.") if kind == "elevenlabs" else fake_gemini.QUOTA
            )

        async def talk(line: Line) -> None:
            await line.until_hangup()

        call = await at.call(talk)
        failed = at.noted("provider_failed")[0]
        assert failed["fault"] == {"key": "auth", "garbage": "protocol", "drop": "dropped", "quota": "quota"}[trouble]
        assert "\n" not in failed["error"]
        assert call.channel.variables.get("dueto_result") == "agent_failed"
        written = str(at.here.journal)
        assert fake_gemini.KEY not in written
        assert fake_elevenlabs.KEY not in written
