"""The three parts over HTTP, as OpenAI and all that is compatible speak it: hosted, or on a machine of one's own.

Facts: the `openai` package's types of `audio.transcriptions`, `chat.completions` and `audio.speech`.
"""

import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from dueto.agents.cascade.ports import Message, Want
from dueto.agents.link import http_fault, plain
from dueto.agents.ports import ToolSpec
from dueto.audio.pcm import write_wav
from dueto.errors import ProviderFailed

CONNECT_S: Final = 5.0
SILENCE_S: Final = 15.0
"Between two pieces of an answer."
MAX_TEXT_BYTES: Final = 1 << 20
MAX_LINE_CHARS: Final = 1 << 20
PIECE_BYTES: Final = 4800
"100 ms at 24 kHz: what is passed on at a time."


def new_client(**more: Any) -> httpx.AsyncClient:
    """Return the client that all calls of an agent share. `more`: what httpx takes besides."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    return httpx.AsyncClient(timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S), limits=limits, **more)


@dataclass(frozen=True)
class Endpoint:
    """One of the three: where it is, and what is asked of it."""

    client: httpx.AsyncClient
    base_url: str
    "`https://HOST/v1`"
    model: str
    api_key: str = field(default="", repr=False)
    name: str = "the server"
    "In texts: `OpenAI`, or the host."

    @asynccontextmanager
    async def post(self, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """Send a request, and yield its answer once it is known to be one. Raises: ProviderFailed."""
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        try:
            url = f"{self.base_url.rstrip('/')}{path}"
            async with self.client.stream("POST", url, headers=headers, **content) as response:
                if response.status_code != 200:
                    body = (await response.aread())[:MAX_TEXT_BYTES]
                    raise http_fault(self.name, response.status_code, body, (self.api_key,))
                yield response
        except httpx.TimeoutException:
            raise ProviderFailed("timeout", f"{self.name} did not answer in time") from None
        except httpx.HTTPError as error:
            said = plain(error, (self.api_key,)) or type(error).__name__
            raise ProviderFailed("dropped", f"{self.name} can't be reached, or broke off: {said}") from None


@dataclass(frozen=True)
class HttpTranscriber:
    """`POST /audio/transcriptions`, an utterance as WAV."""

    endpoint: Endpoint
    language: str = ""
    "`en`, `pt`, ...; empty: it finds out."

    async def transcribe(self, pcm: bytes, rate_hz: int) -> str:
        """Return what was said."""
        endpoint = self.endpoint
        data = {"model": endpoint.model, "response_format": "json"}
        if self.language:
            data["language"] = self.language
        files = {"file": ("utterance.wav", io.BytesIO(write_wav(pcm, rate_hz)), "audio/wav")}
        async with endpoint.post("/audio/transcriptions", data=data, files=files) as response:
            body = await response.aread()
        try:
            return str(json.loads(body)["text"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ProviderFailed("protocol", f"{endpoint.name} answered a transcription without its text") from None


@dataclass(frozen=True)
class HttpThinker:
    """`POST /chat/completions`, streamed."""

    endpoint: Endpoint
    temperature: float | None = None
    max_tokens: int = 0

    async def think(self, conversation: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncIterator[str | Want]:
        """Yield the answer as it is written, then the tools it wants."""
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "stream": True,
            "messages": [_message(message) for message in conversation],
        }
        if tools:
            body["tools"] = [_tool(tool) for tool in tools]
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.max_tokens:
            body["max_completion_tokens"] = self.max_tokens
        wants: dict[int, dict[str, str]] = {}
        async with self.endpoint.post("/chat/completions", json=body) as response:
            async for delta in self._deltas(response):
                if isinstance(text := delta.get("content"), str) and text:
                    yield text
                for call in delta.get("tool_calls") or ():
                    _gather(wants, call)
        for number in sorted(wants):
            want = wants[number]
            yield Want(want["id"] or f"call_{number}", want["name"], want["arguments"])

    async def _deltas(self, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        """Yield the `delta` of each server-sent event. Raises: ProviderFailed: it makes no sense, or is an error."""
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                return
            try:
                event: Any = json.loads(data) if len(data) <= MAX_LINE_CHARS else None
                if error := event.get("error"):
                    said = plain(
                        error.get("message", "") if isinstance(error, dict) else error, (self.endpoint.api_key,)
                    )
                    raise ProviderFailed("refused", f"{self.endpoint.name} broke off its answer: {said}")
                choices = event["choices"]
                delta = choices[0]["delta"] if choices else {}
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
                raise ProviderFailed("protocol", f"{self.endpoint.name} wrote what is no answer") from None
            yield delta


@dataclass(frozen=True)
class HttpSpeaker:
    """`POST /audio/speech`, raw PCM as it comes."""

    endpoint: Endpoint
    voice: str = "alloy"
    instructions: str = ""
    speed: float = 1.0
    rate_hz: int = 24000
    "What the server makes of `pcm`: 24 kHz at OpenAI."

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        """Yield `text` spoken."""
        body: dict[str, Any] = {"model": self.endpoint.model, "voice": self.voice, "input": text}
        body |= {"response_format": "pcm"}
        if self.instructions:
            body["instructions"] = self.instructions
        if self.speed != 1.0:
            body["speed"] = self.speed
        odd = b""
        async with self.endpoint.post("/audio/speech", json=body) as response:
            async for piece in response.aiter_bytes(PIECE_BYTES):
                pcm = odd + piece
                odd = pcm[len(pcm) & ~1 :]
                if whole := pcm[: len(pcm) & ~1]:
                    yield whole


def _message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.ask_id, "content": message.text}
    made: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.wants:
        made["content"] = message.text or None
        made["tool_calls"] = [
            {"id": want.ask_id, "type": "function", "function": {"name": want.name, "arguments": want.arguments}}
            for want in message.wants
        ]
    return made


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _gather(wants: dict[int, dict[str, str]], call: dict[str, Any]) -> None:
    """Add a piece of a tool call to what came of it before."""
    want = wants.setdefault(int(call.get("index", len(wants))), {"id": "", "name": "", "arguments": ""})
    function = call.get("function") or {}
    want["id"] = str(call.get("id") or want["id"])
    want["name"] += str(function.get("name") or "")
    want["arguments"] += str(function.get("arguments") or "")
