"""A provider's WebSocket: opened within a deadline, and whatever ends it is a `ProviderFailed` with its reason.

What is sent is never waited for. While the other side reads slowly, messages wait here, in order: audio for at most
`LATE_AUDIO_MS`, then the OLDEST of it goes; everything else up to `MAX_WAITING_BYTES`, then the link is given up.
"""

import asyncio
import functools
import json
import logging
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, cast

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from dueto.audio.pcm import FRAME_MS
from dueto.errors import Fault, LocalProtocolError, ProviderFailed
from dueto.legs.keepalive import keep_alive

CONNECT_S: Final = 10.0
"From the name's look-up to the end of the upgrade."
ADDRESS_S: Final = 3.0
"For one of a host's addresses; then the next is tried."
CLOSE_S: Final = 1.0
"How long the answer to our CLOSE is waited for."
PING_S: Final = 15.0
"A silent peer is pinged after so long, and given up when it stays silent for as long again."
LATE_AUDIO_MS: Final = 2000
"Caller's audio that may wait for a slow provider; what is older helps no conversation."
MAX_WAITING_BYTES: Final = 4 << 20
MAX_MESSAGE_BYTES: Final = 16 << 20
SEND_BUFFER_BYTES: Final = 16384
"The kernel doubles it. With its own default seconds of audio vanish into it before a slow reader shows."
HIGH_WATER_BYTES: Final = 16384
"What may wait in the transport; audio in there can't be dropped any more."
_TEXT, _BINARY, _CLOSE, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CLOSE, WSMsgType.CONTINUATION
_PING = WSMsgType.PING
_QUIET = logging.getLogger("dueto.provider_link")
_QUIET.setLevel(logging.CRITICAL)  # at its lowest level picows logs the upgrade, and the key in it

_FAULTS: Final[Mapping[int, tuple[Fault, str]]] = {
    400: ("refused", "did not understand the request"),
    401: ("auth", "does not accept the API key"),
    402: ("quota", "wants to be paid first"),
    403: ("auth", "does not let this API key in"),
    404: ("model", "knows no such address or model"),
    408: ("timeout", "took too long"),
    429: ("quota", "refuses for now: too many requests, or the quota is used up"),
}


def http_fault(provider: str, status: int, body: bytes = b"", secrets: Iterable[str] = ()) -> ProviderFailed:
    """Return what an HTTP status other than success means, in one sentence, with what the body says of it."""
    fault, text = _FAULTS.get(status, ("refused", "is out of order" if status >= 500 else "refuses"))
    said = "" if fault == "auth" else _said(body, secrets)  # of a wrong key they like to repeat half
    return ProviderFailed(fault, f"{provider} {text} (HTTP {status}{': ' if said else ''}{said})")


def plain(text: object, secrets: Iterable[str] = (), *, most: int = 200) -> str:
    """Return what a provider said as one short line fit for a log, without `secrets`."""
    line = "".join(char if char.isprintable() else " " for char in str(text))
    for secret in secrets:
        if secret:
            line = line.replace(secret, "***")
    line = re.sub(r"\s+", " ", line).strip()
    return line if len(line) <= most else f"{line[:most]}..."


def _said(body: bytes, secrets: Iterable[str]) -> str:
    """Return the message in a JSON error, wherever this provider keeps it; nothing of a page for people."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for _ in range(4):
        if isinstance(found, str):
            return plain(found, secrets)
        if isinstance(found, list):
            found = found[0] if found else None
        if isinstance(found, dict):
            found = next(
                (found[name] for name in ("error", "detail", "message", "status", "code") if name in found), None
            )
    return plain(found, secrets) if isinstance(found, str | int) else ""


@functools.lru_cache(maxsize=1)
def trusted() -> ssl.SSLContext:
    """Return the context that trusts this machine's certificates. Made once: reading them takes tens of ms."""
    return ssl.create_default_context()


Meaning = Callable[[int, str], ProviderFailed | None]
"What the code and the reason of a CLOSE mean, in a provider's own words; None: nothing more than that it closed."


class Link(WSListener):
    """One open connection. Made by `open_link`; ended by `aclose`, by the peer, or by a fault.

    `on_message` is called for each message, text and binary alike, in the turn of the loop in which it came (the first
    may come before `open_link` returns); `on_closed` once, with what its end means, unless `aclose` came first.
    """

    def __init__(
        self,
        provider: str,
        on_message: Callable[[bytes], None],
        on_closed: Callable[[ProviderFailed], None],
        late_audio_ms: int = LATE_AUDIO_MS,
        ping_s: float = PING_S,
        meaning: Meaning | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.send_audio: Callable[[bytes], None] = _nowhere
        "Send a text message that holds 20 ms of audio, and may be lost where too much waits. It is picows' own method."
        self.provider = provider
        self._ping_s = ping_s
        self._meaning = meaning
        self._secrets = tuple(secrets)
        self.closed = False
        "Whether nothing can be sent any more."
        self.dropped_ms = 0
        "Audio that was thrown away because the peer reads too slowly."
        self.close_code = 0
        self.close_reason = ""
        "What the peer's CLOSE said, without secrets; 0 and nothing without one."
        self._on_message = on_message
        self._on_closed: Callable[[ProviderFailed], None] | None = on_closed
        self._sock: socket.socket | None = None
        self._late_audio_ms = late_audio_ms
        self._transport: WSTransport | None = None
        self._waiting: deque[tuple[bytes, int]] = deque()
        "What could not be sent yet, and how many ms of audio it is: 0 for all that must not be lost."
        self._waiting_bytes = 0
        self._waiting_ms = 0
        self._paused = False
        self._fragments = bytearray()
        self._in_fragments = False
        self._failure: ProviderFailed | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- what may be done

    def send(self, message: bytes) -> None:
        """Send a text message that must not be lost."""
        if self._paused:
            self._keep(message, 0)
        elif self._transport is not None and not self.closed:
            self._transport.send(_TEXT, message)

    def hand_over(self, on_message: Callable[[bytes], None], on_closed: Callable[[ProviderFailed], None]) -> None:
        """From now on these are told, in place of those it was opened with."""
        self._on_message, self._on_closed = on_message, on_closed

    def fail(self, failure: ProviderFailed) -> None:
        """Break off: what came made no sense. `on_closed` is told `failure`."""
        if not self.closed:
            self._failure = failure
            self._end(graceful=False)

    async def aclose(self) -> None:
        """Close; at most `CLOSE_S`. Safe to cancel, and to call again. `on_closed` is not told."""
        self._on_closed = None
        if not self.closed and self._transport is not None:
            self._end(graceful=True)
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.shield(self._gone)
        except TimeoutError:
            pass
        finally:
            if self._transport is not None:
                self._transport.disconnect(graceful=False)

    async def dial(self, host: str, port: int) -> socket.socket:
        """Return a socket that is connected to one of the host's addresses. Raises: OSError: none of them answers."""
        loop = asyncio.get_running_loop()
        error: OSError | None = None
        for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                sock = await _connected(socket.socket(family, kind, protocol), address)
            except OSError as failed:  # a TimeoutError is one; so is what a machine without IPv6 says to its addresses
                error = failed
            else:
                keep_alive(sock)
                self._sock = sock
                return sock
        raise error or OSError(0, "it has no address")

    def abandon(self) -> None:
        """Whoever asked for the connection is gone, and picows would leave it up: end it at once."""
        self._on_closed = None
        self._end(graceful=False)
        if self._sock is not None:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # its transport, if it has one by now, sees the end and closes

    # -- picows' side

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.send_audio = functools.partial(transport.send, _TEXT)
        cast(asyncio.WriteTransport, transport.underlying_transport).set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if self.closed:
            if kind == _CLOSE:
                transport.disconnect()
            return None
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            return self._nonsense("set a reserved bit")
        if kind in (_TEXT, _BINARY):
            if self._in_fragments:
                return self._nonsense("began a message within another")
            if frame.fin:  # nearly always; its memory dies with this call, hence the copy
                return self._deliver(frame.get_payload_as_bytes())
            self._in_fragments = True
        elif kind == _CLOSE:
            code = int(cast(int, frame.get_close_code()))
            self.close_code = code or 1005
            self.close_reason = plain((frame.get_close_message() or b"").decode("utf-8", "replace"), self._secrets)
            transport.send_close(cast(WSCloseCode, code or 1000))  # 0 is how picows reads an empty one
            self._over()
            transport.disconnect()
            asyncio.get_running_loop().call_later(CLOSE_S, transport.disconnect, False)
            meant = self._meaning(self.close_code, self.close_reason) if self._meaning is not None else None
            if meant is not None:
                return self._tell(meant.fault, str(meant))
            said = f": {self.close_reason}" if self.close_reason else ""
            return self._tell("dropped", f"{self.provider} closed the connection ({self.close_code}{said})")
        elif kind == _PING:
            if not self._paused:  # a peer that pings and does not read would make us keep all the answers
                transport.send_pong(frame.get_payload_as_bytes())
            return None
        elif kind != _CONTINUATION:
            return None
        elif not self._in_fragments:
            return self._nonsense("continued no message")
        self._fragments += frame.get_payload_as_memoryview()
        if len(self._fragments) > MAX_MESSAGE_BYTES:
            return self._nonsense(f"sent a message of more than {MAX_MESSAGE_BYTES} bytes")
        if frame.fin:
            message = bytes(self._fragments)
            self._fragments.clear()
            self._in_fragments = False
            self._deliver(message)
        return None

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        sent = transport.close_handshake.sent if transport.is_close_frame_sent else None
        if sent is not None:
            asyncio.get_running_loop().call_soon(_hear_out, transport)
        self._over()
        self._transport = None
        self._gone.set_result(None)
        if self._failure is not None:
            self._tell(self._failure.fault, str(self._failure))
        elif sent is None:
            self._tell("dropped", f"the connection to {self.provider} broke")
        elif sent.code == WSCloseCode.GOING_AWAY:
            self._tell("timeout", f"{self.provider} answered no ping for {self._ping_s:.0f} s")
        else:  # picows found the fault
            self._tell("protocol", f"{self.provider} broke the protocol: {plain(sent.reason)}")

    def pause_writing(self) -> None:
        self._paused = True
        if not self.closed:
            self.send_audio = self._keep_audio

    def resume_writing(self) -> None:
        self._paused = False
        while self._waiting and not self._paused and self._transport is not None and not self.closed:
            message, ms = self._waiting.popleft()
            self._waiting_bytes -= len(message)
            self._waiting_ms -= ms
            self._transport.send(_TEXT, message)
        if self._transport is not None and not (self._paused or self.closed):
            self.send_audio = functools.partial(self._transport.send, _TEXT)

    # -- inside

    def _deliver(self, message: bytes) -> None:
        try:
            self._on_message(message)
        except Exception as error:  # a bug of ours: the call goes on with the next agent
            context = {"message": f"a message of {self.provider} could not be handled", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            self._nonsense("sent what could not be handled")

    def _tell(self, fault: Fault, text: str) -> None:
        told, self._on_closed = self._on_closed, None
        if told is not None:
            told(ProviderFailed(fault, text))

    def _over(self) -> None:
        """Nothing is sent any more."""
        self.closed = True
        self.send_audio = _nowhere
        self._waiting.clear()

    def _keep_audio(self, message: bytes) -> None:
        self._keep(message, FRAME_MS)

    def _keep(self, message: bytes, ms: int) -> None:
        if self.closed:
            return
        waiting = self._waiting
        waiting.append((message, ms))
        self._waiting_bytes += len(message)
        self._waiting_ms += ms
        while ms and self._waiting_ms > self._late_audio_ms:
            at = next(index for index, (_, audio_ms) in enumerate(waiting) if audio_ms)
            oldest, oldest_ms = waiting[at]
            del waiting[at]
            self._waiting_bytes -= len(oldest)
            self._waiting_ms -= oldest_ms
            self.dropped_ms += oldest_ms
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self.fail(ProviderFailed("timeout", f"{self.provider} does not read what it is sent"))

    def _nonsense(self, what: str) -> None:
        self.fail(ProviderFailed("protocol", f"{self.provider} broke the protocol: it {what}"))

    def _end(self, *, graceful: bool) -> None:
        self._over()
        if self._transport is None:
            return
        if graceful:
            self._transport.send_close(WSCloseCode.OK)
        else:
            self._transport.disconnect(graceful=False)


def _nowhere(message: bytes) -> None:
    pass


def _hear_out(transport: WSTransport) -> None:
    """Take the fault that picows may have found: it keeps it for somebody who waits, or the loop complains of it."""
    with suppress(Exception):
        transport.wait_disconnected().send(None)  # it is over, so this does not wait


async def _connected(sock: socket.socket, address: Any) -> socket.socket:
    """Connect a socket within `ADDRESS_S`, or close it. Raises: OSError."""
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        async with asyncio.timeout(ADDRESS_S):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def open_link(
    provider: str,
    url: str,
    on_message: Callable[[bytes], None],
    on_closed: Callable[[ProviderFailed], None],
    *,
    headers: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
    ssl_context: ssl.SSLContext | None = None,
    connect_s: float = CONNECT_S,
    late_audio_ms: int = LATE_AUDIO_MS,
    ping_s: float = PING_S,
    meaning: Meaning | None = None,
) -> Link:
    """Connect to `url` (`wss://...`; `ws://` on a network that is yours) and return the open link.

    `provider`: its name, for texts. `secrets`: what must not stand in any text, whatever the provider says; `headers`
    and the URL's query are never repeated. `ssl_context`: for a certificate of your own, in place
    of this machine's trust. `ping_s`: when a silent peer is pinged, and how long it may take to answer.
    `meaning`: what the provider's CLOSE means.
    Safe to cancel. Raises: ProviderFailed: within `connect_s`; LocalProtocolError: a header holds a line's end.
    """
    secrets = tuple(secrets)
    for name, value in (headers or {}).items():
        if not (name.isascii() and value.isascii() and f"{name}{value}".isprintable()):
            raise LocalProtocolError(f"the header {plain(name)} holds what no header may hold")
    link = Link(provider, on_message, on_closed, late_audio_ms, ping_s, meaning, secrets)
    try:
        async with asyncio.timeout(connect_s):
            _, opened = await ws_connect(
                lambda request, response: link,
                url,
                ssl_context=(ssl_context or trusted()) if url.startswith("wss:") else None,
                websocket_handshake_timeout=connect_s,
                logger_name=_QUIET,
                enable_auto_pong=False,  # see `on_ws_frame`
                enable_auto_ping=True,
                auto_ping_idle_timeout=ping_s,
                auto_ping_reply_timeout=ping_s,
                max_frame_size=MAX_MESSAGE_BYTES,
                extra_headers=headers,
                socket_factory=lambda target: link.dial(target.host, target.port),
                max_redirects=0,  # a key goes where it was meant to go
            )
        if opened is not link:  # picows returns in peace where the connection ended before the upgrade
            raise ConnectionResetError
    except BaseException as error:
        link.abandon()
        failure = _refusal(provider, error, connect_s, secrets)
        if failure is None:
            raise
        raise failure from None  # the cause's text may hold the request
    return link


def _refusal(provider: str, error: BaseException, connect_s: float, secrets: Iterable[str]) -> ProviderFailed | None:
    """Return what a failed connect means; None: nothing of the provider's."""
    match error:
        case TimeoutError():
            return ProviderFailed("timeout", f"{provider} did not answer within {connect_s:g} s")
        case WSHandshakeError() if error.response is not None:
            return http_fault(provider, int(error.response.status), error.raw_body or b"", secrets)
        case WSHandshakeError():
            return ProviderFailed("protocol", f"{provider} did not answer as a WebSocket does")
        case ssl.SSLCertVerificationError():
            return ProviderFailed("refused", f"{provider}'s certificate is not trusted: {plain(error.verify_message)}")
        case ssl.SSLError():
            return ProviderFailed("refused", f"{provider}: no TLS with it ({plain(error.reason)})")
        case WSError() | ValueError():
            return ProviderFailed("refused", f"{provider}: its URL is not one of a WebSocket")
        case socket.gaierror():
            return ProviderFailed("refused", f"{provider}: there is no such host")
        case ConnectionResetError() | BrokenPipeError():
            return ProviderFailed("dropped", f"the connection to {provider} broke")
        case OSError():  # asyncio puts a text of its own in place of the system's
            why = os.strerror(error.errno) if error.errno else error.strerror or type(error).__name__
            return ProviderFailed("refused", f"{provider} can't be reached: {plain(why)}")
        case _:
            return None
