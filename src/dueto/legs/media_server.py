"""The media leg: a WebSocket server on picows. The switch's audio module is the client.

picows does the framing; what it leaves to its user is checked here: fragments (it bounds a frame, not a message),
reserved bits, UTF-8, stray continuations, the code of a CLOSE. It bounds the handshake itself (16 kB, 128 headers).
"""

import asyncio
import contextlib
import fcntl
import re
import socket
import struct
import termios
from typing import cast

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

from dueto.errors import Refused
from dueto.legs.ports import MediaDoor, MediaSink
from dueto.wire.media import Dialect, StreamPath, StreamRequest

MAX_MESSAGE_BYTES = 1 << 16
"200 ms of 48 kHz stereo are 38400 bytes; metadata has 8191 at most."
SEND_BUFFER_BYTES = 16384
"The kernel doubles it. With its default, 119 s of audio vanish into it before a slow reader shows (measured)."
UNREAD_LIMIT_BYTES = 1 << 20
"A switch that takes nothing for so long is cut off: 32 s of 16 kHz audio."
HANDSHAKE_S = 5.0
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?")


class PicowsMediaLeg(WSListener):
    """One audio stream, a `legs.ports.MediaLeg`."""

    def __init__(self, door: MediaDoor, request: StreamRequest, dialect: Dialect, host: str = "") -> None:
        super().__init__()
        self.request = request
        self.base_url = f"ws://{host}" if _HOST.fullmatch(host) else ""
        self.dialect = dialect
        self.peer = ""
        self.closed = False
        self._door = door
        self._sink: MediaSink | None = None
        self._transport: WSTransport | None = None
        self._fragments = bytearray()
        self._fragment_type: WSMsgType | None = None
        self._code, self._reason = 1006, "connection lost without a CLOSE"
        self._fd = -1

    # -- picows' side

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        raw = transport.underlying_transport
        peer = raw.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        sock = raw.get_extra_info("socket")
        if sock is not None:
            self._fd = sock.fileno()
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._door.media_came(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.BINARY and frame.fin and self._fragment_type is None and not frame.rsv1:
            if self._sink is not None:  # the path of every frame; its memory dies with this call, hence the copy
                self._sink.media_audio(self, frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            code = cast(int, frame.get_close_code())
            self._code, self._reason = code or 1005, (frame.get_close_message() or b"").decode("utf-8", "replace")
            self._finish(code or 1000)
        elif kind in (WSMsgType.PING, WSMsgType.PONG):
            return  # picows answers PING by itself
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._broken(1002, "reserved bit set")
        else:
            self._fragment(kind, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed = True
        self._fd = -1
        self._transport = None
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.media_closed(self, self._code, self._reason)

    # -- what the call may do

    def attach(self, sink: MediaSink) -> None:
        """Say who listens. The leg has heard nothing before: frames come after `media_came` returns."""
        self._sink = sink

    def send_audio(self, frame: bytes) -> None:
        """Send one binary message."""
        if self._transport is not None:
            self._transport.send(WSMsgType.BINARY, frame)

    def send_text(self, text: str) -> None:
        """Send one text message."""
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, text.encode())

    def backlog_bytes(self) -> int:
        """Our write buffer and what the kernel holds unacknowledged (SIOCOUTQ)."""
        if self._transport is None or self._fd < 0:
            return 0
        waiting = self._transport.underlying_transport.get_write_buffer_size()
        with contextlib.suppress(OSError):
            waiting += struct.unpack("i", fcntl.ioctl(self._fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        if waiting > UNREAD_LIMIT_BYTES:
            self._code, self._reason = 1006, "the switch reads no audio"
            self._transport.disconnect(graceful=False)
        return int(waiting)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send CLOSE and close TCP at once: the switch's channel waits for that for up to a second."""
        if self._transport is not None and not self.closed:
            self._code, self._reason = code, reason or "closed by us"
            self._finish(code)

    # -- inside

    def _finish(self, code: int) -> None:
        transport = self._transport
        if transport is None:
            return
        if not transport.is_close_frame_sent:
            transport.send_close(cast(WSCloseCode, code))
        transport.disconnect()

    def _broken(self, code: int, reason: str) -> None:
        self._code, self._reason = code, reason
        self._door.refused("media", "protocol_error", self.peer)
        self._finish(code)

    def _fragment(self, kind: WSMsgType, frame: WSFrame) -> None:
        """Everything that is not one whole binary message: text, and messages in pieces."""
        if (kind == WSMsgType.CONTINUATION) == (self._fragment_type is None):
            return self._broken(1002, "a continuation of nothing, or a new message within one")
        if self._fragment_type is None:
            self._fragment_type = kind
        self._fragments += frame.get_payload_as_memoryview()
        if len(self._fragments) > MAX_MESSAGE_BYTES:
            return self._broken(1009, f"a message of more than {MAX_MESSAGE_BYTES} bytes")
        if not frame.fin:
            return None
        message, kind = bytes(self._fragments), self._fragment_type
        self._fragments.clear()
        self._fragment_type = None
        if kind == WSMsgType.BINARY:
            if self._sink is not None:
                self._sink.media_audio(self, message)
            return None
        try:
            text = message.decode()
        except UnicodeDecodeError:
            return self._broken(1007, "text that is no UTF-8")
        if self._sink is not None:
            self._sink.media_text(self, text)
        return None


class MediaServer:
    """Accepts the audio modules' WebSockets on one address."""

    def __init__(self, door: MediaDoor, path: StreamPath, dialect: Dialect, *, default_rate_hz: int = 16000) -> None:
        self._door = door
        self._path = path
        self._dialect = dialect
        self._default_rate_hz = default_rate_hz
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (a free one for 0). Raises: OSError: the address is taken or not ours."""
        self._server = await ws_create_server(
            self._listener,
            host,
            port,
            websocket_handshake_timeout=HANDSHAKE_S,
            max_frame_size=MAX_MESSAGE_BYTES,
            read_buffer_init_size=4096,
            backlog=1024,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop_listening(self) -> None:
        """Accept nobody any more; streams that are up live on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _listener(self, upgrade: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        """Decide on one request. Synchronous: the module gives the whole connection one second."""
        try:
            request = self._path.parse(bytes(upgrade.path), default_rate_hz=self._default_rate_hz)
            self._door.admit_media(request)
        except Refused as refused:
            self._door.refused("media", refused.reason, "")
            body = f"{refused}\n".encode("ascii", "replace")
            headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
            return WSUpgradeResponseWithListener(
                WSUpgradeResponse.create_error_response(refused.status, body, headers), None
            )
        leg = PicowsMediaLeg(self._door, request, self._dialect, upgrade.headers.get("Host", ""))
        offered = upgrade.headers.get("Sec-WebSocket-Protocol", "")
        if "audio.drachtio.org" in offered:  # mod_audio_fork offers it and expects it back
            response = WSUpgradeResponse.create_101_response([("Sec-WebSocket-Protocol", "audio.drachtio.org")])
            return WSUpgradeResponseWithListener(response, leg)
        return leg
