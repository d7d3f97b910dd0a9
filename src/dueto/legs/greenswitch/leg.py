"""The asyncio end of a greenswitch call: the native leg, standing on a relay instead of a transport."""

import asyncio
from collections.abc import Callable

from dueto.legs.esl_outbound import OutboundLeg, OutboundOptions
from dueto.legs.greenswitch.relay import Relay
from dueto.legs.ports import ControlCapabilities, ControlDoor
from dueto.wire.esl import ConnectAnswer, Message


class RelayTransport(asyncio.Transport):
    """What the native leg needs of a transport, done by a relay. Nothing here waits."""

    def __init__(self, relay: Relay) -> None:
        super().__init__({"peername": (relay.peer, 0)})
        self._relay = relay

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send one encoded command."""
        self._relay.write(bytes(data))

    def pause_reading(self) -> None:
        """Leave what comes to the switch for a while."""
        self._relay.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._relay.resume_reading()

    def close(self) -> None:
        """End the connection; the leg only does so when the switch has ended it, or speaks nonsense."""
        self._relay.abort()

    def abort(self) -> None:
        """End the connection now."""
        self._relay.abort()


class GreenswitchLeg(OutboundLeg):
    """One control connection that greenswitch holds. The verbs, their replies and time-outs are the native leg's own.

    The library opens the connection and reads it; typed messages come over the relay in the order of their bytes.
    """

    def __init__(
        self, door: ControlDoor, options: OutboundOptions, relay: Relay, over: Callable[["GreenswitchLeg"], None]
    ) -> None:
        super().__init__(door, options)
        self.peer = relay.peer
        self.capabilities = ControlCapabilities("greenswitch")
        self._transport = RelayTransport(relay)
        self._over = over

    def relay_message(self, message: Message) -> None:
        """What came, the connect answer first."""
        if self._ending:
            return
        if self.unique_id or not isinstance(message, ConnectAnswer):
            self._take(message)
            return
        self.channel = message.channel
        self.unique_id = self.channel.unique_id
        self.capabilities = ControlCapabilities("greenswitch", api=message.full, at_once=message.is_async)
        try:
            self._door.control_came(self)
        except BaseException:
            self.abort()  # nobody looks after it
            raise

    def relay_closed(self, reason: str) -> None:
        """Nothing comes any more."""
        self._reason = self._reason or reason
        try:
            self.connection_lost(None)
        finally:
            self._over(self)
