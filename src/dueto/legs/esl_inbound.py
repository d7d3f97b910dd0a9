"""The switch's own event socket, where we are the client: one supervised connection that comes back by itself.

A slow `api` holds back every reply and every event of its socket, a hangup's too (`event-socket.md`, section 2). So
only commands known to be quick are sent as `api`; everything else is a background job, with a Job-UUID of ours.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import msgspec

from dueto.errors import CommandRefused, LegClosed, LocalProtocolError, RemoteProtocolError, ReplyTimeout
from dueto.legs.jobs import Jobs, output_of
from dueto.legs.keepalive import keep_alive
from dueto.legs.ports import ChannelRow
from dueto.wire.esl import (
    Api,
    ApiResponse,
    Auth,
    AuthRequest,
    BgApi,
    BrokenStream,
    Command,
    Decoder,
    DisconnectNotice,
    Event,
    Message,
    Rejection,
    Reply,
    Subscribe,
)

QUICK = frozenset(
    {
        "create_uuid",
        "module_exists",
        "show",
        "sofia_contact",
        "status",
        "uuid_audio_fork",
        "uuid_audio_stream",
        "uuid_break",
        "uuid_bridge",
        "uuid_exists",
        "uuid_getvar",
        "uuid_hold",
        "uuid_kill",
        "uuid_park",
        "uuid_record",
        "uuid_recv_dtmf",
        "uuid_send_dtmf",
        "uuid_setvar",
        "uuid_setvar_multi",
        "uuid_transfer",
    }
)
"Commands that return at once; any other is sent as a job."
EVENTS = (
    "BACKGROUND_JOB",
    "CHANNEL_ANSWER",
    "CHANNEL_BRIDGE",
    "CHANNEL_UNBRIDGE",
    "CHANNEL_HANGUP_COMPLETE",
    "CHANNEL_HOLD",
    "CHANNEL_UNHOLD",
    "DTMF",
)
OPEN_S = 10.0
"How long connecting, and the log-in after it, may take each."
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0
MAX_WAITING = 1000
"How many commands may wait for an answer."
DEAD_S = 30.0
"A switch that owes us a reply for so long is dead to us: the connection is made anew."

Journal = Callable[[str, Mapping[str, object]], None]
Connect = Callable[[asyncio.Protocol], Awaitable[None]]


def no_journal(event: str, fields: Mapping[str, object]) -> None:
    """Note nothing."""


class LogInRefused(LegClosed):
    """The switch does not let us in: a wrong password, or our address. Trying again soon is of no use."""


_Waiter = asyncio.Future[Reply | ApiResponse]


@dataclass(eq=False)
class _Connection(asyncio.Protocol):
    """One connection's life: log in, commands in order, events. It never comes back; the link makes a new one."""

    password: str = field(repr=False)
    user: str
    on_event: Callable[[Event], None]
    decoder: Decoder = field(default_factory=Decoder)
    waiting: deque[_Waiter] = field(default_factory=deque)
    transport: asyncio.Transport | None = None
    reason: str = ""
    owed_since: float = 0.0
    "When the reply that is due first became due, by the loop's clock; 0.0: none is."

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.logged_in: asyncio.Future[None] = loop.create_future()
        self.logged_in.add_done_callback(_retrieve)
        self.over: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if (sock := transport.get_extra_info("socket")) is not None:
            keep_alive(sock)

    def data_received(self, data: bytes) -> None:
        fault: RemoteProtocolError | None = None
        try:
            messages = self.decoder.feed(data)
        except BrokenStream as error:
            messages, fault = list(error.complete), error
        try:
            for message in messages:
                self._take(message)
        except RemoteProtocolError as error:
            fault = error
        if fault is not None:
            self.end(f"protocol error: {fault}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = self.reason or (f"connection lost: {exc}" if exc is not None else "end of stream")
        error = LegClosed(f"the switch's event socket is down: {self.reason}")
        if not self.logged_in.done():
            self.logged_in.set_exception(error)
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # whose caller gave up: the loop must not complain
        self.over.set_result(None)

    def send(self, command: Command) -> _Waiter:
        """Write `command`; its reply resolves what is returned. Raises: LegClosed, LocalProtocolError."""
        data = command.encode()
        if self.transport is None or self.reason:
            raise LegClosed(f"the switch's event socket is down: {self.reason}")
        if len(self.waiting) >= MAX_WAITING:
            raise LocalProtocolError(f"{MAX_WAITING} commands are waiting for the switch")
        loop = asyncio.get_running_loop()
        waiter: _Waiter = loop.create_future()
        self.transport.write(data)
        if not self.waiting:
            self.owed_since = loop.time()
        self.waiting.append(waiter)  # replies come in the order of the bytes
        return waiter

    def end(self, reason: str) -> None:
        """Break the connection off."""
        self.reason = self.reason or reason
        if self.transport is not None:
            self.transport.abort()

    def _take(self, message: Message) -> None:
        if isinstance(message, Event):
            self.on_event(message)
        elif isinstance(message, Reply | ApiResponse):
            if not self.waiting:
                raise RemoteProtocolError("a reply to no command")
            waiter = self.waiting.popleft()
            self.owed_since = asyncio.get_running_loop().time() if self.waiting else 0.0
            if not waiter.done():
                waiter.set_result(message)
        elif isinstance(message, AuthRequest):
            self.send(Auth(self.password, self.user)).add_done_callback(self._answered)
        elif isinstance(message, Rejection):
            self._refuse("our address is not in the acl of the switch's event socket (apply-inbound-acl)")
        elif isinstance(message, DisconnectNotice):
            self.end("the switch said goodbye")

    def _answered(self, waiter: _Waiter) -> None:
        if waiter.cancelled() or waiter.exception() is not None:
            return
        reply = waiter.result()
        if isinstance(reply, Reply) and reply.ok:
            if not self.logged_in.done():
                self.logged_in.set_result(None)
        else:
            self._refuse("the switch does not take our password: [switch] password (event_socket.conf.xml)")

    def _refuse(self, text: str) -> None:
        if not self.logged_in.done():
            self.logged_in.set_exception(LogInRefused(text))
        self.end(text)


class InboundLink:
    """A `legs.ports.SwitchLink` over TCP. `start` returns at once; `up` tells whether it stands."""

    def __init__(
        self,
        host: str,
        port: int,
        password: str,
        *,
        user: str = "",
        events: tuple[str, ...] = EVENTS,
        journal: Journal = no_journal,
        first_wait_s: float = FIRST_WAIT_S,
        longest_wait_s: float = LONGEST_WAIT_S,
        connect: Connect | None = None,
    ) -> None:
        """`user`: `NAME@DOMAIN` for `userauth`; empty: the socket's own password. The waits: between two attempts.

        `connect` joins a protocol to the switch; None: TCP.
        Raises: LocalProtocolError: the password, the user or an event holds what no command may hold.
        """
        for command in (Auth(password, user), Subscribe(events)):
            command.encode()
        self.up = False
        self._address = (host, port)
        self._connect = connect or self._tcp
        self._password = password
        self._user = user
        self._events = events
        self._journal = journal
        self._waits = (first_wait_s, longest_wait_s)
        self._connection: _Connection | None = None
        self._jobs = Jobs()
        self._watchers: dict[str, list[Callable[[Event], None]]] = {}
        self._on_up: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._stands = asyncio.Event()

    # -- life

    def start(self) -> None:
        """Connect, and keep connected, until `aclose`."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_up(), name="switch link")

    async def aclose(self) -> None:
        """End the connection; whoever waits is told so."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def wait_up(self) -> None:
        """Return once the link stands; bound it with a time-out of your own."""
        await self._stands.wait()

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call `callback` after every connect, once subscribed."""
        self._on_up.append(callback)

    async def _keep_up(self) -> None:
        wait_s, told = self._waits[0], ""
        while True:
            reason, refused, stood = await self._one_life()
            if stood:
                wait_s, told = self._waits[0], ""
            if reason != told:  # the same complaint every 30 seconds helps nobody
                self._journal("switch_refused" if refused else "switch_down", {"reason": reason})
                told = reason
            if refused:
                wait_s = self._waits[1]
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))
            wait_s = min(wait_s * 2, self._waits[1])

    async def _one_life(self) -> tuple[str, bool, bool]:
        """Connect and live until the end; return why it ended, whether we were refused, and whether it had stood."""
        connection = _Connection(self._password, self._user, self._event)
        stood = False
        try:
            async with asyncio.timeout(OPEN_S):
                await self._connect(connection)
            async with asyncio.timeout(OPEN_S):
                await connection.logged_in
                subscribed = await connection.send(Subscribe(self._events))
            if isinstance(subscribed, Reply) and not subscribed.ok:
                raise LogInRefused(f"our user may not have the events we need: {' '.join(self._events)}")
            self._connection, self.up, stood = connection, True, True
            self._stands.set()
            self._journal("switch_up", {})
            for callback in self._on_up:
                try:
                    callback()
                except Exception as error:
                    _complain(error)
            while not connection.over.done():
                await asyncio.wait((connection.over,), timeout=DEAD_S / 3)
                owed = connection.owed_since
                if owed and asyncio.get_running_loop().time() - owed > DEAD_S:
                    connection.end(f"no reply for {DEAD_S:.0f} s")
            return connection.reason, False, stood
        except LogInRefused as refused:
            return str(refused), True, stood
        except (LegClosed, OSError, TimeoutError) as error:
            return connection.reason or str(error) or type(error).__name__, False, stood
        finally:
            self.up, self._connection = False, None
            self._stands.clear()
            connection.end("closed by us")
            self._jobs.fail(LegClosed(f"the switch's event socket is down: {connection.reason}"))

    async def _tcp(self, connection: asyncio.Protocol) -> None:
        await asyncio.get_running_loop().create_connection(lambda: connection, *self._address)

    # -- commands

    async def api(self, command: str, argument: str = "", *, timeout_s: float = 5.0) -> str:
        """Run an api command and return its output, trimmed; one that may take its time as a job. Safe to cancel.

        Raises: CommandRefused: the output begins with -ERR or -USAGE. LegClosed, ReplyTimeout, LocalProtocolError.
        """
        if command not in QUICK:
            return await self.job(command, argument, timeout_s=timeout_s)
        reply = await self._ask(Api(command, argument), timeout_s)
        if not isinstance(reply, ApiResponse):
            raise CommandRefused(reply.text)
        return output_of(reply.body)

    async def job(self, command: str, argument: str = "", *, timeout_s: float = 30.0) -> str:
        """Run a command as a background job and return its result, trimmed. Safe to cancel: a late result is dropped.

        Raises: CommandRefused: the result begins with -ERR or -USAGE. LegClosed: the connection ended first; the
        command may have run. ReplyTimeout, LocalProtocolError.
        """
        async with self._jobs.job(command, timeout_s) as (job_uuid, done):
            reply = await self._ask(BgApi(command, argument, job_uuid), min(timeout_s, 5.0))
            if isinstance(reply, Reply) and not reply.ok:
                raise CommandRefused(reply.text)
            return output_of(await done)

    async def exists(self, unique_id: str) -> bool:
        """Whether the switch has that channel. Raises: as `api`."""
        return await self.api("uuid_exists", unique_id) == "true"

    async def channels(self) -> list[ChannelRow]:
        """Every channel of the switch. Raises: as `api`, and RemoteProtocolError: it is no such list."""
        return parse_channels(await self.api("show", "channels as json", timeout_s=10.0))

    async def _ask(self, command: Command, timeout_s: float) -> Reply | ApiResponse:
        if self._connection is None:
            raise LegClosed("the switch's event socket is down")
        waiter = self._connection.send(command)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(waiter)  # who gives up leaves the waiter to its reply, in its place
        except TimeoutError:
            raise ReplyTimeout(f"no reply of the switch within {timeout_s} s") from None

    # -- events

    def watch(self, unique_id: str, sink: Callable[[Event], None]) -> Callable[[], None]:
        """Hand every event of that channel to `sink`, on the loop; call what is returned to stop."""
        sinks = self._watchers.setdefault(unique_id, [])
        sinks.append(sink)

        def stop() -> None:
            if sink in sinks:
                sinks.remove(sink)
            if not sinks and self._watchers.get(unique_id) is sinks:
                del self._watchers[unique_id]

        return stop

    def _event(self, event: Event) -> None:
        if event.name == "BACKGROUND_JOB":
            self._jobs.take(event)
            return
        for sink in tuple(self._watchers.get(event.unique_id, ())):
            try:
                sink(event)
            except Exception as error:  # what one call can't take costs no other its hangup
                _complain(error)


class _Row(msgspec.Struct):
    uuid: str
    direction: str = ""
    name: str = ""
    state: str = ""
    callstate: str = ""
    cid_num: str = ""
    dest: str = ""
    application: str = ""
    presence_id: str = ""


class _Rows(msgspec.Struct):
    rows: list[_Row] = []


def parse_channels(text: str) -> list[ChannelRow]:
    """Read the output of `show channels as json`. Raises: RemoteProtocolError: it is something else."""
    try:
        rows = msgspec.json.decode(text, type=_Rows).rows
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError(f"`show channels as json` gave no list: {error}") from None
    return [
        ChannelRow(
            unique_id=row.uuid,
            direction=row.direction,
            name=row.name,
            state=row.state,
            call_state=row.callstate,
            caller_number=row.cid_num,
            destination=row.dest,
            application=row.application,
            presence_id=row.presence_id,
        )
        for row in rows
    ]


def _complain(error: Exception) -> None:
    context = {"message": "what the switch's event socket told could not be handled", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)


def _retrieve(future: "asyncio.Future[None]") -> None:
    """Where nobody waits the loop must not complain."""
    if not future.cancelled():
        future.exception()
