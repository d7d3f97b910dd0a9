"""The one path between a call's greenlet and its control leg on asyncio, in order both ways; neither side waits.

What both threads touch, and the lock that guards it:

    the registered loop       LoopRegistration._loop_lock
    the relays that live      RelayRegistry._relays_lock (weak: a relay lives by its call's greenlets)
    what crosses to asyncio   Relay._outbox_lock
    what crosses to the hub   Relay._inbox_lock
    the hub's wake-up         HubThread._watcher_lock

Each is held for a few instructions, and no code that could wait or call back runs under one. All else belongs to one
thread: the session to the hub, the leg to asyncio.
"""

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import gevent
from greenswitch.esl import NotConnectedError

from dueto.errors import RemoteProtocolError
from dueto.legs.greenswitch.hub import HubThread, Report
from dueto.legs.greenswitch.session import MendedSession
from dueto.wire.esl import ConnectAnswer, Message

HIGH, LOW = 1000, 100
"How much may wait for asyncio before the socket is not read any more, and how little before it is again."
BATCH = 64
"How much is handed over in one turn of the asyncio loop."


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over; the last thing that crosses."""

    reason: str


class RelayListener(Protocol):
    """Who a relay reports to, on the asyncio loop: the control leg."""

    def relay_message(self, message: Message) -> None:
        """The connect answer first; then events, notices and replies, all in the order of the switch's bytes."""
        ...

    def relay_closed(self, reason: str) -> None:
        """Nothing comes any more."""
        ...


class RelayOwner(Protocol):
    """Who is told, on the asyncio loop, what concerns no leg yet or no leg any more: the server."""

    def relay_came(self, relay: "Relay") -> RelayListener:
        """A channel is known: return who listens to it. The owner holds on to it, the relay does not."""
        ...

    def relay_refused(self, reason: str, peer: str) -> None:
        """A connection was turned away."""
        ...

    def relay_failed(self, error: BaseException) -> None:
        """Something raised that nobody waits for."""
        ...

    def relay_finished(self) -> None:
        """Nothing is left of a connection."""
        ...


class LoopRegistration:
    """The asyncio loop that work is carried into, while there is one."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_lock = threading.Lock()

    def register(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on."""
        with self._loop_lock:
            self._loop = loop

    def unregister(self) -> None:
        """Nobody listens any more."""
        with self._loop_lock:
            self._loop = None

    def call_soon(self, call: Callable[..., object], *arguments: object) -> bool:
        """Have `call` run on the loop; False where there is none. From any thread; never waits."""
        with self._loop_lock:
            loop = self._loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # it was closed without a word to us
            return False
        return True


class RelayRegistry:
    """The relays of the connections that are open, weakly held."""

    def __init__(self) -> None:
        self._relays: weakref.WeakSet[Relay] = weakref.WeakSet()
        self._relays_lock = threading.Lock()

    def add(self, relay: "Relay") -> None:
        """A connection came."""
        with self._relays_lock:
            self._relays.add(relay)

    def discard(self, relay: "Relay") -> None:
        """A connection is gone, and so is everything that was made for it."""
        with self._relays_lock:
            self._relays.discard(relay)

    def __iter__(self) -> "Iterator[Relay]":
        with self._relays_lock:
            return iter(tuple(self._relays))

    def __len__(self) -> int:
        with self._relays_lock:
            return len(self._relays)


class Relay:
    """Both ends of one connection: the hub's methods are called in its greenlets, asyncio's on its loop."""

    def __init__(
        self,
        hub: HubThread,
        loops: LoopRegistration,
        registry: RelayRegistry,
        owner: RelayOwner,
        peer: str,
        report: Report,
    ) -> None:
        self.peer = peer
        self._hub = hub
        self._loops = loops
        self._registry = registry
        self._owner = owner
        self._report = report
        self._outbox: deque[Message | Closed] = deque()
        self._outbox_lock = threading.Lock()  # guards _outbox, _handing_over, _full
        self._handing_over = False
        self._full = False
        self._inbox: deque[bytes] = deque()
        self._inbox_lock = threading.Lock()  # guards _inbox, _writing
        self._writing = False
        self._session: MendedSession | None = None  # the hub's alone
        self._opened = False  # the hub's alone
        self._paused = False  # the hub's alone
        self._listener: weakref.ref[RelayListener] | None = None  # asyncio's alone

    # -- the hub's side

    def session_began(self, session: MendedSession) -> None:
        """Say whose relay this is."""
        self._session = session
        self._registry.add(self)

    def session_came(self, answer: ConnectAnswer) -> None:
        """The channel is known and the handlers are registered."""
        self._tell(answer)

    def session_opened(self) -> None:
        """The opening is said; what asyncio has to say may follow."""
        self._opened = True
        with self._inbox_lock:
            waiting = self._writing
        if waiting:
            self._start_writing()

    def session_message(self, message: Message) -> None:
        """An event or a notice came."""
        self._tell(message)

    def session_answered(self, message: Message) -> None:
        """A reply to what asyncio had sent."""
        self._tell(message)

    def session_ended(self, reason: str, fault: RemoteProtocolError | None) -> None:
        """The connection is over and everything that came on it has been handed on."""
        if fault is not None:
            self.session_refused("protocol_error")
        self._tell(Closed(reason))

    def session_failed(self, error: BaseException) -> None:
        """A handler raised."""
        self._report(error)

    def session_refused(self, reason: str) -> None:
        """The connection is being turned away."""
        self._loops.call_soon(self._owner.relay_refused, reason, self.peer)

    def session_finished(self) -> None:
        """Nothing of the session runs any more."""
        self._session = None
        self._registry.discard(self)
        self._loops.call_soon(self._owner.relay_finished)

    def _tell(self, message: Message | Closed) -> None:
        with self._outbox_lock:
            self._outbox.append(message)
            filled = not self._full and len(self._outbox) >= HIGH
            self._full = self._full or filled
            wake, self._handing_over = not self._handing_over, True
        if filled:
            self._set_reading()
        if wake and not self._loops.call_soon(self._hand_over) and self._session is not None:
            self._session.abort("nobody listens any more")

    def _set_reading(self) -> None:
        session = self._session
        if session is None:
            return
        if (self._full or self._paused) and session.connected:
            session.may_read.clear()
        else:
            session.may_read.set()

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        self._set_reading()

    def _start_writing(self) -> None:
        if self._opened or self._session is None:
            gevent.spawn(self._write)

    def _write(self) -> None:
        while True:
            with self._inbox_lock:
                if not self._inbox:
                    self._writing = False
                    return
                data = self._inbox.popleft()
            if self._session is not None:
                with contextlib.suppress(NotConnectedError):  # `Closed` is on its way, and fails whoever waits
                    self._session.begin(data)

    def _abort(self) -> None:
        if self._session is not None:
            self._session.abort()

    # -- asyncio's side

    @property
    def came(self) -> bool:
        """Whether its channel is known, so that a leg stands for it."""
        return self._listener is not None

    def write(self, data: bytes) -> None:
        """Send an encoded command behind those before it; its reply crosses back. Never waits."""
        with self._inbox_lock:
            self._inbox.append(data)
            wake, self._writing = not self._writing, True
        if wake:
            self._hub.call_soon(self._start_writing)

    def pause_reading(self) -> None:
        """Leave what comes to the switch for a while."""
        self._hub.call_soon(self._pause, True)

    def resume_reading(self) -> None:
        """Read on."""
        self._hub.call_soon(self._pause, False)

    def abort(self) -> None:
        """End the connection now."""
        self._hub.call_soon(self._abort)

    def _hand_over(self) -> None:
        for _ in range(BATCH):
            with self._outbox_lock:
                if not self._outbox:
                    self._handing_over = False
                    return
                message = self._outbox.popleft()
                room = self._full and len(self._outbox) <= LOW
                if room:
                    self._full = False
            if room:
                self._hub.call_soon(self._set_reading)
            try:
                self._take(message)
            except Exception as error:  # what one handler can't take must not cost the next its hangup
                self._owner.relay_failed(error)
        asyncio.get_running_loop().call_soon(self._hand_over)

    def _take(self, message: Message | Closed) -> None:
        if self._listener is None:
            if isinstance(message, Closed):
                return  # it ended before its channel was known
            self._listener = weakref.ref(self._owner.relay_came(self))
        listener = self._listener()
        if listener is None:
            return
        if isinstance(message, Closed):
            listener.relay_closed(message.reason)
        else:
            listener.relay_message(message)
