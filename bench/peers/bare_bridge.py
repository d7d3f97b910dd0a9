"""The limit of a bridge to OpenAI Realtime: picows on both sides, a fixed template up, one ticker down, no call.

It resamples as dueto does, paces what comes in bursts, and knows nothing of turns, of barge-in or of a control leg.
"""

import asyncio
import time
from binascii import b2a_base64
from collections import deque

import msgspec
import uvloop
from _line import Notes, answer_until_the_end, say_ports
from _realtime import FRAME_BYTES, LEAD_FRAMES, RATE_HZ, SETUP, provider, trusting
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_connect, ws_create_server

from dueto.audio.resample import Resampler

PORT, CA = provider()
CONTEXT = trusting(CA)
BINARY, TEXT, CLOSE = WSMsgType.BINARY, WSMsgType.TEXT, WSMsgType.CLOSE
bridges: "set[Bridge]" = set()
connecting: set[asyncio.Task[None]] = set()


class Said(msgspec.Struct):
    """What is read of an event."""

    type: str
    delta: bytes = b""


class Bridge(WSListener):
    """The caller's side."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.caller = transport
        self.provider: WSTransport | None = None
        self.up, self.down = Resampler(16000, RATE_HZ), Resampler(RATE_HZ, 16000)
        self.waiting: deque[bytes] = deque()
        self.rest, self.begun = b"", False
        task = asyncio.create_task(self.connect())
        connecting.add(task)
        task.add_done_callback(connecting.discard)

    async def connect(self) -> None:
        await ws_connect(lambda: Model(self), f"wss://127.0.0.1:{PORT}/v1/realtime?model=m", ssl_context=CONTEXT)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == BINARY:
            if self.provider is not None:
                audio = b2a_base64(self.up.process(frame.get_payload_as_bytes()), newline=False)
                self.provider.send(TEXT, b'{"type":"input_audio_buffer.append","audio":"' + audio + b'"}')
        elif frame.msg_type == CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        bridges.discard(self)
        if self.provider is not None:
            self.provider.disconnect()

    def heard(self, audio: bytes) -> None:
        """Cut the model's voice into frames."""
        data = self.rest + self.down.process(audio)
        whole = len(data) - len(data) % FRAME_BYTES
        self.waiting.extend([data[at : at + FRAME_BYTES] for at in range(0, whole, FRAME_BYTES)])
        self.rest = data[whole:]

    def tick(self) -> None:
        """Send the frame that is due."""
        self.begun = self.begun or len(self.waiting) >= LEAD_FRAMES
        if self.begun and self.waiting:
            self.caller.send(BINARY, self.waiting.popleft())


class Model(WSListener):
    """The provider's side."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        self.read = msgspec.json.Decoder(Said).decode

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(TEXT, SETUP.encode())
        self.bridge.provider = transport
        bridges.add(self.bridge)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == TEXT:
            event = self.read(frame.get_payload_as_memoryview())
            if event.type == "response.output_audio.delta":
                self.bridge.heard(event.delta)


async def tick() -> None:
    """One ticker for all."""
    due = time.monotonic()
    while True:
        due += 0.02
        await asyncio.sleep(max(due - time.monotonic(), 0))
        for bridge in tuple(bridges):
            bridge.tick()


async def main() -> None:
    """Serve until whoever measures is gone."""

    def listener(request: WSUpgradeRequest) -> WSListener:
        return Bridge()

    server = await ws_create_server(listener, "127.0.0.1", 0, backlog=1024)
    say_ports(media=server.sockets[0].getsockname()[1])
    ticker = asyncio.create_task(tick())
    await answer_until_the_end(Notes())
    ticker.cancel()


uvloop.run(main())
