"""A strict stand-in for OpenAI Realtime: it finds the caller's turns by ear, answers by script, and knows no mercy.

Every client event is held against what the vendor's own types allow (`tests/vendors/test_openai.py` holds these tables,
and whatever this server sends, against those types). What is not allowed is an error to the client and a line in
`violations`.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)
from tests.support.tls import server_context

from dueto.audio import ulaw_decode, ulaw_encode
from dueto.sim import tone

KEY = "sk-test-3f9a61c2"
LOUD = 500
STARTS_MS, STOPS_MS = 60, 300

COMMANDS: dict[str, set[str]] = {
    "session.update": {"session"},
    "input_audio_buffer.append": {"audio"},
    "response.create": {"response"},
    "response.cancel": {"response_id"},
    "conversation.item.create": {"item", "previous_item_id"},
    "conversation.item.truncate": {"item_id", "content_index", "audio_end_ms"},
    "conversation.item.delete": {"item_id"},
}
SESSION: dict[str, Any] = {
    "type": None,
    "output_modalities": None,
    "instructions": None,
    "tool_choice": None,
    "max_output_tokens": None,
    "tools": [{"type": None, "name": None, "description": None, "parameters": None}],
    "audio": {
        "input": {
            "format": {"type": None, "rate": None},
            "transcription": {"model": None, "language": None},
            "noise_reduction": {"type": None},
            "turn_detection": {
                "type": None,
                "create_response": None,
                "interrupt_response": None,
                "eagerness": None,
                "threshold": None,
                "silence_duration_ms": None,
            },
        },
        "output": {"format": {"type": None, "rate": None}, "voice": None, "speed": None},
    },
}
"The keys of a session, as a tree; a list stands for any number of its only member."


@dataclass(frozen=True)
class Answer:
    """What the model does when an answer is asked for."""

    text: str = "One two three four five six seven eight."
    ms: int = 1000
    "Of sound; 0: none."
    pace: float = 0.2
    "Seconds per second of sound: much faster than anybody listens."
    tool: tuple[str, str] | None = None
    "Its name and its arguments, asked for after the sound."
    delay_s: float = 0.0
    status: str = "completed"
    error: dict[str, str] | None = None
    "Of an answer that failed."
    garbage: bytes | None = None
    "Sent in place of the rest, in the middle of the sound."
    breaks: bool = False
    "The connection is reset in the middle of the sound."


@dataclass
class Heard:
    """An utterance of the model."""

    id: str
    ms: int = 0
    "How much of it was sent."
    truncated_ms: int | None = None
    deleted: bool = False


class Conversation(WSListener):
    """One connection."""

    def __init__(self, server: "FakeOpenAI", query: dict[str, str], headers: dict[str, str]) -> None:
        super().__init__()
        self.server = server
        self.query = query
        self.headers = headers
        self.received: list[dict[str, Any]] = []
        "Client events, without the audio's."
        self.sent: list[dict[str, Any]] = []
        self.session: dict[str, Any] = {}
        self.items: dict[str, Heard] = {}
        self.lines: list[tuple[str, str]] = []
        "Role and text of what the client added to the conversation."
        self.outputs: dict[str, str] = {}
        "Of tools, by call_id."
        self.audio = bytearray()
        "Of the caller: L16 at `rate_hz`."
        self.audio_ms = 0.0
        self.gone = asyncio.Event()
        self._asked: set[str] = set()
        self._transport: WSTransport | None = None
        self._answering: asyncio.Task[None] | None = None
        self._response_id = ""
        self._ids = itertools.count(1)
        self._loud_ms = self._quiet_ms = 0.0
        self._speaking = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- for tests

    @property
    def rate_hz(self) -> int:
        return 8000 if self._format() == "audio/pcmu" else 24000

    def of(self, type_: str) -> list[dict[str, Any]]:
        """The client events of one type."""
        return [event for event in self.received if event["type"] == type_]

    async def until(self, type_: str, times: int = 1) -> dict[str, Any]:
        """Wait until the client sent `times` of them; return the last."""
        await self.server.until(lambda: len(self.of(type_)) >= times)
        return self.of(type_)[times - 1]

    def close(self, code: int, reason: str) -> None:
        assert self._transport is not None
        self._transport.send_close(code, reason.encode())  # type: ignore[arg-type]
        self._transport.disconnect()

    def reset(self) -> None:
        assert self._transport is not None
        self._transport.disconnect(graceful=False)

    # -- picows' side

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        server = self.server
        server.conversations.append(self)
        server.changed.set()
        if server.closes_with is not None:
            self.close(*server.closes_with)
            return
        if server.silent:
            return
        limit = {} if server.expires_in_s is None else {"expires_at": round(time.time() + server.expires_in_s)}
        self.tell("session.created", session={"type": "realtime", "object": "realtime.session", "id": "sess_1"} | limit)
        if server.limit_s is not None:
            self._spawn(self._expire(server.limit_s))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT and not self.server.silent:
            self._take(json.loads(frame.get_payload_as_bytes()))
            self.server.changed.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        for task in self._tasks:
            task.cancel()
        self.gone.set()
        self.server.changed.set()

    # -- what the client says

    def _take(self, event: dict[str, Any]) -> None:
        type_ = event.get("type", "")
        allowed = COMMANDS.get(type_)
        if allowed is None:
            return self._violated(event, f"unknown type {type_!r}")
        if extra := event.keys() - allowed - {"type", "event_id"}:
            return self._violated(event, f"{type_} has no {sorted(extra)}")
        if type_ == "input_audio_buffer.append":
            return self._hear(base64.b64decode(event["audio"], validate=True))
        self.received.append(event)
        match type_:
            case "session.update":
                self._set_up(event)
            case "response.create":
                self._create(event)
            case "response.cancel":
                self._cancel(event)
            case "conversation.item.create":
                self._add(event)
            case "conversation.item.truncate":
                self._truncate(event)
            case "conversation.item.delete":
                self._delete(event)
        return None

    def _set_up(self, event: dict[str, Any]) -> None:
        if problem := _beyond(event["session"], SESSION, "session"):
            self._violated(event, problem)
        if event["session"].get("type") != "realtime":
            self._violated(event, "session.type must be realtime")
        if self.server.rejects_setup is not None:
            self.refuse(event, **self.server.rejects_setup)
            return
        self.session = event["session"]
        self.tell("session.updated", session=self.session)

    def _create(self, event: dict[str, Any]) -> None:
        if self._response_id:
            self.refuse(
                event, "conversation_already_has_active_response", "Conversation already has an active response"
            )
            return
        self._answer()

    def _answer(self) -> None:
        self._response_id = f"resp_{next(self._ids)}"
        answer = next(self.server.script, None)
        self._answering = self._spawn(self._speak(self._response_id, answer or Answer(ms=0, text="")))

    def _cancel(self, event: dict[str, Any]) -> None:
        if not self._response_id or event.get("response_id", self._response_id) != self._response_id:
            self.refuse(event, "response_cancel_not_active", "Cancellation failed: no active response found")
            return
        assert self._answering is not None
        asyncio.get_running_loop().call_later(self.server.cancels_after_s, self._answering.cancel)

    def _add(self, event: dict[str, Any]) -> None:
        item = event["item"]
        id_ = item.get("id") or f"item_{next(self._ids)}"
        match item.get("type"):
            case "message":
                want = "output_text" if item["role"] == "assistant" else "input_text"
                if [set(part) for part in item["content"]] != [{"type", "text"}] or item["content"][0]["type"] != want:
                    self._violated(event, f"a message of {item['role']} holds one part {want}")
                self.lines.append((item["role"], item["content"][0]["text"]))
            case "function_call_output":
                if item["call_id"] not in self._asked or set(item) != {"type", "call_id", "output"}:
                    self._violated(event, "an output that nobody asked for")
                self.outputs[item["call_id"]] = item["output"]
            case other:
                self._violated(event, f"no item of type {other}")
        self._item_events({**item, "id": id_})

    def _truncate(self, event: dict[str, Any]) -> None:
        item = self.items.get(event["item_id"])
        if item is None or item.truncated_ms is not None or item.deleted:
            return self._violated(event, "no such item, or it was truncated before")
        if event["content_index"] != 0 or not 0 < event["audio_end_ms"] <= item.ms:
            return self._violated(event, f"{event['audio_end_ms']} ms of an item that has {item.ms}")
        item.truncated_ms = event["audio_end_ms"]
        cut = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
        return self.tell("conversation.item.truncated", **cut)

    def _delete(self, event: dict[str, Any]) -> None:
        item = self.items.get(event["item_id"])
        if item is None or item.deleted:
            return self._violated(event, "no such item, or it was deleted before")
        item.deleted = True
        return self.tell("conversation.item.deleted", item_id=item.id)

    # -- the caller's voice

    def _hear(self, data: bytes) -> None:
        pcm = ulaw_decode(data) if self._format() == "audio/pcmu" else data
        self.audio += pcm
        ms = len(pcm) * 500 / self.rate_hz
        self.audio_ms += ms
        loud = bool((np.abs(np.frombuffer(pcm, np.int16).astype(np.int32)) > LOUD).any())
        self._loud_ms, self._quiet_ms = (self._loud_ms + ms, 0.0) if loud else (0.0, self._quiet_ms + ms)
        if not self._speaking and self._loud_ms >= STARTS_MS:
            self._speaking = True
            start = round(self.audio_ms - self._loud_ms)
            self.tell("input_audio_buffer.speech_started", item_id="item_caller", audio_start_ms=start)
        elif self._speaking and self._quiet_ms >= STOPS_MS:
            self._speaking = False
            self._turn_ended()

    def _turn_ended(self) -> None:
        id_ = f"item_{next(self._ids)}"
        stop = round(self.audio_ms - self._quiet_ms)
        self.tell("input_audio_buffer.speech_stopped", item_id=id_, audio_end_ms=stop)
        self.tell("input_audio_buffer.committed", item_id=id_, previous_item_id=None)
        content = [{"type": "input_audio", "transcript": None}]
        self._item_events({"id": id_, "type": "message", "role": "user", "content": content})
        if self.session["audio"]["input"].get("transcription"):
            self.tell(
                "conversation.item.input_audio_transcription.completed",
                item_id=id_,
                content_index=0,
                transcript=self.server.caller_says,
                usage={"type": "duration", "seconds": 1.0},
            )
        if not (self.session["audio"]["input"]["turn_detection"]["create_response"] and self.server.answers_turns):
            return
        if self._response_id:
            self.refuse({}, "conversation_already_has_active_response", "Conversation already has an active response")
        else:
            self._answer()

    # -- the model's voice

    async def _speak(self, response_id: str, answer: Answer) -> None:
        await asyncio.sleep(answer.delay_s)
        self.tell("response.created", response=self._response(response_id, "in_progress"))
        status, output = answer.status, []
        part = {"output_index": 0, "content_index": 0}
        try:
            if answer.ms:
                output = await self._say(response_id, answer, part)
            if answer.tool is not None and status == "completed":
                output += self._ask(response_id, answer.tool, len(output))
        except asyncio.CancelledError:
            if self._transport is None:
                raise
            status = "cancelled"
        finally:
            self._response_id = ""
        details: dict[str, Any] = {"type": status}
        if status == "cancelled":
            details["reason"] = "client_cancelled"
        if answer.error is not None:
            details["error"] = answer.error
        self.tell(
            "response.done",
            response=self._response(response_id, status)
            | {"status_details": details if status != "completed" else None, "output": output, "usage": _usage(answer)},
        )
        self.server.changed.set()

    async def _say(self, response_id: str, answer: Answer, part: dict[str, int]) -> list[dict[str, Any]]:
        item = Heard(f"item_{next(self._ids)}")
        self.items[item.id] = item
        message: dict[str, Any] = {"id": item.id, "type": "message", "role": "assistant", "content": []}
        at = {"response_id": response_id, "item_id": item.id} | part
        self.tell("response.output_item.added", response_id=response_id, output_index=0, item=message)
        self.tell("conversation.item.added", previous_item_id=None, item=message)
        self.tell("response.content_part.added", **at, part={"type": "audio", "transcript": ""})
        words = answer.text.split()
        finished = False
        try:
            for begin in range(0, answer.ms, 100):
                ms = min(100, answer.ms - begin)
                if begin >= answer.ms / 2 and answer.garbage is not None:
                    self._write(answer.garbage)
                    await asyncio.Event().wait()  # it says no more
                if begin >= answer.ms / 2 and answer.breaks:
                    self.reset()
                    await asyncio.Event().wait()
                item.ms += ms
                self.tell("response.output_audio.delta", **at, delta=self._sound(ms))
                if begin == 0:
                    self.tell("response.output_audio_transcript.delta", **at, delta=words[0])
                await asyncio.sleep(ms / 1000 * answer.pace)
            finished = True
        finally:
            if self._transport is not None:
                status = "completed" if finished else "incomplete"
                self.tell("response.output_audio.done", **at)
                self.tell("response.output_audio_transcript.done", **at, transcript=answer.text)
                self.tell("response.content_part.done", **at, part={"type": "audio", "transcript": answer.text})
                content = [{"type": "output_audio", "transcript": answer.text}]
                message |= {"status": status, "content": content}
                self.tell("conversation.item.done", previous_item_id=None, item=message)
                self.tell("response.output_item.done", response_id=response_id, output_index=0, item=message)
        return [message]

    def _ask(self, response_id: str, tool: tuple[str, str], index: int) -> list[dict[str, Any]]:
        number = next(self._ids)
        call_id, id_ = f"call_{number}", f"item_{number}"
        self._asked.add(call_id)
        name, arguments = tool
        call = {"id": id_, "type": "function_call", "name": name, "call_id": call_id}
        at = {"response_id": response_id, "output_index": index}
        added = {**call, "arguments": "", "status": "in_progress"}
        done = {**call, "arguments": arguments, "status": "completed"}
        self.tell("response.output_item.added", **at, item=added)
        self.tell("conversation.item.added", previous_item_id=None, item=added)
        of_item = {"item_id": id_, "call_id": call_id}
        self.tell("response.function_call_arguments.delta", **at, **of_item, delta=arguments)
        self.tell("response.function_call_arguments.done", **at, **of_item, name=name, arguments=arguments)
        self.tell("conversation.item.done", previous_item_id=None, item=done)
        self.tell("response.output_item.done", **at, item=done)
        return [done]

    def _sound(self, ms: int) -> str:
        pcm = tone(self.rate_hz, ms / 1000, 440.0)
        return base64.b64encode(ulaw_encode(pcm) if self.rate_hz == 8000 else pcm).decode()

    def _response(self, id_: str, status: str) -> dict[str, Any]:
        return {
            "object": "realtime.response",
            "id": id_,
            "status": status,
            "status_details": None,
            "output": [],
            "conversation_id": "conv_1",
            "output_modalities": ["audio"],
            "usage": None,
            "metadata": None,
        }

    # -- inside

    async def _expire(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        text = "Your session hit the maximum duration of 60 minutes."
        self.refuse({}, "session_expired", text)
        self.close(1001, text)

    def _item_events(self, item: dict[str, Any]) -> None:
        self.tell("conversation.item.added", previous_item_id=None, item=item)
        self.tell("conversation.item.done", previous_item_id=None, item=item)

    def _format(self) -> str:
        return str(self.session["audio"]["input"]["format"]["type"]) if self.session else "audio/pcm"

    def _violated(self, event: dict[str, Any], problem: str) -> None:
        self.server.violations.append(problem)
        self.refuse(event, "invalid_value", problem)

    def refuse(self, event: dict[str, Any], code: str = "", message: str = "", param: str | None = None) -> None:
        type_ = "server_error" if code == "server_error" else "invalid_request_error"
        error = {"type": type_, "code": code, "message": message, "param": param, "event_id": event.get("event_id")}
        self.tell("error", error=error)

    def tell(self, type_: str, **fields: Any) -> None:
        """Send a server event."""
        event = {"type": type_, "event_id": f"event_{next(self._ids)}", **fields}
        self.sent.append(event)
        self._write(json.dumps(event).encode())

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, data)

    def _spawn(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@dataclass
class FakeOpenAI:
    """The server: `async with fake_openai([Answer(...), ...]) as server`, then `server.url`."""

    script: Any = field(default_factory=lambda: iter(()))
    refuses: tuple[int, bytes] | None = None
    "The upgrade, with an HTTP status and a body."
    closes_with: tuple[int, str] | None = None
    "Right after the upgrade."
    silent: bool = False
    rejects_setup: dict[str, Any] | None = None
    expires_in_s: float | None = None
    limit_s: float | None = None
    caller_says: str = "Good morning."
    cancels_after_s: float = 0.0
    answers_turns: bool = True
    "Whether it answers by itself when the caller has finished."
    url: str = ""
    conversations: list[Conversation] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    upgrades: int = 0
    "Asked for, let in or not."
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def upgrade(self, request: WSUpgradeRequest) -> Any:
        """Let a client in, or not."""
        self.upgrades += 1
        self.changed.set()
        target = urlsplit(request.path.decode())
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        key = request.headers.get("api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.refuses is None and key != KEY:
            body = {"error": {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}}
            return _refusal(401, json.dumps(body).encode())
        if self.refuses is not None:
            return _refusal(*self.refuses)
        if not target.path.endswith("/realtime") or not ("model" in query or "deployment" in query):
            return _refusal(404, b'{"error":{"message":"no such path"}}')
        return Conversation(self, {"path": target.path, **query}, dict(request.headers))

    async def until(self, met: Callable[[], Any]) -> None:
        """Wait until `met`; something of a client changed when it is asked again."""
        async with asyncio.timeout(20):
            while not met():
                self.changed.clear()
                await self.changed.wait()

    async def conversation(self, number: int = 0) -> Conversation:
        """The connection with that number, once it is set up."""
        await self.until(lambda: len(self.conversations) > number and self.conversations[number].session)
        return self.conversations[number]


def _refusal(status: int, body: bytes) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, body), None)


def _usage(answer: Answer) -> dict[str, Any]:
    audio = answer.ms // 50
    return {
        "total_tokens": 120 + audio,
        "input_tokens": 100,
        "output_tokens": 20 + audio,
        "input_token_details": {"text_tokens": 40, "audio_tokens": 60, "cached_tokens": 0},
        "output_token_details": {"text_tokens": 20, "audio_tokens": audio},
    }


def _beyond(value: Any, tree: Any, where: str) -> str:
    """Say which key of `value` is not in `tree`; empty: all are."""
    if tree is None or not isinstance(value, dict | list):
        return ""
    if isinstance(tree, list):
        return next((problem for one in value if (problem := _beyond(one, tree[0], where))), "")
    if extra := value.keys() - tree.keys():
        return f"{where} has no {sorted(extra)}"
    return next((problem for key in value if (problem := _beyond(value[key], tree[key], f"{where}.{key}"))), "")


@contextlib.asynccontextmanager
async def fake_openai(script: Iterable[Answer] = (), *, tls: bool = False, **options: Any) -> AsyncIterator[FakeOpenAI]:
    """Run the server on loopback. At the end nothing may have been sent to it that the real one would refuse."""
    server = FakeOpenAI(script=iter(script), **options)
    listening = await ws_create_server(
        server.upgrade, "127.0.0.1", 0, ssl=server_context() if tls else None, backlog=256
    )
    port = listening.sockets[0].getsockname()[1]
    server.url = f"https://localhost:{port}/v1" if tls else f"http://127.0.0.1:{port}/v1"
    try:
        yield server
    finally:
        listening.close()
        for conversation in server.conversations:
            if not conversation.gone.is_set():
                conversation.reset()
                await asyncio.wait_for(conversation.gone.wait(), 10)
    assert not server.violations, server.violations
