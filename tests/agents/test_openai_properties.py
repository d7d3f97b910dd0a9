"""Whatever OpenAI says in whatever order, and whatever the agent does meanwhile: we stay within the rules."""

import asyncio
import base64
import json
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dueto.agents import openai_wire as wire
from dueto.agents.openai_realtime import OpenAIRealtime
from dueto.agents.openai_session import OpenAIOptions, OpenAISession
from dueto.agents.ports import Opening, Spoke, ToolAsked
from dueto.errors import RemoteProtocolError
from dueto.sim import run_virtual

RESPONSES, ITEMS, CALLS = ("r1", "r2", "r3"), ("i1", "i2", "i3"), ("c1", "c2")
AUDIO = base64.b64encode(bytes(160)).decode()


class Wire:
    """The link: remembers what was sent, with what was true at that moment."""

    dropped_ms = 0

    def __init__(self, session: OpenAISession) -> None:
        self.session = session
        self.sent: list[dict[str, Any]] = []
        self.created_during: list[str] = []

    def send(self, message: bytes) -> None:
        event = json.loads(message)
        self.sent.append(event)
        if event["type"] == "response.create" and self.session.responding:
            self.created_during.append(self.session.responding)

    def send_audio(self, message: bytes, ms: int = 20) -> None:
        json.loads(message)

    def fail(self, failure: Exception) -> None:
        raise AssertionError(failure)

    async def aclose(self) -> None:
        pass

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [event for event in self.sent if event["type"] == type_]


def _delta(of: tuple[str, str]) -> dict[str, Any]:
    return {"type": "response.output_audio.delta", "response_id": of[0], "item_id": of[1], "delta": AUDIO}


def _call(of: tuple[str, str]) -> dict[str, Any]:
    item = {"type": "function_call", "call_id": of[1], "name": "f", "arguments": "{}"}
    return {"type": "response.output_item.done", "response_id": of[0], "item": item}


said = st.one_of(
    st.sampled_from(RESPONSES).map(lambda r: {"type": "response.created", "response": {"id": r}}),
    st.tuples(st.sampled_from(RESPONSES), st.sampled_from(ITEMS)).map(_delta),
    st.tuples(st.sampled_from(RESPONSES), st.sampled_from(CALLS)).map(_call),
    st.tuples(st.sampled_from(RESPONSES), st.sampled_from(["completed", "cancelled", "incomplete"])).map(
        lambda of: {"type": "response.done", "response": {"id": of[0], "status": of[1]}}
    ),
    st.just({"type": "input_audio_buffer.speech_started"}),
    st.just({"type": "input_audio_buffer.speech_stopped"}),
    st.sampled_from(["response_cancel_not_active", "conversation_already_has_active_response", ""]).map(
        lambda code: {"type": "error", "error": {"code": code, "event_id": "dueto_create"}}
    ),
)
done = st.one_of(
    st.just(("cancel",)),
    st.tuples(st.just("truncate"), st.sampled_from(ITEMS), st.integers(-5, 200)),
    st.tuples(st.just("answer"), st.sampled_from(CALLS), st.just("{}")),
    st.just(("prompt", "x")),
    st.just(("note", "x")),
    st.just(("press", "1")),
    st.just(("hear", bytes(320))),
    st.just(("wait",)),
)


@given(st.lists(st.one_of(said, done), max_size=40))
@settings(max_examples=150, deadline=None)
def test_nothing_is_cut_twice_answered_twice_or_asked_for_at_the_wrong_time(steps: list[Any]) -> None:
    async def play() -> None:
        provider = OpenAIRealtime(OpenAIOptions(), Opening(8000, greets=False))
        session = OpenAISession(provider._happened, provider._closed)
        line = Wire(session)
        session.link = line  # type: ignore[assignment]
        provider._session = session
        cancelled: set[str] = set()
        owner: dict[str, str] = {}
        asked: list[str] = []
        for step in steps:
            before = len(provider._told._events)
            if isinstance(step, dict):
                session.message(json.dumps(step).encode())
                if step["type"] == "response.done":
                    cancelled.discard(step["response"]["id"])
            elif step[0] == "wait":
                await asyncio.sleep(10)
            else:
                if step[0] == "cancel" and session.responding:
                    cancelled.add(session.responding)
                getattr(provider, step[0])(*step[1:])
            for event in list(provider._told._events)[before:]:
                if isinstance(event, Spoke):
                    owner.setdefault(event.item_id, step["response_id"])
                    assert step["response_id"] not in cancelled
                if isinstance(event, ToolAsked):
                    assert event.ask_id not in asked or event.ask_id in [
                        item["item"]["call_id"]
                        for item in line.of("conversation.item.create")
                        if item["item"]["type"] == "function_call_output"
                    ]
                    asked.append(event.ask_id)
        cuts = Counter(
            event["item_id"] for event in line.of("conversation.item.truncate") + line.of("conversation.item.delete")
        )
        assert all(count == 1 for count in cuts.values())
        assert set(cuts) <= set(owner)
        for event in line.of("conversation.item.truncate"):
            assert 0 < event["audio_end_ms"] <= session.items[event["item_id"]].size_bytes // 16
        outputs = Counter(
            event["item"]["call_id"]
            for event in line.of("conversation.item.create")
            if event["item"]["type"] == "function_call_output"
        )
        assert all(count <= asked.count(call_id) for call_id, count in outputs.items())
        assert line.created_during == []
        await provider.aclose()

    run_virtual(play())


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_nothing_or_refused(data: bytes) -> None:
    try:
        wire.read(data)
    except RemoteProtocolError:
        return


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "response", "id", "item", "delta", "error"]), inner),
    max_leaves=8), st.sampled_from(["response.done", "error", "response.output_audio.delta", "x"]))  # fmt: skip
def test_any_json_under_a_known_name_is_an_event_or_refused(value: Any, type_: str) -> None:
    body = value if isinstance(value, dict) else {"value": value}
    try:
        wire.read(json.dumps({**body, "type": type_}).encode())
    except RemoteProtocolError:
        return
