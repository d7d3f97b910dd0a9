"""How the simulated switch reaches a gateway: real sockets, or whatever a test puts in their place."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, cast
from urllib.parse import urlsplit

from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from picows.url import WSParsedURL

from dueto.errors import DuetoError
from dueto.sim.datagrams import Datagrams, MemoryNetwork
from dueto.sim.pipes import PipeFaults, pipe

HttpHeaders = Sequence[tuple[str, str]]


class UpgradeRefused(DuetoError):
    """The server answered the upgrade request with something else than 101."""


class MediaListener(Protocol):
    """The module's side of a WebSocket. Called on the loop; must not block."""

    def on_open(self, connection: "MediaConnection") -> None:
        """The upgrade is done. Called once, before anything else."""
        ...

    def on_text(self, text: str) -> None:
        """A whole text message."""
        ...

    def on_binary(self, data: bytes) -> None:
        """A whole binary message."""
        ...

    def on_close(self, code: int | None, reason: str) -> None:
        """The server closed (`code`), or TCP ended without its CLOSE (None). Called once, last.

        After our own `close` it tells that the server has closed too, with whatever code.
        """
        ...


class MediaConnection(Protocol):
    """A WebSocket towards the gateway."""

    def send_binary(self, data: bytes) -> None: ...
    def send_text(self, text: str) -> None: ...
    def ping(self, payload: bytes) -> None: ...
    def close(self, code: int, reason: str) -> None:
        """Send CLOSE and wait for the server to end TCP; `on_close` tells."""
        ...

    def abort(self) -> None:
        """End TCP at once, without CLOSE."""
        ...

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def unsent_bytes(self) -> int:
        """How much of what was sent has not left: the gateway does not read."""
        ...


class Doors(Protocol):
    """Where connections are made. `TcpDoors` makes real ones."""

    async def control(self, host: str, port: int, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        """Connect the control leg to a gateway.

        Raises: OSError: nobody listens there.
        """
        ...

    async def media(self, url: str, headers: HttpHeaders, listener: MediaListener) -> MediaConnection:
        """Open a WebSocket. Cancelling gives the attempt up. `listener.on_open` has been called when this returns.

        Raises: OSError: nobody listens there. UpgradeRefused: no 101.
        """
        ...

    async def datagrams(self, host: str, port: int, protocol: asyncio.DatagramProtocol) -> Datagrams:
        """Bind a UDP socket of the switch's own.

        Raises: OSError: the port is taken.
        """
        ...


class TcpDoors:
    """Real sockets; WebSockets by picows."""

    def __init__(self, *, upgrade_late_s: float = 0.0) -> None:
        """`upgrade_late_s`: how long the module waits between TCP and upgrade request; it gives up after 1 s."""
        self._upgrade_late_s = upgrade_late_s

    async def control(self, host: str, port: int, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, host, port)
        return transport

    async def media(self, url: str, headers: HttpHeaders, listener: MediaListener) -> MediaConnection:
        given = list(headers)
        if not any(name == "Origin" for name, _ in given):
            given.insert(0, ("Origin", f"http://{urlsplit(url).netloc}"))
        try:
            transport, opened = await ws_connect(
                lambda: _Listener(listener),
                url,
                extra_headers=given,
                websocket_handshake_timeout=None,
                max_redirects=0,
                max_frame_size=1 << 30,  # the module has no limit
                socket_factory=self._connect_and_wait if self._upgrade_late_s else None,
            )
        except WSError as error:
            raise UpgradeRefused(str(error)) from error
        if opened is None:  # picows returns in peace
            raise ConnectionResetError("the connection ended before the upgrade")
        return _Connection(transport)

    async def datagrams(self, host: str, port: int, protocol: asyncio.DatagramProtocol) -> Datagrams:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=(host, port))
        if hasattr(transport, "max_size"):
            transport.max_size = 4096  # asyncio's own reserves 256 KiB for each datagram
        return cast(Datagrams, transport)

    async def _connect_and_wait(self, url: WSParsedURL) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (url.host, url.port))
            await asyncio.sleep(self._upgrade_late_s)
        except BaseException:
            sock.close()
            raise
        return sock


class _Connection:
    """A picows transport as a MediaConnection."""

    __slots__ = ("_transport",)

    def __init__(self, transport: WSTransport) -> None:
        self._transport = transport

    def send_binary(self, data: bytes) -> None:
        self._transport.send(WSMsgType.BINARY, data)

    def send_text(self, text: str) -> None:
        self._transport.send(WSMsgType.TEXT, text.encode("utf-8", "surrogateescape"))

    def ping(self, payload: bytes) -> None:
        self._transport.send_ping(payload)

    def close(self, code: int, reason: str) -> None:
        self._transport.send_close(code, reason.encode())  # type: ignore[arg-type]

    def abort(self) -> None:
        self._transport.disconnect(graceful=False)

    def pause_reading(self) -> None:
        self._transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.underlying_transport.resume_reading()

    def unsent_bytes(self) -> int:
        return int(self._transport.underlying_transport.get_write_buffer_size())


def _code(frame: WSFrame) -> int:
    code: WSCloseCode | int = frame.get_close_code()  # a code picows has no name for comes as a bare number
    return code.value if isinstance(code, WSCloseCode) else code


class _Listener(WSListener):
    """picows callbacks to a MediaListener: fragments joined, CLOSE answered with its own code."""

    def __init__(self, listener: MediaListener) -> None:
        self._listener = listener
        self._fragments: list[bytes] = []
        self._kind = WSMsgType.BINARY
        self._told = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._listener.on_open(_Connection(transport))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            self._server_closed(transport, frame)
        elif kind in (WSMsgType.BINARY, WSMsgType.TEXT, WSMsgType.CONTINUATION):
            if kind != WSMsgType.CONTINUATION:
                self._kind = kind
            if not frame.fin:
                self._fragments.append(frame.get_payload_as_bytes())
                return
            data = frame.get_payload_as_bytes()
            if self._fragments:
                data = b"".join((*self._fragments, data))
                self._fragments.clear()
            if transport.is_close_frame_sent:
                return  # the module no longer reads once it has said CLOSE
            if self._kind == WSMsgType.BINARY:
                self._listener.on_binary(data)
            else:
                self._listener.on_text(data.decode("utf-8", "replace"))

    def _server_closed(self, transport: WSTransport, frame: WSFrame) -> None:
        code = _code(frame)
        if transport.is_close_frame_sent:
            return  # its answer to ours; the end of TCP is what counts
        reason = frame.get_close_message() or b""
        transport.send_close(code or 1000, reason)  # type: ignore[arg-type]
        self._tell(code or 1000, reason.decode("utf-8", "replace"))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._tell(None, "")

    def _tell(self, code: int | None, reason: str) -> None:
        if not self._told:
            self._told = True
            self._listener.on_close(code, reason)


MediaOpener = Callable[[str, HttpHeaders, MediaListener], Awaitable[MediaConnection]]
"Takes URL, extra headers and the module's listener; connects them to a gateway in memory."


class MemoryDoors:
    """Connections in memory, for a gateway in the same process and a virtual clock."""

    def __init__(
        self,
        control: Callable[[], asyncio.BaseProtocol],
        media: MediaOpener | None = None,
        *,
        faults: PipeFaults | None = None,
        network: MemoryNetwork | None = None,
    ) -> None:
        """`control` makes the protocol of one accepted connection; `media` opens one WebSocket (None: refused).

        `network`: where datagrams go; the gateway's sockets have to be on the same one.
        """
        self._network = MemoryNetwork() if network is None else network
        self._control = control
        self._media = media
        self._faults = faults

    async def control(self, host: str, port: int, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        ours, _theirs = pipe(protocol, self._control(), faults=self._faults)
        return ours

    async def media(self, url: str, headers: HttpHeaders, listener: MediaListener) -> MediaConnection:
        if self._media is None:
            raise ConnectionRefusedError(111, "Connection refused")
        return await self._media(url, headers, listener)

    async def datagrams(self, host: str, port: int, protocol: asyncio.DatagramProtocol) -> Datagrams:
        return await self._network.open(protocol, host, port)
