"""The vendor's own client and types against our strict server, so that the two do not merely agree with each other."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest
from tests.agents.fakes.openai_realtime import COMMANDS, KEY, Answer, FakeOpenAI, fake_openai

from dueto.agents.openai_realtime import openai_realtime
from dueto.agents.openai_session import OpenAIOptions
from dueto.agents.openai_wire import append, realtime_url
from dueto.agents.ports import Opening, SpokeLast, ToolAsked, ToolSpec, Used
from dueto.sim import tone

pytestmark = pytest.mark.at_once

openai = pytest.importorskip("openai", reason="the vendor's client is not installed: pip install 'dueto[vendors]'")
from openai.types import realtime as types  # noqa: E402
from openai.types.realtime.realtime_client_event import RealtimeClientEvent  # noqa: E402
from openai.types.realtime.realtime_server_event import RealtimeServerEvent  # noqa: E402
from pydantic import BaseModel, TypeAdapter  # noqa: E402

CLIENT = TypeAdapter(RealtimeClientEvent)
SERVER = TypeAdapter(RealtimeServerEvent)
BEYOND_THE_TYPES = {
    "session.created.session.id",
    "session.created.session.object",
    "session.created.session.expires_at",
    "conversation.item.input_audio_transcription.completed.usage.seconds",
    "conversation.item.input_audio_transcription.completed.usage.type",
}
"What the real server was seen to send although its types do not have it."


def extras(value: Any, where: str) -> Iterator[str]:
    """The keys that no type knows, however deep."""
    if isinstance(value, BaseModel):
        yield from (f"{where}.{key}" for key in value.model_extra or {})
        for name in type(value).model_fields:
            yield from extras(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for one in value:
            yield from extras(one, where)


async def a_long_conversation(server: FakeOpenAI) -> None:
    """Everything that our adapter ever sends, once."""
    look_up = ToolSpec("look_up", "Looks something up.", {"type": "object", "properties": {"a": {"type": "string"}}})
    options: dict[str, Any] = {
        "language": "de",
        "noise_reduction": "near_field",
        "speed": 1.1,
        "max_output_tokens": 500,
    }
    connect = openai_realtime(url=server.url, api_key=KEY, greeting="Hello.", instructions="x", **options)
    provider = await connect(Opening(8000, tools=(look_up,)))
    events = provider.events()
    done = 0
    async with asyncio.timeout(20):
        async for event in events:
            if isinstance(event, ToolAsked):
                provider.answer(event.ask_id, '{"found":1}')
            if isinstance(event, SpokeLast):
                provider.truncate(event.item_id, 100 if done == 0 else 0)
            if not isinstance(event, Used):
                continue
            done += 1
            if done == 1:
                provider.note("noted")
                provider.press("12")
            if done == 3:
                provider.prompt("Say a lot.")
                await asyncio.sleep(0.2)
                provider.cancel()
            if done == 4:
                sound = tone(8000, 0.5, 300.0) + bytes(8000)
                for at in range(0, len(sound), 320):
                    provider.hear(sound[at : at + 320])
            if done == 5:
                break
    await provider.aclose()


@pytest.mark.parametrize("detection", ["server_vad", "semantic_vad"])
def test_the_session_we_ask_for_is_one_that_the_vendors_types_know(detection: Any) -> None:
    options = OpenAIOptions(turn_detection=detection, language="de", noise_reduction="far_field", speed=0.9)
    for rate_hz in (8000, 24000):
        session = options.session(rate_hz, "Be brief.", [{"type": "function", "name": "f", "parameters": {}}])
        event = CLIENT.validate_python({"type": "session.update", "session": session})
        assert isinstance(event, types.SessionUpdateEvent)
        assert list(extras(event, "session.update")) == []


async def test_all_we_send_and_all_the_fake_sends_is_known_to_the_vendors_types() -> None:
    script = [
        Answer("Hello.", 300),
        Answer("Let me see.", 200, tool=("look_up", '{"a":"b"}')),
        Answer("Found.", 200),
        Answer("A lot.", 5000, pace=1.0),
        Answer("Yes?", 200),
    ]
    async with fake_openai(script) as server:
        await a_long_conversation(server)
    (there,) = server.conversations
    sent = {event["type"] for event in there.received}
    assert sent == COMMANDS.keys() - {"input_audio_buffer.append"}
    for event in there.received:
        read = CLIENT.validate_python(event, strict=True)
        assert list(extras(read, event["type"])) == []
    unknown: set[str] = set()
    for event in there.sent:
        read = SERVER.validate_python(event)
        assert read.type == event["type"]
        unknown |= set(extras(read, event["type"]))
    assert unknown <= BEYOND_THE_TYPES
    told = {event["type"] for event in there.sent}
    assert {"response.output_audio.delta", "conversation.item.truncated", "conversation.item.deleted"} <= told


def test_the_append_that_is_built_from_pieces_is_the_vendors_event() -> None:
    event = CLIENT.validate_json(append(b"\x00\x01\x02"))
    assert isinstance(event, types.InputAudioBufferAppendEvent)
    assert base64.b64decode(event.audio) == b"\x00\x01\x02"


async def test_the_vendors_own_client_talks_to_the_fake() -> None:
    async with fake_openai([Answer("Hello.", 400), Answer("A lot.", 5000, pace=1.0)]) as server:
        client = openai.AsyncOpenAI(api_key=KEY, base_url=server.url)
        async with client.realtime.connect(model="gpt-realtime-2.1") as connection, asyncio.timeout(20):
            session = OpenAIOptions().session(24000, "Be brief.", [])
            await connection.session.update(session=session)  # type: ignore[arg-type]
            await connection.response.create()
            heard, cut, seen = b"", "", set()
            async for event in connection:
                seen.add(event.type)
                if event.type == "response.output_audio.delta":
                    heard += base64.b64decode(event.delta)
                    if len(heard) > 24000 and not cut:
                        cut = event.item_id
                        await connection.response.cancel()
                        await connection.conversation.item.truncate(item_id=cut, content_index=0, audio_end_ms=100)
                elif event.type == "response.done" and event.response.status == "completed":
                    assert event.response.usage is not None
                    await connection.response.create()
                elif event.type == "conversation.item.truncated":
                    break
        await client.close()
    assert {"session.created", "session.updated", "response.done", "response.output_audio_transcript.done"} <= seen
    assert server.conversations[0].items[cut].truncated_ms == 100


async def test_the_vendors_client_and_we_ask_for_the_same_address_with_the_same_headers() -> None:
    async with fake_openai() as server:
        client = openai.AsyncOpenAI(api_key=KEY, base_url=server.url)
        async with client.realtime.connect(model="m"):
            pass
        await client.close()
        azure = openai.AsyncAzureOpenAI(
            api_key=KEY,
            api_version="2025-04-01-preview",
            websocket_base_url=server.url.replace("/v1", "/openai").replace("http", "ws"),
            azure_endpoint=server.url.removesuffix("/v1"),
        )
        async with azure.realtime.connect(model="m"):
            pass
        await azure.close()
        theirs = [there.query for there in server.conversations]
        auth = [
            {name: value for name, value in there.headers.items() if name.lower() in ("authorization", "api-key")}
            for there in server.conversations
        ]
    assert realtime_url(server.url, "m").endswith(f"{theirs[0]['path']}?model={theirs[0]['model']}")
    ours = realtime_url(server.url.removesuffix("/v1"), "m", azure=True, api_version="2025-04-01-preview")
    assert theirs[1] == {"path": "/openai/realtime", "api-version": "2025-04-01-preview", "deployment": "m"}
    assert ours.endswith("/openai/realtime?api-version=2025-04-01-preview&deployment=m")
    assert {name.lower(): value for name, value in auth[0].items()} == {"authorization": f"Bearer {KEY}"}
    assert OpenAIOptions(api_key=KEY).headers == {"Authorization": f"Bearer {KEY}"}
    assert {name.lower() for name in auth[1]} == {"api-key"}
    assert OpenAIOptions(api_key=KEY, azure=True).headers == {"api-key": KEY}
