"""The vendor's own client has whole conversations with the fake: it does not merely agree with us."""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.agents.fakes.gemini_live import KEY, MODEL, FakeGemini, Script, Session
from tests.agents.fakes.sockets import tone
from tests.support.tls import client_context, server_context

pytestmark = pytest.mark.at_once

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    genai = pytest.importorskip("google.genai")
    types = pytest.importorskip("google.genai.types")
    errors = pytest.importorskip("google.genai.errors")


@contextlib.asynccontextmanager
async def talking_to(script: Script, *, key: str = KEY, **more: Any) -> AsyncIterator[tuple[FakeGemini, Any]]:
    """A fake, and the vendor's client that is pointed at it. With a key it insists on TLS."""
    fake = FakeGemini(script, **more)
    await fake.start(server_context())
    options = types.HttpOptions(
        base_url=f"https://127.0.0.1:{fake.port}", api_version="v1beta", async_client_args={"ssl": client_context()}
    )
    client = genai.Client(api_key=key, vertexai=False, http_options=options)
    try:
        async with asyncio.timeout(20):
            yield fake, client.aio.live
    finally:
        await fake.aclose()


CONFIG: dict[str, Any] = {
    "response_modalities": ["AUDIO"],
    "speech_config": {"voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}}, "language_code": "en-GB"},
    "system_instruction": "Be brief.",
    "tools": [
        {
            "function_declarations": [
                {
                    "name": "transfer_call",
                    "description": "Connects the caller.",
                    "parameters_json_schema": {"type": "object", "properties": {"destination": {"type": "string"}}},
                }
            ]
        }
    ],
    "realtime_input_config": {
        "automatic_activity_detection": {"start_of_speech_sensitivity": "START_SENSITIVITY_HIGH"},
    },
    "input_audio_transcription": {},
    "output_audio_transcription": {},
    "session_resumption": {},
    "context_window_compression": {"sliding_window": {}},
}


async def speak(live: Any, ms: int, level: int = 8000) -> None:
    pcm = tone(ms, 16000, level=level)
    for at in range(0, len(pcm), 640):
        await live.send_realtime_input(audio=types.Blob(data=pcm[at : at + 640], mime_type="audio/pcm;rate=16000"))


async def turn(live: Any) -> list[Any]:
    return [message async for message in live.receive()]


def spoken(messages: list[Any]) -> bytes:
    return b"".join(message.data or b"" for message in messages if message.server_content)


async def conversation(session: Session) -> None:
    assert await session.told() == "Greet the caller."
    await session.says("Good morning.", 200)
    await session.hears("Sales, please.")
    brought = await session.asks("transfer_call", {"destination": "sales"})
    await session.says(f"They are {brought['outcome']}.", 200)


async def test_the_vendors_client_has_a_conversation_with_a_tool() -> None:
    async with talking_to(conversation) as (fake, live):
        async with live.connect(model="gemini-3.8-live", config=CONFIG) as session:
            await session.send_realtime_input(text="Greet the caller.")
            greeting = await turn(session)
            assert spoken(greeting) == tone(200, 24000)
            said = "".join(
                message.server_content.output_transcription.text
                for message in greeting
                if message.server_content and message.server_content.output_transcription
            )
            assert said == "Good morning."
            assert any(message.session_resumption_update for message in greeting)
            assert greeting[-1].usage_metadata.total_token_count == 65

            await speak(session, 200)
            await speak(session, 300, level=0)
            understood, calls = "", []
            async for message in session.receive():
                if message.server_content and message.server_content.input_transcription:
                    understood += message.server_content.input_transcription.text
                if message.tool_call:
                    calls += message.tool_call.function_calls
                    break
            assert understood == "Sales, please."
            assert [(call.name, call.args) for call in calls] == [("transfer_call", {"destination": "sales"})]
            answer = types.FunctionResponse(id=calls[0].id, name="transfer_call", response={"outcome": "busy"})
            await session.send_tool_response(function_responses=answer)
            assert spoken(await turn(session)) == tone(200, 24000)
        assert fake.complaints == []
        assert fake.sessions[0].setup["model"] == MODEL


async def test_the_vendors_client_interrupts() -> None:
    async def long(session: Session) -> None:
        await session.told()
        assert not await session.says("I could go on like this for a very long time.", 5000)

    async with talking_to(long, speed=4) as (_, live):
        async with live.connect(model="gemini-3.8-live", config=CONFIG) as session:
            await session.send_realtime_input(text="Talk.")
            messages = []
            async for message in session.receive():
                messages.append(message)
                if len(messages) == 5:
                    await speak(session, 100)
            assert any(message.server_content and message.server_content.interrupted for message in messages)
            assert len(spoken(messages)) < len(tone(5000, 24000))


async def test_the_vendors_client_resumes_with_the_handle() -> None:
    async def script(session: Session) -> None:
        await session.told()
        await session.says("Again." if session.resumed else "First.", 100)

    async with talking_to(script) as (fake, live):
        async with live.connect(model="gemini-3.8-live", config=CONFIG) as session:
            await session.send_realtime_input(text="Talk.")
            await turn(session)
            handle = (await session._receive()).session_resumption_update.new_handle
        config = CONFIG | {"session_resumption": {"handle": handle}}
        async with live.connect(model="gemini-3.8-live", config=config) as session:
            await session.send_realtime_input(text="Talk.")
            await turn(session)
        assert fake.sessions[1].memory.turns == ["model: First.", "model: Again."]
        assert fake.complaints == []


async def test_the_vendors_client_sends_a_history_that_was_promised() -> None:
    async def script(session: Session) -> None:
        await session.told()
        await session.says("As I said.", 100)

    async with talking_to(script) as (fake, live):
        config = CONFIG | {"history_config": {"initial_history_in_client_content": True}}
        async with live.connect(model="gemini-3.8-live", config=config) as session:
            turns = [{"role": "user", "parts": [{"text": "Hello."}]}, {"role": "model", "parts": [{"text": "Hello!"}]}]
            await session.send_client_content(turns=turns, turn_complete=True)
            await session.send_realtime_input(text="Go on.")
            await session.send_realtime_input(audio_stream_end=True)
            await turn(session)
            await fake.sessions[0].paused.acquire()
        assert fake.sessions[0].history == [("user", "Hello."), ("model", "Hello!")]
        assert fake.complaints == []


@pytest.mark.parametrize(
    ("more", "model", "code", "text"),
    [
        ({"key": "another"}, "gemini-3.8-live", 1007, "API key not valid"),
        ({}, "gemini-9", 1008, "gemini-9 is not found"),
        ({"refuse": (1011, "You exceeded your current quota")}, "gemini-3.8-live", 1011, "quota"),
    ],
)
async def test_the_vendors_client_reads_why_it_was_sent_away(
    more: dict[str, Any], model: str, code: int, text: str
) -> None:
    async with talking_to(conversation, **more) as (_, live):
        with pytest.raises(errors.APIError) as caught:
            async with live.connect(model=model, config=CONFIG) as session:
                await turn(session)
        assert caught.value.code == code
        assert text in str(caught.value)


async def test_what_no_client_may_say_is_refused() -> None:
    async with talking_to(conversation) as (fake, live):
        async with live.connect(model="gemini-3.8-live", config=CONFIG) as session:
            await session._ws.send('{"realtimeInput": {"sound": {}}}')
            with pytest.raises(errors.APIError, match="invalid argument"):
                await turn(session)
        assert "sound" in fake.complaints[0]
