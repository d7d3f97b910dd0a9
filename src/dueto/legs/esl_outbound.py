"""The native control leg: FreeSWITCH's outbound event socket on asyncio. Nothing polls; every wait has a deadline."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from ipaddress import ip_network
from typing import cast

import aiofastnet
from aiofastnet.selector_transport import SelectorSocketTransport  # type: ignore[import-not-found]

from dueto.errors import CommandRefused, LegClosed, LocalProtocolError, RemoteProtocolError, ReplyTimeout
from dueto.legs.executions import Executions
from dueto.legs.jobs import Jobs, output_of
from dueto.legs.keepalive import keep_alive
from dueto.legs.listening import ListeningSocket, listen
from dueto.legs.networks import Network, allowed
from dueto.legs.ports import ControlCapabilities, ControlDoor, ControlSink
from dueto.wire.esl import (
    Api,
    ApiResponse,
    BgApi,
    BrokenStream,
    Command,
    Connect,
    ConnectAnswer,
    Decoder,
    DisconnectNotice,
    Event,
    Execute,
    Exit,
    Linger,
    Message,
    MyEvents,
    Reply,
    Subscribe,
)
from dueto.wire.esl.names import AUDIO_SUBCLASSES, CALL_EVENTS

MAX_COMMANDS = 1000
"How many commands may wait for a reply; a switch that answers none of them is not asked for more."
MAX_EARLY_EVENTS = 1000
"How many events are kept for a sink that has not come yet."
DROP_AFTER_S = 0.1
"After `uuid_break all`: what has not begun by then was dropped. The switch looks for events every 20 ms."
LAST_EVENTS_S = 1.5
"How long after the hangup CHANNEL_HANGUP_COMPLETE is waited for (an audio server that ignores CLOSE delays it by 1 s)."
LATER_S = 0.002
"What is still said of a channel that is gone waits so long: somebody else may have been hung up in the same turn."
MAX_LATER_BYTES = 1 << 20
"More of that is read at once. (The recorded end of a call has 26 kB.)"
MOST_AT_ONCE = 100
"Connections that are accepted in one turn of the loop."
CLOSE_S = 2.0
"How long our own end of the connection may take: the rest of what we said, and the switch's goodbye."
_OURS = frozenset(
    {"CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE", "BACKGROUND_JOB", "CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE"}
)
"Events that mean something to the leg itself."
_native = lru_cache(partial(ControlCapabilities, "native"))
_UNKNOWN_CHANNEL = Event(b"\n", 1)
_ANSWERS = (Reply, ApiResponse)
_Waiter = asyncio.Future[Reply | ApiResponse]


@dataclass(frozen=True, slots=True, eq=False)
class OutboundOptions:
    """How a control leg is opened. (Compared by identity: what they come to is worked out once for all legs.)"""

    linger_s: int = 10
    "How long the switch keeps the socket after the hangup at most; we let go earlier."
    connect_s: float = 5.0
    "How long the switch has to answer `connect`."
    events: tuple[str, ...] = CALL_EVENTS
    subclasses: tuple[str, ...] = AUDIO_SUBCLASSES
    allow: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

    connect_said: bool = False
    "Whether somebody else said `connect` already, and left the answer to be read."

    def opening(self) -> tuple[Command, ...]:
        """What is said first, in one write: `connect` must lead, and what follows needs no answer before it."""
        return Connect(), Linger(self.linger_s), MyEvents(), Subscribe(self.events, self.subclasses)


class OutboundLeg(asyncio.Protocol):
    """One control connection, a `legs.ports.ControlLeg`. Stands on any transport that asyncio's protocols know."""

    def __init__(self, door: ControlDoor, options: OutboundOptions) -> None:
        self.unique_id = ""
        self.channel = _UNKNOWN_CHANNEL
        self.capabilities = _native()
        self.peer = ""
        self.closed = False
        self._door = door
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._replies: list[_Waiter | None] = []
        "Who waits for which reply; None: nobody does."
        self._executions = Executions()
        self._jobs = Jobs()
        self._sink: ControlSink | None = None
        self._early: list[Event | DisconnectNotice] = []
        self._timer: asyncio.TimerHandle | None = None
        self._later = b""
        "What came since the hangup and has not been read yet."
        self._reading: asyncio.TimerHandle | None = None
        self._hung_up_at: float | None = None  # by the loop's clock
        self._complete = False  # CHANNEL_HANGUP_COMPLETE was here
        self._session_ended = False  # on our side: what is still to come is waited for, then we let go
        self._exiting = False  # `exit` was said
        self._ending = False  # nothing is read or said any more
        self._reason = ""

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's derive from nothing of asyncio's
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else "memory"
        if isinstance(peer, tuple) and not _may_come(self.peer, self._options):
            self._door.refused("control", "not_allowed", self.peer)
            self._end("not allowed")
            return
        opening, commands = _encoded(self._options)
        transport.write(opening)
        self._replies.extend([None] * commands)
        self._timer = self._loop.call_later(self._options.connect_s, self._give_up)

    def data_received(self, data: bytes) -> None:
        if self._hung_up_at is None:
            self._read(data)
            return
        self._later += data
        if self._reading is None:
            self._reading = self._loop.call_later(LATER_S, self._read_later)
        elif len(self._later) > MAX_LATER_BYTES:
            self._read_later()

    def _read_later(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
            data, self._later = self._later, b""
            self._read(data)

    def _read(self, data: bytes) -> None:
        fault: RemoteProtocolError | None = None
        try:
            messages: Sequence[Message] = self._decoder.feed(data)
        except BrokenStream as error:  # what was complete before the fault counts: a hangup may be among it
            messages, fault = error.complete, error
        try:
            for message in messages:
                if self._ending:
                    return
                self._take(message)
        except RemoteProtocolError as error:
            fault = error
        if fault is not None and not self._ending:
            self._door.refused("control", "protocol_error", self.peer)
            self._end(f"protocol error: {fault}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._read_later()
        if not self._reason:
            self._reason = f"connection lost: {exc}" if exc is not None else "end of stream"
        self.closed = self._ending = True
        self._stop_timer()
        error = LegClosed(f"the control connection ended: {self._reason}")
        for waiter in self._replies:
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # who waits is told; where nobody waits the loop must not complain
        self._replies.clear()
        self._executions.fail(error)
        self._jobs.fail(error)
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.control_closed(self, self._reason)

    # -- what the call may do

    def attach(self, sink: ControlSink) -> None:
        """Hand what came early to `sink`, then everything else as it comes."""
        self._sink = sink
        early, self._early = self._early, []
        for message in early:
            self._hand_over(message)
        if len(early) >= MAX_EARLY_EVENTS:
            self.resume_reading()
        if self.closed:
            self._sink = None
            sink.control_closed(self, self._reason)

    async def command(self, command: Command, *, timeout_s: float = 5.0) -> Reply:
        """Send `command` and return its reply. Safe to cancel: the late reply is dropped.

        Raises: LocalProtocolError, LegClosed: nothing was sent, or nobody is left to answer. ReplyTimeout.
        """
        return _reply(await self._answer(self._ask(command), command, timeout_s))

    async def api(self, command: str, argument: str = "", *, timeout_s: float = 5.0) -> str:
        """Run an api command and return its output, trimmed. Raises: CommandRefused, LegClosed, ReplyTimeout."""
        asked = Api(command, argument)
        return _output(await self._answer(self._ask(asked), asked, timeout_s))

    async def job(self, command: str, argument: str = "", *, timeout_s: float = 30.0) -> str:
        """Run an api command as a background job and return its result, trimmed. Safe to cancel.

        Raises: CommandRefused: the result begins with -ERR or -USAGE. LegClosed, ReplyTimeout, LocalProtocolError.
        """
        async with self._jobs.job(command, timeout_s) as (job_uuid, done):
            reply = await self.command(BgApi(command, argument, job_uuid))
            if not reply.ok:
                raise CommandRefused(reply.text)
            return output_of(await done)

    async def execute(
        self,
        application: str,
        argument: str = "",
        *,
        event_lock: bool = True,
        timeout_s: float | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> Event:
        """Queue an application and return its own completion. Cancelling stops the waiting, not the application."""
        execution = await self._executions.begin(on_start)
        try:
            command = Execute(application, argument, execution.event_uuid, event_lock)
            waiter = self._ask(command)
            execution.sent = True
            reply = _reply(await self._answer(waiter, command, 5.0))
            if not reply.ok:
                execution.sent = False
                raise CommandRefused(reply.text)
            async with asyncio.timeout(timeout_s):
                return await execution.done
        except TimeoutError:
            raise ReplyTimeout(f"{application} did not complete within {timeout_s} s") from None
        finally:
            self._executions.forget(execution)

    def post(self, command: Command) -> None:
        """Send `command`; its reply is dropped when it comes. Raises: LocalProtocolError: nothing was sent."""
        data, transport = command.encode(), self._speaking
        if transport is not None:
            self._say(transport, data, None)

    async def break_all(self) -> None:
        """`uuid_break UUID all`; the switch sends no event for what it drops, so those resolve shortly after."""
        waiting = self._executions.waiting()
        asked = Api("uuid_break", f"{self.unique_id} all")
        waiter = self._ask(asked)

        def broken(waiter: _Waiter) -> None:  # comes with the reply, even if nobody waits for it any more
            if waiter.exception() is None and waiter.result().ok:
                self._loop.call_later(DROP_AFTER_S, self._executions.drop, waiting)

        waiter.add_done_callback(broken)
        _output(await self._answer(waiter, asked, 5.0))

    def notify_session_ended(self, reason: str) -> None:
        """Let go: after CHANNEL_HANGUP_COMPLETE if the channel was hung up, else at once."""
        if self._session_ended:
            return
        self._session_ended = True
        if self._hung_up_at is None or self._complete:
            self._exit()
        else:
            self._stop_timer()
            self._timer = self._loop.call_at(self._hung_up_at + LAST_EVENTS_S, self._exit)

    def abort(self) -> None:
        """End the connection now."""
        self._ending = True
        self._reason = self._reason or "broken off by us"
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Stop reading: the switch keeps up to 100000 events for us meanwhile, then closes the socket."""
        if self._transport is not None and not self._ending:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._transport is not None and not self._ending:
            self._transport.resume_reading()

    # -- inside

    @property
    def _speaking(self) -> asyncio.Transport | None:
        """The transport, as long as anything may be said."""
        return None if self._ending or self._exiting else self._transport

    def _ask(self, command: Command) -> _Waiter:
        data, transport = command.encode(), self._speaking
        if transport is None:
            raise LegClosed(f"the control connection is closed: {self._reason}")
        waiter: _Waiter = self._loop.create_future()
        self._say(transport, data, waiter)
        return waiter

    def _say(self, transport: asyncio.Transport, data: bytes, waiter: _Waiter | None) -> None:
        if len(self._replies) >= MAX_COMMANDS:
            raise LocalProtocolError(f"{MAX_COMMANDS} commands are waiting for a reply")
        transport.write(data)
        self._replies.append(waiter)  # replies come in the order of the bytes

    async def _answer(self, waiter: _Waiter, command: Command, timeout_s: float) -> Reply | ApiResponse:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(waiter)  # who gives up leaves the waiter to its reply, in its place
        except TimeoutError:
            raise ReplyTimeout(f"no reply within {timeout_s} s to {type(command).__name__}") from None

    def _take(self, message: Message) -> None:
        if isinstance(message, Event):
            self._event(message)
        elif isinstance(message, _ANSWERS):
            if not self._replies:
                raise RemoteProtocolError("a reply to no command")
            waiter = self._replies.pop(0)
            if waiter is not None:
                waiter.set_result(message)
            if not self.unique_id:
                self._connect_answered(message)
        elif isinstance(message, DisconnectNotice):
            if message.lingers:
                self._gone()
                self._hand_over(message)
            else:
                self._end("goodbye from the switch")

    def _event(self, event: Event) -> None:
        name = event.name
        if name in _OURS:
            if name == "BACKGROUND_JOB":
                self._jobs.take(event)
                return
            if name in ("CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE"):
                self._executions.take(name, event)
            else:
                self._gone()
                self._complete = self._complete or name == "CHANNEL_HANGUP_COMPLETE"
        if self._sink is not None:
            self._sink.control_event(self, event)
        else:
            self._hand_over(event)
        if self._complete and self._session_ended:
            self._loop.call_soon(self._exit)  # another call's hangup may have come in the same turn: it is read first

    def _gone(self) -> None:
        if self._hung_up_at is None:
            self._hung_up_at = self._loop.time()

    def _hand_over(self, message: Event | DisconnectNotice) -> None:
        if self._sink is None:
            self._early.append(message)
            if len(self._early) >= MAX_EARLY_EVENTS:  # the rest of this read still comes; then the switch keeps them
                self.pause_reading()
        elif isinstance(message, Event):
            self._sink.control_event(self, message)
        else:
            self._sink.control_lingering(self)

    def _connect_answered(self, answer: Reply | ApiResponse) -> None:
        if not isinstance(answer, ConnectAnswer):
            raise RemoteProtocolError(f"connect was answered by {answer!r}")
        self._stop_timer()
        self.channel = answer.channel
        self.unique_id = self.channel.unique_id
        if not self.unique_id:
            raise RemoteProtocolError("the connect answer has no Unique-ID")
        self.capabilities = _native(answer.full, at_once=answer.is_async)
        self._door.control_came(self)

    def _exit(self) -> None:
        if self._exiting or self._ending or self._transport is None:
            return
        self._stop_timer()
        self._transport.write(Exit().encode())
        self._replies.append(None)
        self._exiting = True
        self._reason = "we let go"
        self._timer = self._loop.call_later(CLOSE_S, self.abort)

    def _give_up(self) -> None:
        self._door.refused("control", "silent", self.peer)
        self._end("connect was not answered")

    def _end(self, reason: str) -> None:
        self._ending = True
        self._reason = self._reason or reason
        self._stop_timer()
        if self._transport is not None:
            self._transport.close()
            self._timer = self._loop.call_later(CLOSE_S, self.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ControlServer:
    """Accepts the switch's control connections on one address."""

    def __init__(self, door: ControlDoor, options: OutboundOptions) -> None:
        self._door = door
        self._options = options
        self._after_connect = replace(options, connect_said=True)
        self._listeners: list[ListeningSocket] = []

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (a free one for 0). Raises: OSError: the address is taken or not ours."""
        loop = asyncio.get_running_loop()
        for bound in await listen(host, port):
            listener = ListeningSocket(bound, lambda peer: self._door.refused("control", "no_files", peer))
            keep_alive(listener)
            loop.add_reader(listener.fileno(), self._accept, listener)
            self._listeners.append(listener)
        return int(self._listeners[0].getsockname()[1])

    def _accept(self, listener: ListeningSocket) -> None:
        """Take what waits. (aiofastnet's own server makes a task for each connection.)"""
        loop = asyncio.get_running_loop()
        for _ in range(MOST_AT_ONCE):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # it was gone before we looked
            sock.setblocking(False)
            SelectorSocketTransport(loop, sock, OutboundLeg(self._door, self._options))

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that another process accepted, and on which it said `connect` (`handover.mark_of`)."""
        keep_alive(sock)
        loop = asyncio.get_running_loop()
        await aiofastnet.connect_accepted_socket(loop, lambda: OutboundLeg(self._door, self._after_connect), sock)

    async def stop_listening(self) -> None:
        """Accept nobody any more; connections that are up live on."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    async def aclose(self) -> None:
        """As stop_listening: the native engine has nothing else to give back."""
        await self.stop_listening()


@lru_cache(maxsize=1024)
def _may_come(peer: str, options: OutboundOptions) -> bool:
    """What `allowed` says, without a look at every network: their hashes are Python's."""
    return allowed(peer, options.allow)


@lru_cache(maxsize=64)
def _encoded(options: OutboundOptions) -> tuple[bytes, int]:
    """What is still to be said of the opening, as it stands on the wire, and how many commands it is in all."""
    opening = options.opening()
    return b"".join(command.encode() for command in opening[options.connect_said :]), len(opening)


def _reply(answer: Reply | ApiResponse) -> Reply:
    if isinstance(answer, Reply):
        return answer
    raise RemoteProtocolError(f"{type(answer).__name__} instead of a command/reply")


def _output(answer: Reply | ApiResponse) -> str:
    return output_of(answer.body if isinstance(answer, ApiResponse) else answer.text)
