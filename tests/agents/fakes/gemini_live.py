"""A strict Gemini Live on loopback: what a client says is held against the vendor's own types, and so is what it says.

A script is a coroutine per connection; `Session` has the model's side of a conversation as verbs. Like the real one it
writes its JSON into binary messages, makes speech faster than it is played, lets the caller interrupt it, offers a
handle after each turn, and refuses to resume a session whose last connection is still open (1011).
"""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from picows import WSUpgradeRequest, WSUpgradeResponse
from tests.agents.fakes.sockets import Broke, Connection, FakeServer, Hearing, either, said_json, tone

types = pytest.importorskip("google.genai.types", reason="no vendors group here: pip install -e .[vendors]")
converters = pytest.importorskip("google.genai._live_converters")

PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
KEY = "AIza-a-key-of-the-tests"
MODEL = "models/gemini-3.8-live"
INVALID = (1007, "Request contains an invalid argument.")
WRONG_KEY = (1007, "API key not valid. Please pass a valid API key.")
QUOTA = (1011, "You exceeded your current quota, please check your plan and billing details.")
EXPIRED = (1011, "Deadline expired before operation could complete.")
CHUNK_MS = 40


class Setup(types.LiveClientSetup):  # type: ignore[misc, name-defined]
    """The vendor's type, with the one field that its client writes past it. Its names come in either case."""

    realtime_input_config: types.RealtimeInputConfig | None = None  # type: ignore[name-defined]


class ClientMessage(types.LiveClientMessage):  # type: ignore[misc, name-defined]
    setup: Setup | None = None


@dataclass
class Memory:
    """A session, as it outlives its connections."""

    number: int
    turns: list[str] = field(default_factory=list)
    connection: Connection | None = None


Script = Callable[["Session"], Awaitable[None]]


class FakeGemini(FakeServer):
    """The server. `sessions`: one per connection that got through its setup, in order."""

    def __init__(
        self, script: Script, *, key: str = KEY, refuse: tuple[int, str] | None = None, speed: float = 8.0
    ) -> None:
        """`refuse`: closes each connection with this after its setup. `speed`: how much faster it speaks than plays."""
        super().__init__()
        self.script = script
        self.key = key
        self.refuse = refuse
        self.speed = speed
        self.silent = False
        "Takes the setup and never answers."
        self.sessions: list[Session] = []
        self.handles: dict[str, Memory] = {}
        self.came_to_session = asyncio.Event()

    def answer(self, request: WSUpgradeRequest, path: str) -> WSUpgradeResponse | None:
        split = urlsplit(path)
        if split.path != PATH:
            return said_json(404, {"error": {"code": 404, "message": "Not found", "status": "NOT_FOUND"}})
        given = request.headers.get("x-goog-api-key") or parse_qs(split.query).get("key", [""])[0]
        if not given:
            message = "Method doesn't allow unregistered callers (callers without established identity)."
            return said_json(403, {"error": {"code": 403, "message": message, "status": "PERMISSION_DENIED"}})
        return None

    async def serve(self, connection: Connection) -> None:
        session = Session(self, connection)
        connection.listen(session.received)
        await session.set_up.wait()
        if self.silent:
            return None
        given = connection.headers.get("x-goog-api-key") or parse_qs(urlsplit(connection.path).query)["key"][0]
        if given != self.key:
            return connection.close(*WRONG_KEY)
        if self.refuse is not None:
            return connection.close(*self.refuse)
        if session.setup["model"] != MODEL:
            model = session.setup["model"]
            return connection.close(
                1008, f"{model} is not found for API version v1beta, or is not supported for bidiGenerateContent."
            )
        if not session.resume():
            return None
        self.sessions.append(session)
        session.send({"setupComplete": {}})
        self.came_to_session.set()
        return await self.script(session)

    async def session(self, number: int) -> "Session":
        """Wait for the connection of that number, from 0."""
        while len(self.sessions) <= number:
            self.came_to_session.clear()
            await self.came_to_session.wait()
        return self.sessions[number]


class Session:
    """One connection after its setup: what was heard on it, and the model's side of it."""

    def __init__(self, server: FakeGemini, connection: Connection) -> None:
        self.server = server
        self.connection = connection
        self.setup: dict[str, Any] = {}
        self.set_up = asyncio.Event()
        self.hearing = Hearing()
        self._taken = 0
        self.memory = Memory(0)
        self.resumed = False
        self.tells_activity = True
        "Says when the caller begins and stops; not every one does."
        self.history: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.audio = bytearray()
        self.paused = asyncio.Semaphore(0)
        "Released whenever the client says that its audio pauses."
        self._texts: asyncio.Queue[str] = asyncio.Queue()
        self._asked: dict[str, asyncio.Future[Any]] = {}
        self._asks = 0
        self._awaits_history = False

    # -- what the client says

    def received(self, raw: bytes) -> None:
        try:
            said = json.loads(raw)
            message = ClientMessage.model_validate_json(raw)
        except ValueError as error:
            raise Broke(*INVALID, str(error)) from None
        _no_nulls(said)
        if len(said) != 1:
            raise Broke(*INVALID, "more than one thing in a message")
        if (message.setup is None) == (not self.set_up.is_set()):
            raise Broke(*INVALID, "the setup comes first, and once")
        if message.setup is not None:
            self._received_setup(message.setup)
        elif message.realtime_input is not None:
            self._received_realtime(message.realtime_input, _either_case(said, "realtime_input"))
        elif message.client_content is not None:
            self._received_content(message.client_content)
        elif message.tool_response is not None:
            for response in message.tool_response.function_responses or []:
                waiting = self._asked.pop(response.id or "", None)
                if waiting is None:
                    raise Broke(1008, "Requested entity was not found.", f"nobody asked for {response.id}")
                if not waiting.done():
                    waiting.set_result(response.response)
        else:
            raise Broke(*INVALID, "nothing in it")

    def _received_setup(self, setup: Setup) -> None:
        if [item.value for item in setup.generation_config.response_modalities or []] != ["AUDIO"]:
            raise Broke(*INVALID, "this model speaks")
        self.setup = setup.model_dump(mode="json", by_alias=True, exclude_none=True)
        self._awaits_history = bool(self.setup.get("historyConfig", {}).get("initialHistoryInClientContent"))
        self.set_up.set()

    def _received_realtime(self, said: Any, raw: dict[str, Any]) -> None:
        if self._awaits_history:
            raise Broke(*INVALID, "the history was promised before anything else")
        if said.media_chunks is not None or said.video is not None:
            raise Broke(*INVALID, "mediaChunks are of the past")
        if said.audio is not None:
            if said.audio.mime_type != "audio/pcm;rate=16000":
                raise Broke(*INVALID, f"audio of {said.audio.mime_type}")
            data = b64decode(raw["audio"]["data"].replace("-", "+").replace("_", "/"), validate=True)
            if not data or len(data) % 2:
                raise Broke(*INVALID, "half a sample")
            self.audio += data
            self.hearing.hear(np.frombuffer(data, "<i2"), 16000)
        if said.audio_stream_end:
            self.paused.release()
        if said.text is not None:
            self.texts.append(said.text)
            self._texts.put_nowait(said.text)

    def _received_content(self, content: Any) -> None:
        if not self._awaits_history:
            raise Broke(*INVALID, "clientContent without a promised history")
        for turn in content.turns or []:
            if turn.role not in ("user", "model") or not turn.parts:
                raise Broke(*INVALID, "a turn is the user's or the model's")
            self.history.append((turn.role, "".join(part.text or "" for part in turn.parts)))
        self._awaits_history = not content.turn_complete

    # -- what the model says

    def send(self, message: Mapping[str, Any]) -> None:
        """Say something, held against the vendor's own types."""
        unknown = set(message) - {
            "setupComplete", "serverContent", "toolCall", "toolCallCancellation", "usageMetadata", "goAway",
            "sessionResumptionUpdate", "voiceActivity",
        }  # fmt: skip
        assert not unknown, unknown
        types.LiveServerMessage.model_validate(converters._LiveServerMessage_from_mldev(dict(message)))
        self.connection.send_binary(json.dumps(message, indent=2).encode())

    def resume(self) -> bool:
        """Take up the session that the client names, or a new one; False: it was sent away."""
        handle = self.setup.get("sessionResumption", {}).get("handle", "")
        if not handle:
            self.memory = Memory(len(self.server.sessions), connection=self.connection)
            return True
        memory = self.server.handles.get(handle)
        if memory is None:
            self.connection.close(1008, "BidiGenerateContent session not found")
            return False
        if memory.connection is not None and not memory.connection.closed.is_set():
            self.server.complaints.append("resumed a session while its last connection was open")
            self.connection.close(1011, "Internal error encountered.")
            return False
        memory.connection = self.connection
        self.memory, self.resumed = memory, True
        return True

    def offers_handle(self) -> str:
        """Say how this session can be resumed."""
        handle = f"handle-{self.memory.number}-{len(self.server.handles)}"
        self.server.handles[handle] = self.memory
        self.send({"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}})
        return handle

    async def told(self) -> str:
        """Wait for the next text."""
        return await self._texts.get()

    async def hears(self, text: str) -> None:
        """Wait for the next thing that the caller says (or said already); this is what was understood."""
        turn, self._taken = self._taken, self._taken + 1
        await self.hearing.until(lambda: self.hearing.turns > turn)
        self._activity("START")
        await self.hearing.until(lambda: self.hearing.ends > turn)
        self._activity("END")
        half = len(text) // 2
        for piece in (text[:half], text[half:]):  # it comes in pieces, and nobody says which is the last
            self.send({"serverContent": {"inputTranscription": {"text": piece}}})
        self.memory.turns.append(f"caller: {text}")

    def _activity(self, what: str) -> None:
        if self.tells_activity:
            offset = f"{self.hearing.heard_ms / 1000:g}s"
            self.send({"voiceActivity": {"type": f"ACTIVITY_{what}", "audioOffset": offset}})

    async def says(self, text: str, ms: int = 400, *, hz: float = 440.0, done: bool = True) -> bool:
        """Say something; return whether it was played to its end without the caller interrupting."""
        self.send({"sessionResumptionUpdate": {}})  # not resumable just now
        begun = self.hearing.turns
        interrupted = asyncio.ensure_future(self.hearing.until(lambda: self.hearing.turns > begun))
        try:
            if await either(self._speak(text, ms, hz), interrupted):
                self.send({"serverContent": {"generationComplete": True}})
                played = asyncio.ensure_future(asyncio.sleep(ms / 1000 * (1 - 1 / self.server.speed)))
                whole = await either(played, self.hearing.until(lambda: self.hearing.turns > begun))
            else:
                whole = False
        finally:
            interrupted.cancel()
            with suppress(asyncio.CancelledError):
                await interrupted
        if not whole:
            self.send({"serverContent": {"interrupted": True}})
        self.memory.turns.append(f"model: {text}")
        if done:
            self.turn_over()
        return whole

    def turn_over(self) -> None:
        """The turn is complete; what it cost comes with it."""
        count = [{"modality": "AUDIO", "tokenCount": 25}]
        usage = {
            "promptTokenCount": 40, "responseTokenCount": 25, "totalTokenCount": 65,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 15}, *count], "responseTokensDetails": count,
        }  # fmt: skip
        self.send({"serverContent": {"turnComplete": True, "interactionStatus": "IDLE"}, "usageMetadata": usage})
        self.offers_handle()

    async def asks(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Have a tool run; return what it brought."""
        return await self.ask(name, arguments)[1]

    def ask(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, "asyncio.Future[Any]"]:
        """Have a tool run, and return at once: its id, and what it will bring."""
        declared = [tool["name"] for part in self.setup.get("tools", []) for tool in part["functionDeclarations"]]
        assert name in declared, f"{name} was never declared"
        self._asks += 1
        ask_id = f"function-call-{self.memory.number}{self._asks}"
        self._asked[ask_id] = asyncio.get_running_loop().create_future()
        self.send({"toolCall": {"functionCalls": [{"id": ask_id, "name": name, "args": dict(arguments)}]}})
        return ask_id, self._asked[ask_id]

    def withdraws(self, ask_id: str) -> None:
        """The model no longer wants that answer."""
        self._asked.pop(ask_id).cancel()
        self.send({"toolCallCancellation": {"ids": [ask_id]}})

    async def goes_away(self, left_s: float) -> None:
        """Announce the end of this connection, and end it when the time is up."""
        self.send({"goAway": {"timeLeft": f"{left_s:g}s"}})
        await asyncio.sleep(left_s)
        self.connection.close(*EXPIRED)

    async def _speak(self, text: str, ms: int, hz: float) -> None:
        pcm = tone(ms, 24000, hz)
        step = 48 * CHUNK_MS
        words = text.split(" ")
        pieces = [pcm[at : at + step] for at in range(0, len(pcm), step)]
        for index, piece in enumerate(pieces):
            content: dict[str, Any] = {
                "modelTurn": {
                    "role": "model",
                    "parts": [{"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": b64encode(piece).decode()}}],
                }
            }
            if index < len(words):  # one message may hold both
                rest = words[index:] if index == len(pieces) - 1 else words[index : index + 1]
                content["outputTranscription"] = {"text": ("" if index == 0 else " ") + " ".join(rest)}
            self.send({"serverContent": content})
            await asyncio.sleep(CHUNK_MS / 1000 / self.server.speed)


def _no_nulls(value: Any) -> None:
    """The real one does not take `{"handle": null}`."""
    if value is None:
        raise Broke(*INVALID, "a null")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _no_nulls(inner)


def _either_case(said: dict[str, Any], name: str) -> dict[str, Any]:
    camel = name.split("_")[0] + "".join(part.title() for part in name.split("_")[1:])
    return said.get(name) or said[camel]
