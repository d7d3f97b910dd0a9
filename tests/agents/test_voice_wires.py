"""Whatever Gemini or ElevenLabs send, in whatever order: typed, refused, or passed over; and told in a sane order."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dueto.agents import elevenlabs_wire, gemini_wire, openai_wire
from dueto.agents.elevenlabs import ElevenLabs, ElevenLabsProfile, addresses_of, elevenlabs
from dueto.agents.gemini_live import GeminiLive, GeminiProfile, gemini_live
from dueto.agents.gemini_session import links_of
from dueto.agents.link import http_fault
from dueto.agents.media_streams import messages
from dueto.agents.openai_realtime import openai_realtime
from dueto.agents.ports import (
    Connect,
    Cut,
    Opening,
    ProviderEvent,
    Spoke,
    SpokeLast,
    ToolAsked,
    ToolWithdrawn,
    VoiceProvider,
)
from dueto.errors import RemoteProtocolError
from dueto.sim import run_virtual

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = [
    *(field.encode_name for field in msgspec.structs.fields(gemini_wire.ServerMessage)),
    *(field.encode_name for field in msgspec.structs.fields(gemini_wire.ServerContent)),
    *(field.encode_name for field in msgspec.structs.fields(elevenlabs_wire._Message)),
]
KINDS = st.sampled_from([*elevenlabs_wire._Message.FIELDS, "error", "agent_response_complete", "something_new"])


@given(
    st.binary()
    | JSON.map(msgspec.json.encode)
    | st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4).map(msgspec.json.encode)
    | st.builds(
        lambda kind, more: msgspec.json.encode({**more, "type": kind}),
        KINDS,
        st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3),
    )
)
@settings(max_examples=300, deadline=None)
def test_what_comes_is_typed_or_refused(message: bytes) -> None:
    for decode in (gemini_wire.decode, elevenlabs_wire.decode):
        with contextlib.suppress(RemoteProtocolError):
            decode(message)


def test_what_is_nested_without_end_is_refused_like_anything_else() -> None:
    deep = b'{"type":"audio","event":"media","x":' + b"[" * 100_000
    for decode in (gemini_wire.decode, elevenlabs_wire.decode, openai_wire.read, messages.decode):
        with pytest.raises(RemoteProtocolError):
            decode(deep)
    assert str(http_fault("Acme", 500, deep)) == "Acme is out of order (HTTP 500)"


def test_what_we_say_by_hand_is_json() -> None:
    frame = bytes(range(256)) * 2 + b"\xff\x7f"
    said = msgspec.json.decode(gemini_wire.audio(frame))["realtimeInput"]["audio"]
    assert said["mimeType"] == "audio/pcm;rate=16000"
    assert msgspec.convert(said["data"], bytes) == frame
    said = msgspec.json.decode(elevenlabs_wire.user_audio_chunk(frame))
    assert msgspec.convert(said["user_audio_chunk"], bytes) == frame
    assert msgspec.json.decode(elevenlabs_wire.pong(7)) == {"type": "pong", "event_id": 7}
    assert msgspec.json.decode(elevenlabs_wire.user_activity()) == {"type": "user_activity"}


@pytest.mark.parametrize(("text", "left_s"), [("59.8s", 59.8), ("0s", 0.0), ("", 0.0), ("soon", 0.0), ("-3s", 0.0)])
def test_the_time_left_is_a_duration(text: str, left_s: float) -> None:
    assert gemini_wire.GoAway(text).left_s == left_s


@pytest.mark.parametrize(("mime", "rate_hz"), [("audio/pcm;rate=24000", 24000), ("audio/pcm", 24000), ("a;rate=8", 8)])
def test_the_rate_of_a_blob(mime: str, rate_hz: int) -> None:
    assert gemini_wire.Blob(mime).rate_hz == rate_hz


AUDIO = st.just(
    {"serverContent": {"modelTurn": {"parts": [{"inlineData": {"mimeType": "audio/pcm", "data": "AAAA"}}]}}}
)
GEMINI = st.lists(
    AUDIO
    | st.sampled_from(
        [
            {"serverContent": {"interrupted": True}},
            {"serverContent": {"interrupted": True, "turnComplete": True}},
            {"serverContent": {"generationComplete": True}},
            {"serverContent": {"turnComplete": True}},
            {"serverContent": {"outputTranscription": {"text": "word "}}},
            {"serverContent": {"inputTranscription": {"text": "word ", "finished": True}}},
            {"toolCall": {"functionCalls": [{"id": "1", "name": "x"}, {"id": "2", "name": "y", "args": {}}]}},
            {"toolCallCancellation": {"ids": ["1", "3"]}},
            {"voiceActivity": {"type": "ACTIVITY_START"}},
            {"usageMetadata": {"promptTokenCount": 1}},
            {"sessionResumptionUpdate": {"newHandle": "h", "resumable": True}},
            {},
            "cancel",
        ]
    ),
    max_size=25,
)


def _eleven(kind: str, field: str, **values: Any) -> dict[str, Any]:
    return {"type": kind, field: values}


ELEVEN = st.lists(
    st.integers(0, 6).map(lambda at: _eleven("audio", "audio_event", audio_base_64="AAAA", event_id=at))
    | st.integers(0, 6).map(lambda at: _eleven("interruption", "interruption_event", event_id=at))
    | st.sampled_from(
        [
            _eleven("agent_response", "agent_response_event", agent_response="words"),
            _eleven("user_transcript", "user_transcription_event", user_transcript="words"),
            _eleven("client_tool_call", "client_tool_call", tool_name="x", tool_call_id="1", parameters={}),
            _eleven("vad_score", "vad_score_event", vad_score=0.9),
            _eleven("vad_score", "vad_score_event", vad_score=0.1),
            {"type": "agent_response_complete"},
            "cancel",
            "later",
        ]
    ),
    max_size=25,
)


async def _gemini(story: list[Any]) -> list[ProviderEvent]:
    return await _told(GeminiLive(GeminiProfile(use="gemini"), links_of("", "k"), Opening(8000)), story)


async def _elevenlabs(story: list[Any]) -> list[ProviderEvent]:
    profile = ElevenLabsProfile(use="elevenlabs", agent_id="a")
    provider = ElevenLabs(profile, addresses_of(profile, ""), Opening(8000))
    return await _told(provider, story)


async def _told(provider: Any, story: list[Any]) -> list[ProviderEvent]:
    """Tell a provider, without a socket, and return what it made of it."""
    received = provider._session._received if isinstance(provider, GeminiLive) else provider._received
    for message in story:
        if message == "cancel":
            provider.cancel()
        elif message == "later":
            await asyncio.sleep(5)
        else:
            received(msgspec.json.encode(message))
    listening: VoiceProvider = provider
    await listening.aclose()
    return [event async for event in listening.events()]


@given(st.one_of(GEMINI.map(_gemini), ELEVEN.map(_elevenlabs)))
@settings(max_examples=150, deadline=None)
def test_of_an_answer_that_is_over_nothing_more_is_told(telling: Coroutine[Any, Any, list[ProviderEvent]]) -> None:
    events = run_virtual(telling)
    over: set[str] = set()
    asked: set[str] = set()
    for event in events:
        match event:
            case Spoke():
                assert event.item_id not in over
                assert event.pcm
            case SpokeLast():
                assert event.item_id not in over
                over.add(event.item_id)
            case Cut():
                over.add(event.item_id)
            case ToolAsked():
                asked.add(event.ask_id)
            case ToolWithdrawn():
                assert event.ask_id in asked


@pytest.mark.parametrize(
    "connect",
    [elevenlabs(agent_id="a", api_key="s3cret"), gemini_live(api_key="s3cret"), openai_realtime(api_key="s3cret")],
)
def test_a_key_is_not_shown_with_what_was_made_of_it(connect: Connect) -> None:
    assert "s3cret" not in repr(connect)
