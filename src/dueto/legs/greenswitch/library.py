"""greenswitch's server, mended, and the application it runs for each call."""

import contextlib
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.socket
from greenswitch.esl import NotConnectedError, OutboundESLServer, OutboundSessionHasGoneAway

from dueto.errors import RemoteProtocolError
from dueto.legs.esl_outbound import OutboundOptions
from dueto.legs.greenswitch.session import MendedSession, WireEvent
from dueto.wire.esl import DisconnectNotice, Event, Subscribe

CALL_HANDLERS = (
    "CHANNEL_HANGUP",
    "CHANNEL_HANGUP_COMPLETE",
    "CHANNEL_BRIDGE",
    "CHANNEL_UNBRIDGE",
    "CHANNEL_EXECUTE",
    "CHANNEL_EXECUTE_COMPLETE",
    "DTMF",
)
"What `myevents` brings and a call is told by name; the rest comes under `*`."
SLACK_S = 1.0
"How much later than the switch we end a lingering connection: it counts whole seconds."
ACCEPT_AGAIN_S = 0.1
"Out of file descriptors, accepting waits this long for some."


class CallApplication:
    """What the library runs for a call: registers the handlers, opens, and stays until the switch lets go."""

    def __init__(self, session: MendedSession, options: OutboundOptions, event_loop_interval_s: float) -> None:
        self._session = session
        self._listener = session.listener
        self._options = options
        self._interval_s = event_loop_interval_s
        if session.answer is None:
            raise RemoteProtocolError("connect was answered by something else")
        if not session.uuid:
            raise RemoteProtocolError("the connect answer has no Unique-ID")
        for name in (*CALL_HANDLERS, *options.events):
            session.register_handle(name, self.on_event)
        for subclass in options.subclasses:  # the library looks a CUSTOM event up under its subclass
            session.register_handle(subclass, self.on_event)
        session.register_handle("*", self.on_event)
        session.register_handle("DISCONNECT", self.on_disconnect)
        self._listener.session_came(session.answer)

    def on_event(self, event: Any) -> None:
        """Hand an event on, whatever kind of object it is."""
        self._listener.session_message(wire_event(event))

    def on_disconnect(self, event: WireEvent) -> None:
        """Hand a notice on: the channel is gone, or the socket."""
        if isinstance(event.message, DisconnectNotice):
            self._listener.session_message(event.message)

    def run(self) -> None:
        """Live through one call; the library says `exit` when this returns."""
        session, options = self._session, self._options
        subscription = Subscribe(options.events, options.subclasses).encode().decode().rstrip("\n")
        # One greenlet each, in this order: their bytes follow one another, and no reply is waited for in between.
        gevent.spawn(_unless_gone, session.linger, options.linger_s)
        gevent.spawn(_unless_gone, session.myevents)
        gevent.spawn(_unless_gone, session.send, subscription)
        gevent.spawn(self._listener.session_opened)
        try:
            while session.connected:  # a dead socket alone never makes the next line raise
                session.raise_if_disconnected()
                if session.over.wait(self._interval_s):
                    return
        except OutboundSessionHasGoneAway:  # hung up: the events of the end come yet, and asyncio says `exit` then
            session.over.wait(options.linger_s + SLACK_S)


class MendedServer(OutboundESLServer):  # type: ignore[misc]  # the library has no types
    """The library's server with an accept loop that waits instead of polling, and ends when it is told to."""

    def __init__(
        self,
        application: Callable[[MendedSession], Any],
        session_for: Callable[[Any, Any], MendedSession | None],
        connect_s: float,
    ) -> None:
        super().__init__(application=application, max_connections=sys.maxsize)  # how many are too many, the desk says
        self._session_for = session_for
        self._connect_s = connect_s
        self._listeners: list[Any] = []

    def listen(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Accept on sockets that are bound and listening; they are ours from now on."""
        for bound in sockets:
            listener = gevent.socket.socket(bound.family, bound.type, bound.proto, fileno=bound.detach())
            self._listeners.append(listener)
            gevent.spawn(self._accept, listener)

    def stop(self) -> None:
        """Accept nobody any more; calls that are up live on."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # gevent's close alone takes effect a turn later
            listener.close()

    def _accept(self, listener: Any) -> None:
        while listener in self._listeners:
            try:
                sock, client_address = listener.accept()
            except OSError:
                if listener in self._listeners:
                    gevent.sleep(ACCEPT_AGAIN_S)
                continue
            self._welcome(client_address, sock)
            del sock  # or the last call would live until the next one comes

    def _welcome(self, client_address: Any, sock: Any) -> None:
        try:
            session = self._session_for(client_address, sock)
        except OSError:
            session = None  # it was gone before we looked
        if session is None:
            sock.close()
        else:
            gevent.spawn(self._accept_call, session)

    def _accept_call(self, session: MendedSession) -> None:
        running = False
        silent = gevent.Timeout(self._connect_s)
        try:
            with silent:
                super()._accept_call(session)
                running = True
        except (OutboundSessionHasGoneAway, NotConnectedError):
            pass  # it ended first; the session says how
        except RemoteProtocolError as error:
            session.abort(f"protocol error: {error}")
            session.listener.session_refused("protocol_error")
        except gevent.Timeout as timeout:
            session.abort("connect was not answered")
            if timeout is not silent:
                raise
            session.listener.session_refused("silent")
        finally:
            session.handlers_registered.set()
            if not running:
                self._end(session)

    def _handle_call_finish(self, handler: Any) -> None:
        self._greenlets.discard(handler)
        self.connection_count -= 1
        self._end(handler.session)
        del handler.session  # the greenlet, the application and the session know one another

    def _end(self, session: MendedSession) -> None:
        try:
            session.stop()
        finally:
            session.listener.session_finished()


def wire_event(event: Any) -> Event:
    """Return an event as it crosses: from its bytes where it kept them, else from its `headers` dict."""
    message = getattr(event, "message", None)
    if isinstance(message, Event):
        return message
    return Event.from_items(event.headers.items(), str(getattr(event, "data", "")).encode())


def _unless_gone(say: Callable[..., object], *arguments: object) -> None:
    with contextlib.suppress(OutboundSessionHasGoneAway, NotConnectedError):  # the call's greenlet sees it for itself
        say(*arguments)
