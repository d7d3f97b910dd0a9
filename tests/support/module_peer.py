"""The audio module's end of a media connection, byte for byte in the hands of the test."""

import asyncio
import base64
import hashlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache

from tests.support.switch_peer import PATIENCE_S, eventually
from tests.wire.recordings import CAPTURES

from dueto.errors import Refused
from dueto.legs.media_server import MediaServer
from dueto.legs.ports import MediaLeg
from dueto.wire.media import AUDIO_STREAM_BINARY, StreamPath, StreamRequest

CHANNEL = "779bea1c-6dce-45dd-be52-dc01733920a2"
PATH = "/stream/{secretary}/{uuid}/{caller}"
TARGET = f"/stream/office/{CHANNEL}/1001?rate=8000&mix=mono&token=abc"
MASK = b"\x0f\xf0\xa5\x5a"


@cache
def recorded_handshake() -> bytes:
    """The module's own upgrade request, of another path."""
    rows = _rows()
    text = next(row["text"] for row in rows if row["kind"] == "raw-handshake" and row["dir"] == "fs>gw")
    return str(text).encode()


@cache
def recorded_frames() -> tuple[bytes, ...]:
    """The reads of one whole recorded stream as they came: audio, two PINGs and the CLOSE, masked."""
    rows = _rows()
    start = next(at for at, row in enumerate(rows) if row.get("text") == "STREAM_HEART_BEAT=1")
    end = next(at for at, row in enumerate(rows) if at > start and row["kind"] == "eof")
    return tuple(base64.b64decode(row["data"]) for row in rows[start:end] if row["kind"] == "raw-bytes")


def _rows() -> list[dict[str, str]]:
    lines = (CAPTURES / "10g-audio-stream-handshake-bytes" / "ws.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def handshake(target: str = TARGET, *more: str, host: str = "127.0.0.1:8087") -> bytes:
    """The recorded request for `target`, with more header lines before its end."""
    request = recorded_handshake().replace(b"/raw", target.encode(), 1).replace(b"127.0.0.1:8087", host.encode(), 1)
    return request[:-2] + "".join(f"{line}\r\n" for line in more).encode() + b"\r\n"


def accept_of(request: bytes) -> str:
    """What the answer to `request` must name as Sec-WebSocket-Accept."""
    key = request.partition(b"Sec-WebSocket-Key:")[2].partition(b"\r\n")[0].strip()
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, bits: int = 0, masked: bool = True) -> bytes:
    """One frame as a client writes it; `bits` are the reserved ones (1, 2, 4)."""
    head = bytes(((0x80 if fin else 0) | bits << 4 | opcode,))
    flag = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes((flag | len(payload),))
    elif len(payload) < 65536:
        head += struct.pack("!BH", flag | 126, len(payload))
    else:
        head += struct.pack("!BQ", flag | 127, len(payload))
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@dataclass(frozen=True)
class Frame:
    """A frame as the server wrote it."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """The code of a CLOSE."""
        return int(struct.unpack("!H", self.payload[:2])[0])


class ModulePeer:
    """One TCP connection to the media server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, *, receive_buffer_bytes: int | None = None) -> "ModulePeer":
        """Connect and say nothing yet. With a small receive buffer the kernel holds little for a slow reader."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return cls(*await asyncio.open_connection(sock=sock, limit=1 << 16))

    def send(self, *data: bytes) -> None:
        """Write in one piece."""
        self._writer.write(b"".join(data))

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Wait for the answer to the upgrade request: status, headers with names in lower case, body."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
            named = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            headers = dict(named)
            assert len(headers) == len(named), f"a header twice: {named}"
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split(" ")[1]), headers, body

    async def frame(self) -> Frame:
        """Wait for the next frame. Raises: IncompleteReadError: TCP ended before it."""
        async with asyncio.timeout(PATIENCE_S):
            first, second = await self._reader.readexactly(2)
            assert first & 0x80, "a server never sends fragments here"
            assert not second & 0x80, "a server must not mask"
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
            return Frame(first & 0xF, await self._reader.readexactly(size))

    async def ended(self) -> bytes:
        """Wait until the server has ended TCP, and return what it still said."""
        rest = b""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while data := await self._reader.read(65536):
                    rest += data
            except ConnectionError:
                pass
        return rest

    def stop_reading(self) -> None:
        """Leave what comes in the kernel's buffers."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def end(self) -> None:
        """Close our sending side, without a CLOSE."""
        self._writer.write_eof()

    def reset(self) -> None:
        """End TCP by RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def abort(self) -> None:
        """Let go of the socket, whatever state it is in."""
        self._writer.transport.abort()


@dataclass
class RememberingMediaDoor:
    """A door that lets in (or refuses) and a sink that remembers."""

    refusal: Exception | None = None
    attaches: bool = True
    asked: list[StreamRequest] = field(default_factory=list)
    legs: list[MediaLeg] = field(default_factory=list)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    heard: list[bytes | str | tuple[int, str]] = field(default_factory=list)
    "Audio as bytes, text as str, the end as (code, reason)."
    frame_bytes: int = -1
    frames: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def audio(self) -> list[bytes]:
        return [item for item in self.heard if isinstance(item, bytes)]

    @property
    def ends(self) -> list[tuple[int, str]]:
        return [item for item in self.heard if isinstance(item, tuple)]

    async def until_heard(self, count: int) -> None:
        """Wait until `count` things were heard."""
        await eventually(lambda: len(self.heard) >= count, self.changed)

    async def until_ended(self) -> tuple[int, str]:
        """Wait for the end: code and reason."""
        await eventually(lambda: bool(self.ends), self.changed)
        return self.ends[0]

    def admit_media(self, request: StreamRequest) -> None:
        self.asked.append(request)
        if self.refusal is not None:
            raise self.refusal

    def media_came(self, leg: MediaLeg) -> None:
        self.legs.append(leg)
        if self.attaches:
            leg.attach(self)
            leg.listener = self
        self.changed.set()

    def refused(self, leg: str, reason: str, peer: str) -> None:
        self.refusals.append((leg, reason))
        self.changed.set()

    def take(self, frame: bytes) -> None:
        raise AssertionError("no message is a frame as it stands")

    def message(self, data: bytes) -> None:
        self._note(data)

    def media_text(self, leg: MediaLeg, text: str) -> None:
        self._note(text)

    def media_closed(self, leg: MediaLeg, code: int, reason: str) -> None:
        self._note((code, reason))

    def _note(self, item: bytes | str | tuple[int, str]) -> None:
        self.heard.append(item)
        self.changed.set()


def refusing(reason: str, status: int) -> RememberingMediaDoor:
    """A door that lets nobody in."""
    return RememberingMediaDoor(Refused(reason, f"it is {reason}", status=status))


@dataclass
class MediaBench:
    """A media server on a free port, and clients that are let go of at the end."""

    port: int
    server: MediaServer
    peers: list[ModulePeer] = field(default_factory=list)

    async def connect(self, **how: int) -> ModulePeer:
        """A TCP connection."""
        peer = await ModulePeer.connect(self.port, **how)
        self.peers.append(peer)
        return peer

    async def stream(self, *more: str, **how: int) -> ModulePeer:
        """A connection whose upgrade is done."""
        peer = await self.connect(**how)
        peer.send(handshake(TARGET, *more))
        status, _, _ = await peer.response()
        assert status == 101
        return peer


@asynccontextmanager
async def media_bench(door: RememberingMediaDoor, *, handshake_s: float = 5.0) -> AsyncIterator[MediaBench]:
    """Serve `door` on loopback."""
    server = MediaServer(door, StreamPath(PATH), AUDIO_STREAM_BINARY, default_rate_hz=16000, handshake_s=handshake_s)
    bench = MediaBench(await server.start("127.0.0.1", 0), server)
    try:
        yield bench
    finally:
        for peer in bench.peers:
            peer.abort()
        await server.stop_listening()
