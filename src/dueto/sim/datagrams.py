"""UDP without sockets: addresses in memory, for the virtual clock."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

Address = tuple[str, int]


class Datagrams(Protocol):
    """A bound UDP socket: asyncio's transport, or one in memory."""

    def sendto(self, data: bytes, addr: Address) -> None: ...
    def close(self) -> None: ...


class MemoryNetwork:
    """Where datagrams go. As on loopback they keep their order, and what nobody is bound to vanishes.

    `lost` may say of each datagram (its number, its bytes) that it does not arrive; `delay_s` is how long one travels.
    """

    def __init__(self, *, lost: Callable[[int, bytes], bool] | None = None, delay_s: float = 0.0) -> None:
        self._bound: dict[Address, _MemoryDatagrams] = {}
        self._lost = lost
        self._delay_s = delay_s
        self.carried = 0

    def __len__(self) -> int:
        return len(self._bound)

    async def open(self, protocol: asyncio.DatagramProtocol, host: str, port: int) -> "_MemoryDatagrams":
        """Bind `protocol`. Raises: OSError: the address is taken."""
        if (host, port) in self._bound:
            raise OSError(98, "Address already in use")
        transport = self._bound[host, port] = _MemoryDatagrams(self, (host, port), protocol)
        protocol.connection_made(transport)
        return transport

    def carry(self, data: bytes, sender: Address, addr: Address) -> None:
        """Take a datagram on its way."""
        self.carried += 1
        if self._lost is not None and self._lost(self.carried, data):
            return
        loop = asyncio.get_running_loop()
        if self._delay_s:
            loop.call_later(self._delay_s, self._arrive, data, sender, addr)
        else:
            loop.call_soon(self._arrive, data, sender, addr)

    def _arrive(self, data: bytes, sender: Address, addr: Address) -> None:
        bound = self._bound.get(addr)
        if bound is not None:
            bound.protocol.datagram_received(data, sender)

    def unbind(self, address: Address) -> None:
        """Nobody is there any more."""
        self._bound.pop(address, None)


class _MemoryDatagrams(asyncio.DatagramTransport):
    """One bound address."""

    def __init__(self, network: MemoryNetwork, address: Address, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__({"sockname": address})
        self.protocol = protocol
        self._network, self._address = network, address
        self._closed = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not self._closed:
            self._network.carry(bytes(data), self._address, addr)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._network.unbind(self._address)
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closed
