"""The native control leg: FreeSWITCH's outbound event socket on asyncio. Nothing polls; every wait has a deadline."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from dueto.errors import CommandRefused, LegClosed, LocalProtocolError, RemoteProtocolError, ReplyTimeout
from dueto.legs.executions import Executions
from dueto.legs.ports import ControlCapabilities, ControlDoor, ControlSink
from dueto.wire.esl import (
    Api,
    ApiResponse,
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

Network = IPv4Network | IPv6Network
MAX_COMMANDS = 1000
"How many commands may wait for a reply; a switch that answers none of them is not asked for more."
MAX_EARLY_EVENTS = 1000
"How many events are kept for a sink that has not come yet."
DROP_AFTER_S = 0.1
"After `uuid_break all`: what has not begun by then was dropped. The switch looks for events every 20 ms."
LAST_EVENTS_S = 1.5
"How long after the hangup CHANNEL_HANGUP_COMPLETE is waited for (an audio server that ignores CLOSE delays it by 1 s)."


@dataclass(frozen=True, slots=True)
class OutboundOptions:
    """How a control leg is opened."""

    linger_s: int = 10
    "How long the switch keeps the socket after the hangup at most; we let go earlier."
    connect_s: float = 5.0
    "How long the switch has to answer `connect`."
    events: tuple[str, ...] = CALL_EVENTS
    subclasses: tuple[str, ...] = AUDIO_SUBCLASSES
    allow: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

    def opening(self) -> tuple[Command, ...]:
        """What is said first, in one write: `connect` must lead, and what follows needs no answer before it."""
        return Connect(), Linger(self.linger_s), MyEvents(), Subscribe(self.events, self.subclasses)


class OutboundLeg(asyncio.Protocol):
    """One control connection, a `legs.ports.ControlLeg`. Stands on any transport that asyncio's protocols know."""

    def __init__(self, door: ControlDoor, options: OutboundOptions) -> None:
        self.unique_id = ""
        self.channel = Event(b"\n", 1)
        self.capabilities = ControlCapabilities("native")
        self.peer = ""
        self.closed = False
        self._door = door
        self._options = options
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._replies: deque[asyncio.Future[Reply | ApiResponse]] = deque()
        self._executions = Executions()
        self._sink: ControlSink | None = None
        self._early: list[Event | DisconnectNotice] = []
        self._timer: asyncio.TimerHandle | None = None
        self._hung_up = self._complete = self._exiting = False
        self._reason = "end of stream"

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else "memory"
        if isinstance(peer, tuple) and not _allowed(peer[0], self._options.allow):
            self._door.refused("control", "not_allowed", self.peer)
            self._end("not allowed")
            return
        opening = self._options.opening()
        transport.write(b"".join(command.encode() for command in opening))
        loop = asyncio.get_running_loop()
        self._replies.extend(loop.create_future() for _ in opening)
        self._replies[0].add_done_callback(self._connected)
        self._timer = loop.call_later(self._options.connect_s, self._give_up, "connect was not answered")

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._take(message)
        except RemoteProtocolError as error:
            with contextlib.suppress(RemoteProtocolError):
                for message in getattr(error, "complete", ()):
                    self._take(message)
            self._door.refused("control", "protocol_error", self.peer)
            self._end(f"protocol error: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._reason = f"connection lost: {exc}"
        self.closed = True
        self._stop_timer()
        error = LegClosed(f"the control connection ended: {self._reason}")
        for waiter in self._replies:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # who waits is told; where nobody waits the loop must not complain
        self._replies.clear()
        self._executions.fail(error)
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
        if self.closed:
            self._sink = None
            sink.control_closed(self, self._reason)

    async def command(self, command: Command, *, timeout_s: float = 5.0) -> Reply:
        """Send `command` and return its reply. Safe to cancel: the late reply is dropped."""
        reply = await self._ask(command, timeout_s)
        if isinstance(reply, Reply):
            return reply
        raise RemoteProtocolError(f"{type(reply).__name__} instead of a command/reply")

    async def api(self, command: str, argument: str = "", *, timeout_s: float = 5.0) -> str:
        """Run an api command and return its output, trimmed. Raises: CommandRefused, LegClosed, ReplyTimeout."""
        reply = await self._ask(Api(command, argument), timeout_s)
        output = (reply.body if isinstance(reply, ApiResponse) else reply.text).strip()
        if output.startswith(("-ERR", "-USAGE")):
            raise CommandRefused(output)
        return output

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
            reply = await self.command(Execute(application, argument, execution.event_uuid, event_lock))
            if not reply.ok:
                raise CommandRefused(reply.text)
            async with asyncio.timeout(timeout_s):
                return await execution.done
        except TimeoutError:
            raise ReplyTimeout(f"{application} did not complete within {timeout_s} s") from None
        finally:
            self._executions.forget(execution)

    def post(self, command: Command) -> None:
        """Send `command`; its reply is dropped when it comes."""
        if not (self.closed or self._exiting or self._transport is None):
            self._transport.write(command.encode())
            self._replies.append(asyncio.get_running_loop().create_future())

    async def break_all(self) -> None:
        """`uuid_break UUID all`; the switch sends no event for what it drops, so those resolve shortly after."""
        waiting = self._executions.waiting()
        await self.api("uuid_break", f"{self.unique_id} all")
        asyncio.get_running_loop().call_later(DROP_AFTER_S, self._executions.drop, waiting)

    def notify_session_ended(self, reason: str) -> None:
        """Let go: after CHANNEL_HANGUP_COMPLETE if the channel was hung up, else at once."""
        if self._hung_up and not self._complete:
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(LAST_EVENTS_S, self._exit)
        else:
            self._exit()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Stop reading: the switch keeps up to 100000 events for us meanwhile, then closes the socket."""
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    # -- inside

    async def _ask(self, command: Command, timeout_s: float) -> Reply | ApiResponse:
        data = command.encode()
        if self.closed or self._exiting or self._transport is None:
            raise LegClosed(f"the control connection is closed: {self._reason}")
        if len(self._replies) >= MAX_COMMANDS:
            raise LocalProtocolError(f"{MAX_COMMANDS} commands are waiting for a reply")
        waiter: asyncio.Future[Reply | ApiResponse] = asyncio.get_running_loop().create_future()
        self._transport.write(data)  # replies come in the order of the bytes,
        self._replies.append(waiter)  # so nothing is awaited between these two lines
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            raise ReplyTimeout(f"no reply within {timeout_s} s to {data.split(b' ', 2)[:2]!r}") from None

    def _take(self, message: Message) -> None:
        if isinstance(message, Event):
            self._event(message)
        elif isinstance(message, Reply | ApiResponse):
            if not self._replies:
                raise RemoteProtocolError("a reply to no command")
            waiter = self._replies.popleft()  # a cancelled waiter keeps its place until its reply is here
            if not waiter.done():
                waiter.set_result(message)
            if isinstance(message, ConnectAnswer) and not self.unique_id:
                self._connect_answered(message)
        elif isinstance(message, DisconnectNotice):
            if message.lingers:
                self._hung_up = True
                self._hand_over(message)
            else:
                self._end("goodbye from the switch")

    def _event(self, event: Event) -> None:
        name = event.name
        if name in ("CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE"):
            self._executions.take(name, event)
        elif name == "CHANNEL_HANGUP":
            self._hung_up = True
        elif name == "CHANNEL_HANGUP_COMPLETE":
            self._hung_up = self._complete = True
        self._hand_over(event)
        if self._complete and self._timer is not None:  # the session has ended on our side already and waited for this
            self._exit()

    def _hand_over(self, message: Event | DisconnectNotice) -> None:
        if self._sink is None:
            if len(self._early) < MAX_EARLY_EVENTS:
                self._early.append(message)
        elif isinstance(message, Event):
            self._sink.control_event(self, message)
        else:
            self._sink.control_lingering(self)

    def _connected(self, waiter: "asyncio.Future[Reply | ApiResponse]") -> None:
        if not waiter.cancelled():
            waiter.exception()

    def _connect_answered(self, answer: ConnectAnswer) -> None:
        self._stop_timer()
        self.channel = answer.channel
        self.unique_id = self.channel.unique_id
        if not self.unique_id:
            raise RemoteProtocolError("the connect answer has no Unique-ID")
        self.capabilities = ControlCapabilities("native", api=answer.full)
        self._door.control_came(self)

    def _exit(self) -> None:
        self._stop_timer()
        if self._exiting or self.closed or self._transport is None:
            return
        self._exiting = True
        self._reason = "we let go"
        self._transport.write(Exit().encode())
        self._replies.append(asyncio.get_running_loop().create_future())
        self._timer = asyncio.get_running_loop().call_later(2.0, self.abort)

    def _give_up(self, reason: str) -> None:
        self._door.refused("control", "silent", self.peer)
        self._end(reason)

    def _end(self, reason: str) -> None:
        self._reason = reason
        self._stop_timer()
        if self._transport is not None:
            self._transport.close()
            self._timer = asyncio.get_running_loop().call_later(2.0, self.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ControlServer:
    """Accepts the switch's control connections on one address."""

    def __init__(self, door: ControlDoor, options: OutboundOptions) -> None:
        self._door = door
        self._options = options
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (a free one for 0). Raises: OSError: the address is taken or not ours."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: OutboundLeg(self._door, self._options), host, port, backlog=1024
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop_listening(self) -> None:
        """Accept nobody any more; connections that are up live on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def aclose(self) -> None:
        """As stop_listening: the native engine has nothing else to give back."""
        await self.stop_listening()


def _allowed(host: str, networks: Sequence[Network]) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
