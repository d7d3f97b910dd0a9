"""A running engine, and lines from scripted switches to it."""

from dataclasses import dataclass

from tests.contract.engines import ENGINES, Server
from tests.support.listeners import RememberingDoor, RememberingSink
from tests.support.switch_peer import CONNECT_ANSWER, SwitchPeer

from dueto.legs.esl_outbound import OutboundOptions
from dueto.legs.ports import ControlLeg


class Bench:
    """Starts servers of one engine and connects switches to them; everything is closed at the end."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self._servers: list[Server] = []
        self._peers: list[SwitchPeer] = []

    async def serve(self, door: RememberingDoor, options: OutboundOptions | None = None) -> int:
        """Start a server and return its port."""
        server = ENGINES[self.engine](door, options or OutboundOptions())
        self._servers.append(server)
        return await server.start("127.0.0.1", 0)

    async def dial(self, port: int) -> SwitchPeer:
        """Connect a switch that has said nothing yet."""
        peer = await SwitchPeer.dial(port)
        self._peers.append(peer)
        return peer

    async def line(self, answer: bytes = CONNECT_ANSWER) -> "Line":
        """A connection whose opening is done and whose leg has a sink."""
        door = RememberingDoor()
        peer = await self.dial(await self.serve(door))
        await peer.open(answer)
        return Line(peer, await door.leg(), door.sink, door)

    async def aclose(self) -> None:
        """Close lines first, then servers."""
        for peer in self._peers:
            await peer.aclose()
        for server in self._servers:
            await server.aclose()


@dataclass
class Line:
    """Both ends of one control connection."""

    switch: SwitchPeer
    leg: ControlLeg
    sink: RememberingSink
    door: RememberingDoor
