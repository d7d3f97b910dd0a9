"""An ElevenLabs agent against its strict fake: formats, interruptions by id, tools, and all that goes wrong."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.agents.fakes.elevenlabs import AGENT, ALL_OVERRIDES, KEY, Agent, FakeElevenLabs, Script, Session
from tests.agents.fakes.sockets import tone
from tests.agents.fakes.talking import Talking, talking

from dueto.agents import elevenlabs
from dueto.agents.elevenlabs import ElevenLabs, ElevenLabsProfile, addresses_of
from dueto.agents.elevenlabs import connect as connect_to
from dueto.agents.ports import CallerBegan, CallerStopped, Cut, Line, Opening, Spoke, SpokeLast, ToolAsked, Transcribed
from dueto.audio.g711 import ulaw_decode, ulaw_encode
from dueto.errors import ProviderFailed

pytestmark = pytest.mark.at_once

OPENING = Opening(8000, facts={"caller_number": "+4930123"})


@pytest.fixture(autouse=True, scope="module")
def _soon_over() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elevenlabs, "ANSWER_OVER_S", 0.05)
        yield


@contextlib.asynccontextmanager
async def fake(script: Script, agent: Agent | None = None, **more: Any) -> AsyncIterator[FakeElevenLabs]:
    server = FakeElevenLabs(script, agent, **more)
    await server.start()
    try:
        async with asyncio.timeout(20):
            yield server
    finally:
        await server.aclose()


async def connect(profile: ElevenLabsProfile, key: str, opening: Opening) -> ElevenLabs:
    return await connect_to(profile, addresses_of(profile, key), opening)


def profile(server: FakeElevenLabs, **more: Any) -> ElevenLabsProfile:
    values = {"use": "elevenlabs", "agent_id": AGENT, "base_url": server.base_url}
    return ElevenLabsProfile.model_validate(values | more)


@contextlib.asynccontextmanager
async def conversation(
    script: Script, agent: Agent | None = None, opening: Opening = OPENING, *, key: str = KEY, **settings: Any
) -> AsyncIterator[tuple[FakeElevenLabs, Talking]]:
    async with fake(script, agent) as server:
        async with talking(await connect(profile(server, **settings), key, opening)) as told:
            yield server, told
        assert server.complaints == []


async def silence(session: Session) -> None:
    await session.connection.closed.wait()


@pytest.mark.parametrize(
    ("output", "input_", "speaks_hz", "hears_hz"),
    [
        ("pcm_16000", "pcm_16000", 16000, 16000),
        ("ulaw_8000", "ulaw_8000", 8000, 8000),
        ("pcm_24000", "pcm_8000", 24000, 8000),
        ("pcm_48000", "pcm_24000", 48000, 24000),
    ],
)
async def test_a_conversation_with_a_tool_in_each_format(
    output: str, input_: str, speaks_hz: int, hears_hz: int
) -> None:
    async def script(session: Session) -> None:
        await session.says(session.first_message, 200)
        await session.hears("Sales, please.")
        assert await session.asks("transfer_call", {"destination": "sales"}) == ('{"outcome":"busy"}', False)
        await session.says("They are busy.", 200)

    agent = Agent(output_format=output, input_format=input_, tools=frozenset({"transfer_call"}))
    async with conversation(script, agent) as (server, told):
        assert (told.provider.speaks_hz, told.provider.hears_hz) == (speaks_hz, hears_hz)
        whole = tone(200, speaks_hz)
        heard = ulaw_decode(ulaw_encode(whole)) if output == "ulaw_8000" else whole
        await told.saw(SpokeLast)
        assert told.spoken() == heard
        told.speaks(300, quiet_ms=300)
        asked = await told.saw(ToolAsked)
        assert (asked.name, json.loads(asked.arguments)) == ("transfer_call", {"destination": "sales"})
        told.provider.answer(asked.ask_id, '{"outcome":"busy"}')
        told.provider.answer(asked.ask_id, "twice")
        await told.saw(SpokeLast, 2)
        assert told.spoken("answer-2") == heard
        assert told.lines == [
            Line("agent", "Good morning, this is Dueto."),
            Line("caller", "Sales, please."),
            Line("agent", "They are busy."),
        ]
        assert [event.item_id for event in told.all(Transcribed)] == ["answer-1", "", "answer-2"]
        assert len(told.all(CallerStopped)) == 1
        session = server.sessions[0]
        assert session.audio == (ulaw_encode(bytes(told.said)) if input_ == "ulaw_8000" else told.said)
        assert session.pongs == [1]


async def test_the_agent_is_told_what_the_profile_says() -> None:
    agent = Agent(overrides=ALL_OVERRIDES, variables=frozenset({"caller_number", "company"}))
    settings: dict[str, Any] = {
        "instructions": "You are a receptionist.",
        "greeting": "Good morning.",
        "voice": "a-voice",
        "language": "de",
        "variables": {"company": "Dueto"},
    }
    async with conversation(silence, agent, **settings) as (server, _):
        assert (await server.session()).initiation == {
            "conversation_config_override": {
                "agent": {
                    "prompt": {"prompt": "You are a receptionist."},
                    "first_message": "Good morning.",
                    "language": "de",
                },
                "tts": {"voice_id": "a-voice"},
            },
            "dynamic_variables": {"caller_number": "+4930123", "company": "Dueto"},
        }


async def test_nothing_is_overridden_that_nobody_asked_for() -> None:
    async with conversation(silence) as (server, _):
        assert (await server.session()).initiation == {"dynamic_variables": {"caller_number": "+4930123"}}


async def test_an_agent_that_takes_over_does_not_greet_again_and_knows_what_was_said() -> None:
    opening = Opening(8000, said_so_far=(Line("agent", "Hello!"), Line("caller", "Sales?")), greets=False)
    agent = Agent(overrides=frozenset({"agent.first_message"}))
    async with conversation(silence, agent, opening) as (server, told):
        told.provider.note("The caller is on hold.")
        told.provider.prompt("Ask whether he is still there.")
        told.provider.press("5")
        session = await server.session()
        assert await session.told() == "Ask whether he is still there."
        assert await session.told() == "(The caller pressed 5 on the telephone's keypad.)"
        assert session.first_message == ""
        assert session.context == [
            "The conversation until now, which you carry on:\nagent: Hello!\ncaller: Sales?",
            "The caller is on hold.",
        ]


async def test_a_caller_who_interrupts_cuts_the_sentence() -> None:
    async def script(session: Session) -> None:
        assert not await session.says("I could go on like this for a very long time.", 5000, hz=300)
        await session.says("Yes?", 100, hz=700)

    async with conversation(script) as (_, told):
        await told.saw(Spoke, 2)
        told.speaks(100)
        assert await told.saw(Cut) == Cut("answer-1")
        await told.saw(SpokeLast, 2)
        assert len(told.spoken("answer-1")) < len(tone(5000, 16000))
        assert told.spoken("answer-2") == tone(100, 16000, 700)


async def test_audio_up_to_the_interruptions_id_is_dropped_even_if_it_comes_later() -> None:
    async def script(session: Session) -> None:
        session.sends_audio(tone(100, 16000, 300))
        session.interrupts(up_to=session.sent[-1] + 1)
        session.sends_audio(tone(100, 16000, 500))
        session.sends_audio(tone(100, 16000, 700))

    async with conversation(script) as (_, told):
        await told.saw(SpokeLast, 2)
        assert told.spoken() == tone(100, 16000, 300) + tone(100, 16000, 700)
        assert [type(event) for event in told.events] == [Spoke, SpokeLast, Cut, Spoke, SpokeLast]


async def test_an_answer_is_over_when_it_would_have_been_played_or_when_it_is_said() -> None:
    times: dict[str, float] = {}
    clock = asyncio.get_running_loop().time

    async def script(session: Session) -> None:
        times["began"] = clock()
        session.sends_audio(tone(200, 16000))  # faster than it is played
        session.sends_audio(tone(200, 16000))
        await session.told()
        session.sends_audio(tone(5000, 16000))
        session.send({"type": "agent_response_complete"})

    async with conversation(script) as (_, told):
        await told.saw(SpokeLast)
        assert clock() - times["began"] >= 0.45
        assert told.spoken("answer-1") == tone(200, 16000) * 2
        told.provider.prompt("Go on.")
        times["prompted"] = clock()
        await told.saw(SpokeLast, 2)
        assert clock() - times["prompted"] < 4


async def test_what_is_cancelled_is_not_passed_on_and_the_next_answer_is() -> None:
    async def script(session: Session) -> None:
        session.sends_audio(tone(100, 16000))
        await session.told()
        session.sends_audio(tone(100, 16000, 500))
        session.send({"type": "agent_response_complete"})
        session.sends_audio(tone(100, 16000, 700))

    async with conversation(script) as (_, told):
        await told.saw(Spoke)
        told.provider.cancel()
        told.provider.prompt("Go on.")
        await told.saw(SpokeLast, 2)
        assert told.spoken() == tone(100, 16000) + tone(100, 16000, 700)


async def test_an_answers_text_may_come_after_its_first_audio() -> None:
    async def script(session: Session) -> None:
        session.sends_audio(tone(100, 16000))
        session.send({"type": "agent_response", "agent_response_event": {"agent_response": "Yes.", "event_id": 9}})
        session.sends_audio(tone(100, 16000))

    async with conversation(script) as (_, told):
        await told.saw(SpokeLast)
        assert {event.item_id for event in told.events if isinstance(event, Spoke | Transcribed)} == {"answer-1"}


async def test_the_end_of_speech_is_told_by_the_scores_where_there_are_some() -> None:
    async def script(session: Session) -> None:
        await session.hears("Hello?")
        await session.says("Yes?", 100)

    async with conversation(script, Agent(vad_scores=True)) as (_, told):
        told.speaks(200, quiet_ms=300)
        await told.saw(SpokeLast)
        assert [type(event) for event in told.events[:3]] == [CallerBegan, CallerStopped, Transcribed]
        assert len(told.all(CallerStopped)) == 1


async def test_a_caller_on_hold_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elevenlabs, "STILL_THERE_S", 0.05)
    async with conversation(silence) as (server, _):
        session = await server.session()
        async with asyncio.timeout(10):
            await session.active.acquire()
            await session.active.acquire()


async def test_what_is_not_known_is_passed_over() -> None:
    async def script(session: Session) -> None:
        session.connection.send_text(b'{"type":"something_new","message":{"a":1},"audio_event":null}')
        session.send({"type": "internal_tentative_agent_response", "tentative_agent_response_internal_event": {}})
        session.sends_audio(tone(100, 16000))

    async with conversation(script) as (_, told):
        await told.saw(SpokeLast)
        assert told.failure is None


# -- how it ends


async def test_an_agent_that_hangs_up_ends_the_conversation() -> None:
    async def script(session: Session) -> None:
        await session.says("Goodbye.", 200)
        session.sends_audio(tone(100, 16000))
        session.connection.close(1000, "")

    async with conversation(script) as (_, told):
        await told.until(lambda: told.over)
        assert told.failure is None
        assert isinstance(told.events[-1], SpokeLast)
        assert told.spoken() == tone(200, 16000) + tone(100, 16000)


async def drops(session: Session) -> None:
    session.connection.drop()


async def garbles(session: Session) -> None:
    session.connection.send_text(b'{"type":"audio"}')


async def babbles(session: Session) -> None:
    session.connection.send_text(b'{"type":"audio","audio_event":{"audio_base_64":"?","event_id":1}}')


async def expires(session: Session) -> None:
    session.fails(1000, "max_duration_exceeded", "The conversation has exceeded the maximum duration.")


async def runs_out(session: Session) -> None:
    session.send({"type": "error", "message": "received 1002 (protocol error) This request exceeds your quota limit."})
    session.connection.close(1002, "This request exceeds your quota limit.")


async def breaks_down(session: Session) -> None:
    session.fails(1002, "llm_timeout", "The LLM took too long.")


@pytest.mark.parametrize(
    ("script", "fault", "text"),
    [
        (drops, "dropped", "the connection to ElevenLabs broke"),
        (garbles, "protocol", "without its audio_event"),
        (babbles, "protocol", "makes no sense"),
        (expires, "limit", "as long as the agent's settings allow"),
        (runs_out, "quota", "quota is used up"),
        (breaks_down, "refused", "The LLM took too long"),
    ],
)
async def test_a_conversation_that_fails_says_why(script: Script, fault: str, text: str) -> None:
    async with conversation(script) as (_, told):
        await told.until(lambda: told.over)
        assert told.failure is not None
        assert told.failure.fault == fault
        assert text in str(told.failure)


@pytest.mark.parametrize(
    ("agent", "settings", "key", "fault", "text"),
    [
        (Agent(), {}, "sk_another", "auth", "HTTP 401"),
        (Agent(), {}, "", "auth", "does not let this API key in"),
        (Agent(private=False), {"agent_id": "agent_2"}, "", "model", "has no such agent"),
        (Agent(), {"agent_id": "agent_2"}, KEY, "model", "agent_2 not found"),
        (Agent(), {"greeting": "Hello."}, KEY, "refused", "'first_message' is not allowed"),
        (Agent(variables=frozenset({"company"})), {}, KEY, "refused", "Missing required dynamic variables"),
        (Agent(output_format="pcm_44100"), {}, KEY, "refused", "choose ulaw_8000 or pcm_16000"),
    ],
)
async def test_a_conversation_that_does_not_begin_says_why(
    agent: Agent, settings: dict[str, Any], key: str, fault: str, text: str
) -> None:
    async with fake(silence, agent) as server:
        with pytest.raises(ProviderFailed) as caught:
            await connect(profile(server, **settings), key, OPENING)
        assert caught.value.fault == fault
        assert text in str(caught.value)
        assert "sk_" not in str(caught.value)
        for connection in server.connections:
            await connection.closed.wait()


async def test_a_public_agent_needs_no_key() -> None:
    async with conversation(silence, Agent(private=False), key="") as (server, _):
        assert server.requests == [f"/v1/convai/conversation?agent_id={AGENT}"]


async def test_quota_that_is_used_up_before_it_begins() -> None:
    async with fake(silence) as server:
        server.refuse = (1002, "This request exceeds your quota limit.")
        with pytest.raises(ProviderFailed, match="quota") as caught:
            await connect(profile(server), KEY, OPENING)
        assert caught.value.fault == "quota"
        assert KEY not in "".join(server.requests)


async def test_a_server_that_is_out_of_order_or_never_answers() -> None:
    async with fake(silence) as server:
        server.out_of_order = 503
        with pytest.raises(ProviderFailed, match="out of order"):
            await connect(profile(server), KEY, OPENING)
        server.out_of_order = 0
        server.silent = True
        with pytest.raises(ProviderFailed, match=r"did not answer within 0\.2 s") as caught:
            await connect(profile(server, connect_s=0.2), KEY, OPENING)
        assert caught.value.fault == "timeout"
        await server.connections[0].closed.wait()


async def test_closing_ends_the_connection_and_may_be_said_twice() -> None:
    async with conversation(silence) as (server, told):
        await told.provider.aclose()
        await told.provider.aclose()
        await server.connections[0].closed.wait()
        told.provider.hear(bytes(640))
        told.provider.prompt("Nobody hears this.")


async def test_that_the_caller_speaks_is_not_told_while_the_agent_is_heard() -> None:
    async def script(session: Session) -> None:
        event = {"user_transcript": "Sal", "event_id": 1}
        tentative = {"type": "tentative_user_transcript", "tentative_user_transcription_event": event}
        session.sends_audio(tone(100, 16000))
        session.send(tentative)  # whether that interrupts is the server's decision
        await session.told()
        session.send(tentative)
        session.send(tentative)
        session.send({"type": "user_transcript", "user_transcription_event": event})

    async with conversation(script) as (_, told):
        await told.saw(SpokeLast)
        assert told.all(CallerBegan) == []
        told.provider.prompt("Go on.")
        await told.saw(CallerStopped)
        assert len(told.all(CallerBegan)) == 1


async def test_the_address_is_asked_for_while_the_call_is_on_its_way() -> None:
    async with fake(silence) as server:
        addresses = addresses_of(profile(server), KEY)
        addresses.expected.expect("this call")
        async with asyncio.timeout(10):
            await server.gave_address.wait()
        for call, given in (("this call", 1), ("another", 2)):
            there = await connect_to(profile(server), addresses, replace(OPENING, call_id=call))
            await there.aclose()
            assert server.addresses_given == given
