"""The greenswitch engine: the founding design on the real library, `control.engine = "greenswitch"`.

gevent's hub and the library's server live in a thread of their own, nothing is patched, and neither side ever waits
for the other. Needs `pip install 'dueto[greenswitch]'`. What is mended in the library, and what can't be, stands in
`docs/greenswitch.md`.
"""

import asyncio
import contextlib
import logging
from typing import Any

from dueto.errors import LegClosed
from dueto.legs.esl_outbound import OutboundOptions
from dueto.legs.greenswitch.hub import HubThread
from dueto.legs.greenswitch.leg import GreenswitchLeg
from dueto.legs.greenswitch.library import CallApplication, MendedServer
from dueto.legs.greenswitch.relay import LoopRegistration, Relay, RelayRegistry
from dueto.legs.greenswitch.session import MendedSession
from dueto.legs.listening import listen
from dueto.legs.networks import allowed
from dueto.legs.ports import ControlDoor

__all__ = ["GreenswitchServer"]

CLOSE_S = 3.0
"How long the calls may take to let go of the switch when the engine closes; then they are broken off."
ABORT_S = 1.0
"How long breaking off may take, and how long the hub may take to do what it is asked, and to end."


class GreenswitchServer:
    """Accepts the switch's control connections on one address, through greenswitch.

    `event_loop_interval_s` is how often each call's greenlet looks whether its channel lives; nothing that a call is
    told depends on it.
    """

    def __init__(self, door: ControlDoor, options: OutboundOptions, *, event_loop_interval_s: float = 0.1) -> None:
        self._door = door
        self._options = options
        self._interval_s = event_loop_interval_s
        self._loops = LoopRegistration()
        self._relays = RelayRegistry()
        self._hub = HubThread(self._report)
        self._legs: set[GreenswitchLeg] = set()
        self._left = asyncio.Event()
        self._library = MendedServer(self._application, self._session_for, options.connect_s)

    def __len__(self) -> int:
        """How many connections there are, from accept until nothing is left of them."""
        return len(self._relays)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (a free one for 0). Raises: OSError: the address is taken or not ours."""
        sockets = await listen(host, port)
        bound = int(sockets[0].getsockname()[1])
        self._loops.register(asyncio.get_running_loop())
        try:
            if not self._hub.alive:
                await self._hub.start()
            await self._hub.call(self._library.listen, sockets, timeout_s=ABORT_S)
        except BaseException:
            for bound_socket in sockets:
                bound_socket.close()
            raise
        return bound

    async def stop_listening(self) -> None:
        """Accept nobody any more; connections that are up live on."""
        with contextlib.suppress(LegClosed, TimeoutError):
            await self._hub.call(self._library.stop, timeout_s=ABORT_S)

    async def aclose(self) -> None:
        """Let go of every channel, break off what does not end in time, and end the thread: 7 s at most."""
        await self.stop_listening()
        for leg in tuple(self._legs):
            leg.notify_session_ended("closing")
        for relay in self._relays:
            if not relay.came:
                relay.abort()
        if not await self._empty(CLOSE_S):
            for relay in self._relays:
                relay.abort()
            await self._empty(ABORT_S)
        await self._hub.stop(ABORT_S)
        self._loops.unregister()
        for leg in tuple(self._legs):
            leg.relay_closed("the engine was closed")
        await asyncio.sleep(0)  # their calls are told at the end of the turn

    async def _empty(self, patience_s: float) -> bool:
        try:
            async with asyncio.timeout(patience_s):
                while self._legs or len(self._relays):
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            return False
        return True

    # -- asyncio's side of the relays

    def relay_came(self, relay: Relay) -> GreenswitchLeg:
        """A channel is known: make its leg, and hold it until its connection is over."""
        leg = GreenswitchLeg(self._door, self._options, relay, self._leg_over)
        self._legs.add(leg)
        return leg

    def relay_refused(self, reason: str, peer: str) -> None:
        """A connection was turned away."""
        self._door.refused("control", reason, peer)

    def relay_failed(self, error: BaseException) -> None:
        """Something raised that nobody waits for."""
        context = {"message": "unhandled in the greenswitch engine", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)

    def relay_finished(self) -> None:
        """Nothing is left of a connection."""
        self._left.set()

    def _leg_over(self, leg: GreenswitchLeg) -> None:
        self._legs.discard(leg)
        self._left.set()

    # -- the hub's side

    def _application(self, session: MendedSession) -> CallApplication:
        return CallApplication(session, self._options, self._interval_s)

    def _session_for(self, client_address: tuple[Any, ...], sock: Any) -> MendedSession | None:
        peer = str(client_address[0])
        if not allowed(peer, self._options.allow):
            self._loops.call_soon(self.relay_refused, "not_allowed", peer)
            return None
        relay = Relay(self._hub, self._loops, self._relays, self, peer, self._report)
        session = MendedSession(client_address, sock, relay)
        relay.session_began(session)
        return session

    def _report(self, error: BaseException) -> None:
        if not self._loops.call_soon(self.relay_failed, error):
            logging.getLogger(__name__).error("unhandled in the greenswitch engine", exc_info=error)
