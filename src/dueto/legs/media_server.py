"""The media leg: a WebSocket server on picows. The switch's audio module is the client.

picows does the framing; what it leaves to its user is checked here: fragments (it bounds a frame, not a message),
reserved bits, UTF-8, stray continuations, the code of a CLOSE. It bounds the handshake itself (16 kB, 128 headers).
"""

import asyncio
import contextlib
import fcntl
import re
import socket
import sys
import termios
from collections.abc import Callable
from functools import partial
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
from dueto.legs.keepalive import keep_alive
from dueto.legs.listening import BACKLOG, ListeningSocket, listen
from dueto.legs.ports import DEAF, Listener, MediaDoor, MediaSink
from dueto.wire.media import Dialect, StreamPath, StreamRequest
from dueto.wire.media.audio_fork import SUBPROTOCOL

MAX_MESSAGE_BYTES = 1 << 16
"200 ms of 48 kHz stereo are 38400 bytes; metadata has 8191 at most."
SEND_BUFFER_BYTES = 16384
"The kernel doubles it. With its default, 119 s of audio vanish into it before a slow reader shows (measured)."
UNREAD_AUDIO_BYTES = 1 << 20
"A switch that leaves so much of its audio unread is cut off: 32 s at 16 kHz."
UNREAD_TEXT_BYTES = 16 << 20
"The same for text, which holds whole utterances: six minutes at 16 kHz, as base64."
HANDSHAKE_S = 5.0
CLOSE_S = 0.5
"How long the answer to our CLOSE is waited for. (The switch itself waits 1 s for ours, and for the end of TCP.)"
_BINARY, _CLOSE = WSMsgType.BINARY, WSMsgType.CLOSE
"Looked up once: a member of an Enum costs as much as a call, and these are asked for every frame."
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?")


class PicowsMediaLeg(WSListener):
    """One audio stream, a `legs.ports.MediaLeg`."""

    def __init__(
        self, door: MediaDoor, request: StreamRequest, dialect: Dialect, host: str = "", offers: str = ""
    ) -> None:
        super().__init__()
        self.listener: Listener = DEAF
        self.send_audio: Callable[[bytes], None] = _nowhere
        "Send one binary message. It is picows' own method, as nothing of ours has a say in a frame."
        self._fragment_type: WSMsgType | None = None
        self.request = request
        self.offers = offers
        self.base_url = f"ws://{host}" if _HOST.fullmatch(host) else ""
        self.dialect = dialect
        self.peer = ""
        self.closed = False
        self.filler_ms = 0
        self._door = door
        self._sink: MediaSink | None = None
        self._transport: WSTransport | None = None
        self._unwritten_bytes: Callable[[], int] = _nothing_unwritten
        self._fragments = bytearray()
        self._code, self._reason = 1006, "connection lost without a CLOSE"
        self._deadline: asyncio.TimerHandle | None = None
        self._gone = False
        self._fd = -1

    # -- picows' side

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        raw = transport.underlying_transport
        self._unwritten_bytes = raw.get_write_buffer_size
        raw.set_write_buffer_limits(high=UNREAD_AUDIO_BYTES)
        self.send_audio = partial(transport.send, _BINARY)
        peer = raw.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        sock = raw.get_extra_info("socket")
        if self.offers and self.base_url.count(":") == 1:  # mod_audio_fork's Host leaves the port out
            self.base_url = f"{self.base_url}:{sock.getsockname()[1]}"
        self._fd = sock.fileno()
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._door.media_came(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == _CLOSE:
            return self._closed_by_peer(transport, frame)
        if transport.is_close_frame_sent:
            return None  # picows goes on with what it had read already, even after a fault that it found itself
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            return self._broken(1002, "reserved bit set")
        if kind == _BINARY and frame.fin and self._fragment_type is None:  # nearly always
            listener = self.listener
            message = frame.get_payload_as_bytes()  # its memory dies with this call
            if len(message) == listener.frame_bytes:
                listener.frames += 1
                listener.take(message)
            else:
                listener.message(message)
            return None
        if kind == WSMsgType.PING:
            if self._unwritten_bytes() < UNREAD_AUDIO_BYTES:  # or one that pings and does not read fills our memory
                transport.send_pong(frame.get_payload_as_bytes())
            return None
        if kind == WSMsgType.PONG:
            return None
        return self._fragment(kind, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        sent = transport.close_handshake.sent if transport.is_close_frame_sent else None
        if sent is not None and not self.closed:  # picows found the fault, or a sink of ours raised
            self._code, self._reason = int(cast(int, sent.code)), sent.reason
            if self._code != 1011:
                self._door.refused("media", "protocol_error", self.peer)
        self._gone = True
        self._over()
        self._transport = None
        self._unwritten_bytes = _nothing_unwritten  # that of the transport would keep it alive
        if self._deadline is not None:
            self._deadline.cancel()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.media_closed(self, self._code, self._reason)

    def pause_writing(self) -> None:
        """What the switch leaves unread has become more than `UNREAD_AUDIO_BYTES`. (`send_text` looks for itself.)"""
        if self.dialect.downlink == "stream" and self.dialect.text is None:
            self._cut_off()

    def resume_writing(self) -> None:
        """It reads again. (Without this method picows logs a line.)"""

    # -- what the call may do

    def attach(self, sink: MediaSink) -> None:
        """Say who listens. The leg has heard nothing before: frames come after `media_came` returns."""
        if self._gone:
            sink.media_closed(self, self._code, self._reason)
        else:
            self._sink = sink

    def send_text(self, text: str) -> None:
        """Send one text message."""
        if self._unwritten_bytes() > UNREAD_TEXT_BYTES:
            self._cut_off()
        elif self._transport is not None and not self.closed:
            self._transport.send(WSMsgType.TEXT, text.encode())

    def backlog_bytes(self) -> int:
        """Our write buffer and what the kernel holds unacknowledged (SIOCOUTQ)."""
        if self._transport is None:
            return 0
        waiting = self._unwritten_bytes()
        try:
            return waiting + int.from_bytes(fcntl.ioctl(self._fd, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
        except OSError:
            return waiting

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send CLOSE; TCP ends with the switch's answer, at the latest after `CLOSE_S`. Nothing is heard meanwhile.

        (Ending TCP at once would send RST where a frame has just come, and the switch might never see the CLOSE.)
        """
        self._finish(code, reason or "closed by us", reason)

    # -- inside

    def _over(self) -> None:
        """Nothing is sent any more, and nothing is heard."""
        self.closed = True
        self.listener = DEAF
        self.send_audio = _nowhere

    def _cut_off(self) -> None:
        if self._transport is not None and not self.closed:
            self._over()
            self._reason = "the switch does not read"
            self._transport.disconnect(graceful=False)

    def _closed_by_peer(self, transport: WSTransport, frame: WSFrame) -> None:
        """Answer CLOSE and end TCP in this very turn: the switch's channel waits for that for up to a second."""
        if not (self.closed or transport.is_close_frame_sent):
            code = int(cast(int, frame.get_close_code()))
            self._code, self._reason = code or 1005, (frame.get_close_message() or b"").decode("utf-8", "replace")
            self._over()
            transport.send_close(cast(WSCloseCode, code or 1000))  # 0 is how picows reads an empty one
        # The switch reads no more: what it left unread would only keep the connection up.
        transport.disconnect(graceful=not transport.underlying_transport.get_write_buffer_size())

    def _finish(self, code: int, reason: str, told: str) -> None:
        transport = self._transport
        if transport is None or self.closed:
            return
        self._over()
        self._code, self._reason = code, reason
        transport.send_close(cast(WSCloseCode, code), told.encode()[:123].decode("utf-8", "ignore").encode())
        self._deadline = asyncio.get_running_loop().call_later(CLOSE_S, transport.disconnect, False)

    def _broken(self, code: int, reason: str) -> None:
        self._door.refused("media", "protocol_error", self.peer)
        self._finish(code, reason, reason)

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
            self.listener.message(message)
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

    def __init__(
        self,
        door: MediaDoor,
        path: StreamPath,
        dialect: Dialect,
        *,
        default_rate_hz: int = 16000,
        handshake_s: float = HANDSHAKE_S,
    ) -> None:
        """`handshake_s`: how long a connection may take to send its whole upgrade request."""
        self._door = door
        self._path = path
        self._dialect = dialect
        self._default_rate_hz = default_rate_hz
        self._handshake_s = handshake_s
        self._servers: list[asyncio.Server] = []

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (a free one for 0). Raises: OSError: the address is taken or not ours."""
        for bound in await listen(host, port):
            listener = ListeningSocket(bound, lambda peer: self._door.refused("media", "no_files", peer))
            keep_alive(listener)
            server = await ws_create_server(
                self._listener,
                sock=listener,
                websocket_handshake_timeout=self._handshake_s,
                enable_auto_pong=False,  # see `on_ws_frame`
                max_frame_size=MAX_MESSAGE_BYTES,
                read_buffer_init_size=4096,
                backlog=BACKLOG,
            )
            self._servers.append(server)
        return int(self._servers[0].sockets[0].getsockname()[1])

    async def stop_listening(self) -> None:
        """Accept nobody any more; streams that are up live on."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    def _listener(self, upgrade: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """Decide on one request. Synchronous: the module gives the whole connection one second."""
        try:
            request = self._admitted(upgrade)
        except Refused as refused:
            self._door.refused("media", refused.reason, "")  # picows does not say who asks
            return _refusal(refused.status, str(refused))
        except Exception as error:  # picows would answer with its text
            asyncio.get_running_loop().call_exception_handler({"message": "a stream's door failed", "exception": error})
            return _refusal(500, "internal error")
        offered = re.split(r"[ \t]*,[ \t]*", upgrade.headers.get("Sec-WebSocket-Protocol", ""))
        offers = SUBPROTOCOL if SUBPROTOCOL in offered else ""
        leg = PicowsMediaLeg(self._door, request, self._dialect, upgrade.headers.get("Host", ""), offers)
        agreed = [("Sec-WebSocket-Protocol", offers)] if offers else []
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(agreed), leg)

    def _admitted(self, upgrade: WSUpgradeRequest) -> StreamRequest:
        request = self._path.parse(bytes(upgrade.path), default_rate_hz=self._default_rate_hz)
        if upgrade.headers.get("Upgrade", "").lower() != "websocket":
            raise Refused("bad_request", "this is a WebSocket's address", status=400)
        self._door.admit_media(request)
        return request


def _nowhere(frame: bytes) -> None:
    pass


def _nothing_unwritten() -> int:
    return 0


def _refusal(status: int, text: str) -> WSUpgradeResponseWithListener:
    body = f"{text}\n".encode("ascii", "replace")
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, body), None)
