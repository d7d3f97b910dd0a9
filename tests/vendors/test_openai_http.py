"""OpenAI's own client and types against the server that the cascade is tested with."""

import io
import json
from typing import Any

import pytest
from tests.agents.fakes import openai_http as fake
from tests.agents.fakes.openai_http import FakeOpenAIHttp

from dueto.agents.cascade import Message, Want
from dueto.agents.cascade.http import Endpoint, HttpSpeaker, HttpThinker, HttpTranscriber, new_client
from dueto.agents.ports import ToolSpec
from dueto.audio.pcm import write_wav

openai = pytest.importorskip("openai", reason="the vendor's client is not installed: pip install 'dueto[vendors]'")
from openai.types.audio.speech_create_params import SpeechCreateParams  # noqa: E402
from openai.types.chat import completion_create_params as chat  # noqa: E402
from pydantic import TypeAdapter  # noqa: E402

LOOK_UP = ToolSpec("look_up", "Looks it up.", {"type": "object", "properties": {"what": {"type": "string"}}})
CONVERSATION = [
    Message("system", "Be brief."),
    Message("user", "Look it up."),
    Message("assistant", "", (Want("call_1", "look_up", '{"what": "it"}'),)),
    Message("tool", '{"found": 1}', ask_id="call_1"),
    Message("user", "And?"),
]


def serving() -> FakeOpenAIHttp:
    return FakeOpenAIHttp(
        iter(["Hello there."] * 3), lambda _: [*fake.text("One", " moment."), *fake.tool("look_up", '{"what": "x"}')]
    )


async def test_the_vendors_client_reads_what_our_server_writes() -> None:
    async with serving().serving() as server:
        async with openai.AsyncOpenAI(base_url=server.url, api_key=fake.KEY, max_retries=0) as client:
            wav = io.BytesIO(write_wav(bytes(3200), 8000))
            heard = await client.audio.transcriptions.create(model="test", file=("a.wav", wav))
            assert heard.text == "Hello there."
            stream = await client.chat.completions.create(
                model="test", stream=True, messages=[{"role": "user", "content": "Hello."}]
            )
            chunks = [chunk async for chunk in stream]
            assert all(not chunk.model_extra for chunk in chunks)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "One moment."
            calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
            assert "".join((call.function.arguments or "") for call in calls if call.function) == '{"what": "x"}'
            async with client.audio.speech.with_streaming_response.create(
                model="test", voice="alloy", input="Hello.", response_format="pcm"
            ) as spoken:
                assert len([piece async for piece in spoken.iter_bytes()]) > 0


async def test_what_we_send_is_of_the_vendors_types_and_nothing_beside_them() -> None:
    async with serving().serving() as server, new_client() as client:
        endpoint = Endpoint(client, server.url, "test", fake.KEY)
        assert await HttpTranscriber(endpoint, "en").transcribe(bytes(3200), 8000) == "Hello there."
        pieces: list[Any] = [piece async for piece in HttpThinker(endpoint, 0.3, 200).think(CONVERSATION, (LOOK_UP,))]
        assert pieces == ["One", " moment.", Want("call_1", "look_up", '{"what": "x"}')]
        spoken = [pcm async for pcm in HttpSpeaker(endpoint, "alloy", "Kindly.", 1.2).speak("Hello.")]
        assert all(len(pcm) % 2 == 0 for pcm in spoken)
        (asked,) = server.chats
        TypeAdapter(chat.CompletionCreateParamsStreaming).validate_python(asked, strict=False)
        assert set(asked) <= set(chat.CompletionCreateParamsStreaming.__annotations__) | set(
            chat.CompletionCreateParamsBase.__annotations__
        )
        assert set(SpeechCreateParams.__annotations__) >= fake.SPEECH_KEYS
        assert json.loads(asked["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {"what": "it"}
