"""greenswitch's outbound session with its faults mended from outside. Knows gevent and the wire, and no asyncio."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Protocol

import gevent
import gevent.event
import gevent.lock
import gevent.socket
from greenswitch.esl import ESLEvent, NotConnectedError, OutboundSession, OutboundSessionHasGoneAway

from dueto.errors import RemoteProtocolError
from dueto.wire.esl import (
    ApiResponse,
    BrokenStream,
    ConnectAnswer,
    Decoder,
    DisconnectNotice,
    Event,
    LogLine,
    Message,
    Reply,
)

RECEIVE_BYTES = 65536
SEND_S = 5.0
"How long a switch that does not read may hold a command up before the connection is given up."
STOP_S = 2.0
"How long `exit`, goodbye and the end of both greenlets may take before the socket is closed over their heads."


class WireEvent(ESLEvent):  # type: ignore[misc]  # the library has no types
    """An `ESLEvent` read from bytes: split first, each value decoded once, of a name that occurs twice the first.

    The library decodes a whole block before it splits it, so that a caller's name could write headers.
    """

    def __init__(self, message: Message) -> None:
        self.message = message
        "What the event was made of; this is what crosses to asyncio."

    @cached_property
    def headers(self) -> dict[str, str]:
        """All headers, decoded. Costs 0.1 ms for a full event, so it is only built when a handler asks."""
        match self.message:
            case Event():
                return self.message.as_dict()
            case ConnectAnswer():
                return self.message.channel.as_dict()
            case _:  # replies and notices are not URL-encoded
                lines = self.message.raw.decode("utf-8", "replace").split("\n")
                fields = (line.partition(":") for line in reversed(lines))
                return {name: value.strip() for name, colon, value in fields if colon}

    @property
    def data(self) -> str:
        """A reply's text, else the body."""
        return self.message.text if isinstance(self.message, Reply) else self.message.body

    def get_header(self, name: str, default: str = "") -> str:
        """One header, as other event-socket libraries spell it; cheap."""
        return self.message.get(name, default) if isinstance(self.message, Event) else self.headers.get(name, default)


class SessionListener(Protocol):
    """Who follows a session's life. Called in the hub's greenlets; must not wait."""

    def session_refused(self, reason: str) -> None:
        """It is being turned away, for a reason in one word."""
        ...

    def session_came(self, answer: ConnectAnswer) -> None:
        """The channel is known and the handlers are registered."""
        ...

    def session_opened(self) -> None:
        """The opening is said; commands may follow."""
        ...

    def session_message(self, message: Message) -> None:
        """An event or a notice came to its handler."""
        ...

    def session_answered(self, message: Message) -> None:
        """A reply to what was sent with `begin`, in the order of the bytes, events included."""
        ...

    def session_failed(self, error: BaseException) -> None:
        """A handler raised."""
        ...

    def session_ended(self, reason: str, fault: RemoteProtocolError | None) -> None:
        """The connection is over and every event that came on it was handled. Exactly once."""
        ...

    def session_finished(self) -> None:
        """Nothing of the session runs any more. The last call."""
        ...


class MendedSession(OutboundSession):  # type: ignore[misc]
    """One call's connection. Every public method of the library's session does what its documentation says."""

    def __init__(self, client_address: Any, sock: Any, listener: SessionListener) -> None:
        sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        self.listener = listener
        self.answer: ConnectAnswer | None = None
        "What `connect` was answered, as it came."
        self.over = gevent.event.Event()
        "Set when nothing can come any more."
        self.may_read = gevent.event.Event()
        "Cleared while whoever handles our events can't keep up."
        self.may_read.set()
        self.handlers_registered = gevent.event.Event()
        "Until it is set events wait: none of the opening may pass before its handler is there."
        self._send_lock = gevent.lock.RLock()
        self._decoder = Decoder()
        self._reason = ""
        self._fault: RemoteProtocolError | None = None
        self._stopped = False
        super().__init__(client_address, sock)  # spawns both greenlets; they run when this one waits
        self._commands_sent: deque[Any] = deque()

    @property
    def uuid(self) -> str | None:
        """The channel's `Unique-ID`, which no dialplan can overwrite; `variable_uuid` where it is missing."""
        data = self.session_data or {}
        return data.get("Unique-ID") or data.get("variable_uuid")

    # -- sending

    def send(self, data: str) -> Any:
        """Send a command and wait for its reply. Raises: NotConnectedError, OutboundSessionHasGoneAway."""
        reply = gevent.event.AsyncResult()
        self._write((data + "\n\n").encode(), reply)
        return reply.get()

    def begin(self, data: bytes) -> None:
        """Send an encoded command; its reply goes to the listener. Raises: NotConnectedError."""
        self._write(data, _InOrder(self._esl_event_queue.put))

    def _write(self, data: bytes, waiter: Any) -> None:
        with self._send_lock:  # a large command is sent in parts, between which others must not get in
            if not self.connected:
                raise NotConnectedError
            self._commands_sent.append(waiter)
            sending = gevent.Timeout(SEND_S)
            try:
                with sending:
                    self.sock.sendall(data)
            except OSError as error:
                self.abort(f"connection lost: {error}")
                raise NotConnectedError from None
            except gevent.Timeout as timeout:
                self.abort("the switch does not read")  # half a command may be out: nothing can follow it
                if timeout is not sending:
                    raise
                raise NotConnectedError from None

    # -- receiving

    def receive_events(self) -> None:
        """Read until the end, in the greenlet the library spawned for it; whatever happens, nobody waits for ever."""
        reason = "end of stream"
        try:
            while self._receive(self.sock.recv(RECEIVE_BYTES)):
                gevent.sleep(0)  # a flood keeps neither its own handlers nor other calls from their turn
                self.may_read.wait()
        except RemoteProtocolError as fault:
            self._fault = fault
            reason = f"protocol error: {fault}"
        except OSError as error:
            reason = f"connection lost: {error}"
        finally:
            self._reason = self._reason or reason
            self.connected = self._outbound_connected = False
            gone = OutboundSessionHasGoneAway(self._reason)
            while self._commands_sent:
                self._commands_sent.popleft().set_exception(gone)
            self._esl_event_queue.put(None)
            self.over.set()

    def _receive(self, data: bytes) -> bool:
        if not data:
            return False
        try:
            messages: Iterable[Message] = self._decoder.feed(data)
        except BrokenStream as fault:
            for message in fault.complete:  # a hangup among them still counts
                self.handle_event(WireEvent(message))
            raise
        for message in messages:
            self.handle_event(WireEvent(message))
        return bool(self.connected)

    def handle_event(self, event: WireEvent) -> None:
        """Sort what came: replies to whoever asked, everything else to the handlers.

        Raises: RemoteProtocolError: a reply to no command.
        """
        match event.message:
            case Reply() | ApiResponse():
                if not self._commands_sent:
                    raise RemoteProtocolError("a reply to no command")
                if isinstance(event.message, ConnectAnswer) and self.answer is None:
                    self.answer = event.message
                self._commands_sent.popleft().set(event)
            case DisconnectNotice(lingers=True):
                self._lingering = True
                self._esl_event_queue.put(event)
            case DisconnectNotice():
                self.connected = False
                self._reason = self._reason or "goodbye from the switch"
                self._esl_event_queue.put(event)
            case Event() | LogLine():
                self._esl_event_queue.put(event)

    # -- handling

    def process_events(self) -> None:
        """Call the handlers, in the greenlet the library spawned for it, until everything that came was handled.

        The library's own stops with the connection: a hangup with the end of the stream right behind it was lost.
        """
        self.handlers_registered.wait()
        try:
            while (item := self._esl_event_queue.get()) is not None:
                if isinstance(item, _Answer):
                    self.listener.session_answered(item.event.message)
                else:
                    self._dispatch(item)
        finally:
            self._fail_expected()
            self.event_handlers.clear()  # they lead back to us
            self.listener.session_ended(self._reason, self._fault)

    def _dispatch(self, event: WireEvent) -> None:
        message = event.message
        if isinstance(message, DisconnectNotice):
            name = "DISCONNECT"
        elif isinstance(message, LogLine):
            name = "log"
        else:
            name = event.get_header("Event-Name")
            name = event.get_header("Event-Subclass") if name == "CUSTOM" else name
        handlers = self.event_handlers.get(name)
        if handlers and isinstance(message, Event):
            self.on_event(event)  # a named handler hides `*`, under which the library waits for completions
        for handler in tuple(handlers or self.event_handlers.get("*", ())):
            self._safe_exec_handler(handler, event)

    def _safe_exec_handler(self, handler: Callable[[WireEvent], object], event: WireEvent) -> None:
        try:
            handler(event)
        except Exception as error:
            self.listener.session_failed(error)

    def on_event(self, event: WireEvent) -> None:
        """Wake the blocking verbs whose completion this is."""
        name = event.get_header("Event-Name")
        waiting = self.expected_events.get(name)
        if not waiting:
            return
        for expected in tuple(waiting):
            variable, value, result = expected
            if event.get_header(f"variable_{variable}") == value:
                waiting.remove(expected)
                result.set(event)

    def on_hangup(self, event: WireEvent) -> None:
        """The library's, without the caller's number in the log: `raise_if_disconnected` raises from now on."""
        self._outbound_connected = False

    def on_disconnect(self, event: WireEvent) -> None:
        """Only a goodbye ends what waits; while the socket lingers the switch goes on answering."""
        self._outbound_connected = False

    def _fail_expected(self) -> None:
        gone = OutboundSessionHasGoneAway(self._reason)
        for waiting in self.expected_events.values():
            for _, _, result in waiting:
                result.set_exception(gone)
            waiting.clear()

    # -- ending

    def abort(self, reason: str = "broken off by us") -> None:
        """End the connection now, without a word; never waits."""
        self._reason = self._reason or reason
        self.connected = False
        self.may_read.set()
        with contextlib.suppress(OSError):  # it ended by itself
            self.sock.shutdown(gevent.socket.SHUT_RDWR)

    def stop(self) -> None:
        """Say `exit` where somebody listens, and be gone within `STOP_S`. The second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        self.handlers_registered.set()  # or what still waits for them would never end
        stopping = gevent.Timeout(STOP_S)
        try:
            with stopping:
                super().stop()
        except gevent.Timeout as timeout:
            if timeout is not stopping:
                raise
        finally:
            self.abort()
            self.sock_file.close()
            self.sock.close()


class _Answer:
    """A reply on its way through the queue of events."""

    __slots__ = ("event",)

    def __init__(self, event: WireEvent) -> None:
        self.event = event


class _InOrder:
    """Stands among those who wait for a reply, and puts it behind the events that came before it."""

    __slots__ = ("_put",)

    def __init__(self, put: Callable[[_Answer], object]) -> None:
        self._put = put

    def set(self, event: WireEvent) -> None:
        """The reply is here."""
        self._put(_Answer(event))

    def set_exception(self, error: BaseException) -> None:
        """There will be none; the listener hears that the session ended."""
