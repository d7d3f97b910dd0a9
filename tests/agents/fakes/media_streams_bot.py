"""A bot at the other end of Media Streams, strict about what it is told and free in what it says back."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

STREAM = {"event", "streamSid", "sequenceNumber"}
FIELDS: dict[str, set[str]] = {
    "connected": {"event", "protocol", "version"},
    "start": STREAM | {"start"},
    "media": STREAM | {"media"},
    "dtmf": STREAM | {"dtmf"},
    "mark": STREAM | {"mark"},
    "stop": STREAM | {"stop"},
}
PARTS: dict[str, set[str]] = {
    "start": {"accountSid", "streamSid", "callSid", "tracks", "mediaFormat", "customParameters"},
    "media": {"track", "chunk", "timestamp", "payload"},
    "dtmf": {"track", "digit"},
    "mark": {"name"},
    "stop": {"accountSid", "callSid"},
}
"Every message and its parts, field by field: one that is not here is an error, and so is one that is missing."


class Talk:
    """One stream, as the bot has it. Whatever is wrong about what comes is in `complaints`."""

    def __init__(self, headers: dict[str, str] | None = None, write: Callable[[str], None] = lambda text: None) -> None:
        self.headers = headers or {}
        self.start: dict[str, Any] = {}
        self.audio = bytearray()
        "Mu-law."
        self.timestamps: list[int] = []
        self.digits = ""
        self.marks: list[tuple[str, float]] = []
        "Names, and when each came back, on the loop's clock."
        self.stopped = False
        self.closed: int | None = None
        self.complaints: list[str] = []
        self.changed = asyncio.Event()
        self.write = write
        self.hang = lambda code: None
        self.abort = lambda: None
        self._sequence = 0
        self._last = ""

    # -- what the bot says

    def say(self, ulaw: bytes) -> None:
        """Audio."""
        payload = base64.b64encode(ulaw).decode()
        self.write(json.dumps({"event": "media", "streamSid": self.sid, "media": {"payload": payload}}))

    def mark(self, name: str) -> None:
        """A mark behind it."""
        self.write(json.dumps({"event": "mark", "streamSid": self.sid, "mark": {"name": name}}))

    def clear(self) -> None:
        """None of it any more."""
        self.write(json.dumps({"event": "clear", "streamSid": self.sid}))

    def close(self, code: int = 1000) -> None:
        """The bot is done, or worse."""
        self.hang(code)

    # -- what it is told

    @property
    def sid(self) -> str:
        """The stream's."""
        return str(self.start.get("streamSid", ""))

    def names(self) -> list[str]:
        """The marks that came back, in order."""
        return [name for name, _ in self.marks]

    async def until(self, true: Callable[[], bool], timeout_s: float = 15.0) -> None:
        """Wait until something is true of what came."""
        async with asyncio.timeout(timeout_s):
            while not true():
                self.changed.clear()
                await self.changed.wait()

    def take(self, text: bytes) -> None:
        """A message of the gateway."""
        message = json.loads(text)
        event = message["event"]
        if set(message) != FIELDS.get(event):
            self.complaints.append(f"{event}: fields {sorted(message)}")
        if event in PARTS and set(message[event]) != PARTS[event]:
            self.complaints.append(f"{event}: parts {sorted(message[event])}")
        if event != "connected":
            self._sequence += 1
            if message["sequenceNumber"] != str(self._sequence):
                self.complaints.append(f"{event}: number {message['sequenceNumber']} after {self._sequence - 1}")
        order = {"": "connected", "connected": "start"}.get(self._last)
        if (order and event != order) or (not order and event in ("connected", "start")) or self.stopped:
            self.complaints.append(f"{event} after {self._last or 'nothing'}")
        self._last = event
        getattr(self, f"_{event}")(message)
        if event not in ("connected", "start") and message["streamSid"] != self.sid:
            self.complaints.append(f"{event}: of another stream")
        self.changed.set()

    def _connected(self, message: dict[str, Any]) -> None:
        if (message["protocol"], message["version"]) != ("Call", "1.0.0"):
            self.complaints.append(f"connected: {message}")

    def _start(self, message: dict[str, Any]) -> None:
        self.start = message["start"]
        wanted = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        if self.start["mediaFormat"] != wanted or self.start["tracks"] != ["inbound"]:
            self.complaints.append(f"start: {self.start}")

    def _media(self, message: dict[str, Any]) -> None:
        media = message["media"]
        payload = base64.b64decode(media["payload"], validate=True)
        self.timestamps.append(int(media["timestamp"]))
        if media["chunk"] != str(len(self.timestamps)) or media["track"] != "inbound" or len(payload) != 160:
            self.complaints.append(f"media: chunk {media['chunk']}, {media['track']}, {len(payload)} bytes")
        self.audio += payload

    def _dtmf(self, message: dict[str, Any]) -> None:
        if message["dtmf"]["track"] != "inbound_track":
            self.complaints.append(f"dtmf: {message}")
        self.digits += message["dtmf"]["digit"]

    def _mark(self, message: dict[str, Any]) -> None:
        self.marks.append((message["mark"]["name"], asyncio.get_running_loop().time()))

    def _stop(self, message: dict[str, Any]) -> None:
        self.stopped = True

    def ended(self, code: int) -> None:
        """The connection is gone; `code` is what the gateway's CLOSE said, 0 without one."""
        self.closed = code
        self.changed.set()


Script = Callable[[Talk], Awaitable[None]]


class _Listener(WSListener):
    def __init__(self, bot: "Bot", headers: dict[str, str]) -> None:
        super().__init__()
        self._bot = bot
        self.talk = Talk(headers)
        self._task: asyncio.Task[None] | None = None
        self._code = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.talk.write = lambda text: transport.send(WSMsgType.TEXT, text.encode())
        self.talk.hang = lambda code: transport.send_close(WSCloseCode(code))
        self.talk.abort = lambda: transport.disconnect(graceful=False)
        self._bot.talks.append(self.talk)
        self._bot.came.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.talk.take(frame.get_payload_as_bytes())
            if self._task is None and self.talk.start:
                self._task = asyncio.ensure_future(self._bot.script(self.talk))
        elif frame.msg_type == WSMsgType.CLOSE:
            self._code = int(frame.get_close_code())
            if not transport.is_close_frame_sent:
                transport.send_close(WSCloseCode(self._code or 1000))
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._task is not None:
            self._task.cancel()
            self._bot.tasks.append(self._task)
        self.talk.ended(self._code)


@dataclass
class Bot:
    """The server."""

    script: Script
    port: int = 0
    refuses: int = 0
    "An HTTP status instead of the upgrade."
    talks: list[Talk] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"ws://127.0.0.1:{self.port}/ws"

    async def talk(self, number: int = 0) -> Talk:
        """The stream with that number, once it is there."""
        async with asyncio.timeout(15):
            while len(self.talks) <= number:
                self.came.clear()
                await self.came.wait()
        return self.talks[number]


async def listens(talk: Talk) -> None:
    """The script of a bot that says nothing."""


@asynccontextmanager
async def bot(script: Script = listens) -> AsyncIterator[Bot]:
    """Open it on a free port of loopback; at the end nothing may have been wrong about what it was told."""
    here = Bot(script)

    def upgrade(request: WSUpgradeRequest) -> Any:
        if here.refuses:
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(here.refuses), None)
        headers = {str(name).lower(): str(value) for name, value in request.headers.items()}
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(), _Listener(here, headers))

    server = await ws_create_server(upgrade, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        for talk in here.talks:
            talk.abort()
        for task in here.tasks:
            if task.done() and not task.cancelled():
                task.result()
        await server.wait_closed()
    assert [complaint for talk in here.talks for complaint in talk.complaints] == []
