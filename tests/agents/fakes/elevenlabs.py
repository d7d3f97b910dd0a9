"""A strict ElevenLabs agent on loopback: its HTTP door for signed URLs, and the conversation's WebSocket.

The initiation is held against the vendor's own types, and nothing may be over (`model_extra`); the names of events are
the vendor's, too. What else a message may hold is written down here, from the vendor's published AsyncAPI contract.
"""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from picows import WSUpgradeRequest, WSUpgradeResponse
from tests.agents.fakes.sockets import Broke, Connection, FakeServer, Hearing, either, said_json, tone

from dueto.audio.g711 import ulaw_decode, ulaw_encode

pytest.importorskip("elevenlabs", reason="no vendors group here: pip install -e .[vendors]")
from elevenlabs.types.asr_input_format import AsrInputFormat
from elevenlabs.types.client_event import ClientEvent
from elevenlabs.types.client_tool_config_input import ClientToolConfigInput
from elevenlabs.types.conversation_initiation_client_data_request_input import (
    ConversationInitiationClientDataRequestInput,
)
from pydantic import BaseModel

KEY = "sk_a-key-of-the-tests"
AGENT = "agent_01receptionist"
SOCKET_PATH = "/v1/convai/conversation"
SIGNED_URL_PATHS = ("/v1/convai/conversation/get-signed-url", "/v1/convai/conversation/get_signed_url")
EVENTS = {*get_args(get_args(ClientEvent)[0]), "error"}
FORMATS = set(get_args(get_args(AsrInputFormat)[0]))
CHUNK_MS = 100
ALL_OVERRIDES = frozenset({"agent.prompt", "agent.first_message", "agent.language", "tts.voice_id"})

_MESSAGES: Mapping[str, tuple[Mapping[str, type], frozenset[str]]] = {
    "pong": ({"event_id": int}, frozenset()),
    "user_message": ({"text": str}, frozenset()),
    "user_activity": ({}, frozenset()),
    "contextual_update": ({"text": str}, frozenset()),
    "client_tool_result": ({"tool_call_id": str, "result": str, "is_error": bool}, frozenset()),
    "feedback": ({"event_id": int, "score": str}, frozenset()),
}
"What a message must hold, beside its type."


@dataclass(frozen=True)
class Agent:
    """How the agent is set up at ElevenLabs."""

    first_message: str = "Good morning, this is Dueto."
    output_format: str = "pcm_16000"
    input_format: str = "pcm_16000"
    overrides: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()
    "Dynamic variables that its prompt needs."
    tools: frozenset[str] = frozenset()
    private: bool = True
    vad_scores: bool = False


Script = Callable[["Session"], Awaitable[None]]


class FakeElevenLabs(FakeServer):
    """The server. `sessions`: the conversations that began, in order."""

    def __init__(self, script: Script, agent: Agent | None = None, *, key: str = KEY, speed: float = 8.0) -> None:
        super().__init__()
        self.script = script
        self.agent = agent or Agent()
        self.key = key
        self.speed = speed
        self.refuse: tuple[int, str] | None = None
        "Closes each conversation with this, before its metadata."
        self.silent = False
        self.out_of_order = 0
        "An HTTP status for all requests."
        self.sessions: list[Session] = []
        self._signatures: set[str] = set()
        self.gave_address = asyncio.Event()
        self._came = asyncio.Event()
        assert {self.agent.output_format, self.agent.input_format} <= FORMATS

    @property
    def addresses_given(self) -> int:
        """How often a signed URL was asked for, and given."""
        return len(self._signatures)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: WSUpgradeRequest, path: str) -> WSUpgradeResponse | None:
        split = urlsplit(path)
        query = parse_qs(split.query)
        if self.out_of_order:
            return said_json(self.out_of_order, {"detail": {"status": "internal", "message": "try later"}})
        if split.path in SIGNED_URL_PATHS:
            return self._signed_url(request.headers.get("xi-api-key", ""), query.get("agent_id", [""])[0])
        if split.path != SOCKET_PATH:
            return said_json(404, {"detail": "Not Found"})
        return None

    def _signed_url(self, key: str, agent_id: str) -> WSUpgradeResponse:
        if key != self.key:
            return said_json(401, {"detail": {"status": "invalid_api_key", "message": f"Invalid API key {key}"}})
        if agent_id != AGENT:
            message = f"Document with id {agent_id} not found."
            return said_json(404, {"detail": {"status": "document_not_found", "message": message}})
        signature = f"cvtkn_{len(self._signatures)}"
        self._signatures.add(signature)
        self.gave_address.set()
        query = urlencode({"agent_id": agent_id, "conversation_signature": signature})
        return said_json(200, {"signed_url": f"ws://127.0.0.1:{self.port}{SOCKET_PATH}?{query}"})

    async def serve(self, connection: Connection) -> None:
        query = parse_qs(urlsplit(connection.path).query)
        unknown = set(query) - {"agent_id", "conversation_signature", "source", "version", "environment", "branch_id"}
        if unknown:
            self.complaints.append(f"unknown parameters: {unknown}")
        if query.get("agent_id", [""])[0] != AGENT:
            return connection.close(3000, "The AI agent you are trying to reach does not exist.")
        signature = query.get("conversation_signature", [""])[0]
        if self.agent.private and signature not in self._signatures:
            return connection.close(3000, "Could not authorize the conversation.")
        session = Session(self, connection)
        connection.listen(session.received)
        await session.initiated.wait()
        if self.silent:
            return None
        if self.refuse is not None:
            code, reason = self.refuse
            session.send({"type": "error", "message": f"received {code} {reason}"})
            return connection.close(code, reason)
        metadata = {
            "conversation_id": f"conv_{len(self.sessions)}",
            "agent_output_audio_format": self.agent.output_format,
            "user_input_audio_format": self.agent.input_format,
        }
        session.send({"type": "conversation_initiation_metadata", "conversation_initiation_metadata_event": metadata})
        self.sessions.append(session)
        self._came.set()
        session.ping()
        return await self.script(session)

    async def session(self, number: int = 0) -> "Session":
        """Wait for the conversation of that number."""
        while len(self.sessions) <= number:
            self._came.clear()
            await self._came.wait()
        return self.sessions[number]


class Session:
    """One conversation: what was heard in it, and the agent's side."""

    def __init__(self, server: FakeElevenLabs, connection: Connection) -> None:
        self.server = server
        self.connection = connection
        self.initiation: dict[str, Any] = {}
        self.initiated = asyncio.Event()
        self.hearing = Hearing()
        self._taken = 0
        self.audio = bytearray()
        self.context: list[str] = []
        self.active = asyncio.Semaphore(0)
        self.pongs: list[int] = []
        self.sent: list[int] = []
        "The ids of the audio that was sent."
        self._event_id = 0
        self._messages: asyncio.Queue[str] = asyncio.Queue()
        self._asked: dict[str, asyncio.Future[tuple[str, bool]]] = {}
        self._pings: set[int] = set()

    @property
    def first_message(self) -> str:
        """What the agent is to say first: its own, or the override."""
        override = self.initiation.get("conversation_config_override", {}).get("agent", {})
        return str(override.get("first_message", self.server.agent.first_message))

    # -- what the client says

    def received(self, raw: bytes) -> None:
        try:
            said = json.loads(raw)
        except ValueError as error:
            raise Broke(1008, "Invalid JSON", str(error)) from None
        if "user_audio_chunk" in said:
            self._received_audio(said)
            return
        kind = said.get("type")
        if (kind == "conversation_initiation_client_data") == self.initiated.is_set():
            raise Broke(1008, "Invalid message received", "the initiation comes first, and once")
        if kind == "conversation_initiation_client_data":
            self._received_initiation(said)
            return
        if kind not in _MESSAGES:
            raise Broke(1008, "Invalid message received", f"no message is called {kind}")
        fields, _ = _MESSAGES[kind]
        if set(said) != {"type", *fields} or any(type(said[name]) is not kind for name, kind in fields.items()):
            raise Broke(1008, "Invalid message received", f"{kind} wants {sorted(fields)}")
        match kind:
            case "pong":
                if said["event_id"] not in self._pings:
                    raise Broke(1008, "Invalid message received", "a pong to no ping")
                self._pings.discard(said["event_id"])
                self.pongs.append(said["event_id"])
            case "user_message":
                self._messages.put_nowait(said["text"])
            case "contextual_update":
                self.context.append(said["text"])
            case "user_activity":
                self.active.release()
            case "client_tool_result":
                waiting = self._asked.pop(said["tool_call_id"], None)
                if waiting is None:
                    raise Broke(1008, "Invalid message received", "a result that nobody asked for")
                waiting.set_result((said["result"], said["is_error"]))

    def _received_audio(self, said: dict[str, Any]) -> None:
        if set(said) != {"user_audio_chunk"} or not self.initiated.is_set():
            raise Broke(1008, "Invalid message received", "audio comes alone, after the initiation")
        data = b64decode(said["user_audio_chunk"], validate=True)
        coding, _, rate = self.server.agent.input_format.partition("_")
        pcm = ulaw_decode(data) if coding == "ulaw" else data
        if not pcm or len(pcm) % 2:
            raise Broke(1008, "Invalid message received", "half a sample")
        self.audio += data
        self.hearing.hear(np.frombuffer(pcm, "<i2"), int(rate))

    def _received_initiation(self, said: dict[str, Any]) -> None:
        body = {name: value for name, value in said.items() if name != "type"}
        try:
            complaint = over(ConversationInitiationClientDataRequestInput.model_validate(body))
        except ValueError as error:
            raise Broke(1008, "Invalid message received", str(error)) from None
        if complaint:
            raise Broke(1008, "Invalid message received", f"unknown: {complaint}")
        override = body.get("conversation_config_override", {})
        wanted = {f"{part}.{name}" for part, values in override.items() for name in values}
        for field in sorted(wanted - self.server.agent.overrides):
            raise Broke(1008, f"Override for field '{field.partition('.')[2]}' is not allowed by config.")
        missing = self.server.agent.variables - set(body.get("dynamic_variables", {}))
        if missing:
            raise Broke(1008, f"Missing required dynamic variables in first message: {missing}")
        self.initiation = body
        self.initiated.set()

    # -- what the agent says

    def send(self, message: Mapping[str, Any]) -> None:
        assert message["type"] in EVENTS, message["type"]
        self.connection.send_text(json.dumps(message).encode())

    def ping(self, ping_ms: int | None = None) -> None:
        """Measure the round trip; the client has to answer."""
        event_id = self._next()
        self._pings.add(event_id)
        self.send({"type": "ping", "ping_event": {"event_id": event_id, "ping_ms": ping_ms}})

    async def told(self) -> str:
        """Wait for the next text message."""
        return await self._messages.get()

    async def hears(self, text: str) -> None:
        """Wait for the next thing that the caller says (or said already); this is what was understood."""
        turn, self._taken = self._taken, self._taken + 1
        await self.hearing.until(lambda: self.hearing.turns > turn)
        if self.server.agent.vad_scores:
            self.send({"type": "vad_score", "vad_score_event": {"vad_score": 0.98}})
        await self.hearing.until(lambda: self.hearing.ends > turn)
        if self.server.agent.vad_scores:
            self.send({"type": "vad_score", "vad_score_event": {"vad_score": 0.02}})
        event = {"user_transcript": text, "event_id": self._next()}
        self.send({"type": "user_transcript", "user_transcription_event": event})

    async def says(self, text: str, ms: int = 400, *, hz: float = 440.0) -> bool:
        """Say something; return whether it was played to its end without the caller interrupting."""
        begun = self.hearing.turns
        event = {"agent_response": text, "event_id": self._next()}
        self.send({"type": "agent_response", "agent_response_event": event})
        speaking = asyncio.ensure_future(self._speak(ms, hz))
        try:
            whole = await either(
                _after(speaking, ms / 1000 * (1 - 1 / self.server.speed)),
                self.hearing.until(lambda: self.hearing.turns > begun),
            )
        finally:
            speaking.cancel()
            with suppress(asyncio.CancelledError):
                await speaking
        if not whole:
            self.interrupts(text)
        return whole

    def interrupts(self, text: str = "", *, up_to: int | None = None) -> None:
        """The caller has interrupted: nothing up to that id (the last one sent) is to be played any more."""
        event_id = self._event_id if up_to is None else up_to
        self.send({"type": "interruption", "interruption_event": {"event_id": event_id}})
        if text:
            corrected = f"{text[:5]}..."
            event = {"original_agent_response": text, "corrected_agent_response": corrected, "event_id": event_id}
            self.send({"type": "agent_response_correction", "agent_response_correction_event": event})

    def sends_audio(self, pcm: bytes, event_id: int | None = None) -> None:
        """Send a piece of speech: L16 at the rate of the agent's output format."""
        self.sent.append(event_id if event_id is not None else self._next())
        coding = self.server.agent.output_format.partition("_")[0]
        data = ulaw_encode(pcm) if coding == "ulaw" else pcm
        event = {"audio_base_64": b64encode(data).decode(), "event_id": self.sent[-1]}
        self.send({"type": "audio", "audio_event": event})

    @property
    def rate_hz(self) -> int:
        return int(self.server.agent.output_format.partition("_")[2])

    async def asks(self, name: str, parameters: Mapping[str, Any]) -> tuple[str, bool]:
        """Have a client tool run; return its result, and whether it is an error."""
        assert name in self.server.agent.tools, f"the agent has no client tool {name}"
        call_id = f"toolu_{self._next()}"
        self._asked[call_id] = asyncio.get_running_loop().create_future()
        call = {
            "tool_name": name,
            "tool_call_id": call_id,
            "parameters": dict(parameters),
            "event_id": self._event_id,
        }
        self.send({"type": "client_tool_call", "client_tool_call": call})
        return await self._asked[call_id]

    def fails(self, code: int, error_type: str, message: str) -> None:
        """Say why, and close."""
        event = {"code": code, "error_type": error_type, "message": message}
        self.send({"type": "error", "error_event": event})
        self.connection.close(code, message)

    def _next(self) -> int:
        self._event_id += 1
        return self._event_id

    async def _speak(self, ms: int, hz: float) -> None:
        pcm = tone(ms, self.rate_hz, hz)
        step = 2 * self.rate_hz * CHUNK_MS // 1000
        for at in range(0, len(pcm), step):
            self.sends_audio(pcm[at : at + step])
            await asyncio.sleep(CHUNK_MS / 1000 / self.server.speed)


async def _after(task: "asyncio.Task[None]", more_s: float) -> None:
    await asyncio.shield(task)
    await asyncio.sleep(more_s)


def over(model: BaseModel, where: str = "") -> list[str]:
    """Return what a message holds that its type knows nothing of, however deep."""
    found = [f"{where}{name}" for name in model.model_extra or ()]
    for name in type(model).model_fields:
        value = getattr(model, name)
        for inner in value if isinstance(value, list) else value.values() if isinstance(value, dict) else (value,):
            if isinstance(inner, BaseModel):
                found += over(inner, f"{where}{name}.")
    return found


def check_tool(config: Mapping[str, Any]) -> list[str]:
    """Return what a printed client tool holds that ElevenLabs knows nothing of."""
    assert config["type"] == "client"
    return over(ClientToolConfigInput.model_validate({name: value for name, value in config.items() if name != "type"}))
