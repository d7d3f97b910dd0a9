"""A strict server of the three HTTP calls of a cascade: transcription, chat (streamed), speech (streamed)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Literal

from dueto.audio.pcm import read_wav
from dueto.sim import tone

KEY = "sk-only-for-tests"
Piece = dict[str, Any]
CHAT_KEYS = {"model", "stream", "messages", "tools", "temperature", "max_completion_tokens"}
SPEECH_KEYS = {"model", "voice", "input", "response_format", "instructions", "speed"}


def text(*pieces: str) -> list[Piece]:
    """The deltas of an answer in words."""
    return [{"content": piece} for piece in pieces]


def tool(name: str, arguments: str, ask_id: str = "call_1") -> list[Piece]:
    """The deltas of a tool call, in pieces as the real one sends them."""
    half = len(arguments) // 2
    first = {"index": 0, "id": ask_id, "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": part}} for part in (arguments[:half], arguments[half:])]
    return [{"tool_calls": [call]} for call in (first, *rest)]


@dataclass
class FakeOpenAIHttp:
    """`says`: the words of each utterance. `answers`: the deltas to a conversation. `fails`: path to (status, body)."""

    says: Iterator[str]
    answers: Callable[[list[dict[str, Any]]], list[Piece]]
    fails: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    breaks_off: Literal["", "chat", "speech"] = ""
    port: int = 0
    chats: list[dict[str, Any]] = field(default_factory=list)
    spoken: list[str] = field(default_factory=list)
    utterances_ms: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeOpenAIHttp"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 22)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
        assert not self.complaints, self.complaints

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            try:
                await self._answer(line.split()[1], headers, body, writer)
            except AssertionError as error:
                self.complaints.append(str(error))
                _plain(writer, 400, json.dumps({"error": {"message": str(error)}}).encode())
            await writer.drain()
        writer.close()

    async def _answer(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        if headers.get("authorization") != f"Bearer {KEY}":
            _plain(writer, 401, json.dumps({"error": {"message": f"Incorrect API key: {headers}"}}).encode())
        elif path in self.fails:
            _plain(writer, *self.fails[path])
        elif path == "/v1/audio/transcriptions":
            _plain(writer, 200, json.dumps({"text": self._transcribe(headers["content-type"], body)}).encode())
        elif path == "/v1/chat/completions":
            await self._chat(json.loads(body), writer)
        elif path == "/v1/audio/speech":
            await self._speech(json.loads(body), writer)
        else:
            raise AssertionError(f"no such path: {path}")

    def _transcribe(self, content_type: str, body: bytes) -> str:
        message = BytesParser(EmailMessage, policy=HTTP).parsebytes(
            b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
        )
        parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        assert set(parts) <= {"file", "model", "response_format", "language"}, set(parts)
        wav = read_wav(parts["file"].get_payload(decode=True))
        self.utterances_ms.append(len(wav.pcm) * 500 // wav.rate_hz)
        return next(self.says)

    async def _chat(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        assert set(asked) <= CHAT_KEYS, set(asked) - CHAT_KEYS
        assert asked["stream"] is True
        _check_order(asked["messages"])
        self.chats.append(asked)
        _streamed(writer, "text/event-stream")
        for delta in self.answers(asked["messages"]):
            await _chunk(writer, _event(delta))
            if self.breaks_off == "chat":
                return
        await _chunk(writer, _event({}, "stop") + b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    async def _speech(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        assert set(asked) <= SPEECH_KEYS, set(asked) - SPEECH_KEYS
        assert asked["response_format"] == "pcm"
        self.spoken.append(asked["input"])
        _streamed(writer, "application/octet-stream")
        pcm = tone(24000, 0.02 * len(asked["input"]), 440.0)
        for at in range(0, len(pcm), 4801):  # an odd size: half a sample at each end
            await _chunk(writer, pcm[at : at + 4801])
            if self.breaks_off == "speech":
                return
        writer.write(b"0\r\n\r\n")


def _event(delta: Piece, finish: str | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "test",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()


def _check_order(messages: list[dict[str, Any]]) -> None:
    """What the real one refuses: outcomes of tools anywhere but right behind the message that wanted them."""
    wanted: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in wanted, f"nobody wanted {message}"
            wanted.discard(message["tool_call_id"])
            continue
        assert not wanted, f"no outcome of {wanted}"
        assert message["content"] or message.get("tool_calls"), message
        wanted = {call["id"] for call in message.get("tool_calls", ())}
    assert not wanted, f"no outcome of {wanted}"


def _plain(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n".encode())
    writer.write(b"Content-Type: application/json\r\n\r\n" + body)


def _streamed(writer: asyncio.StreamWriter, content_type: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()
