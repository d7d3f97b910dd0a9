"""Two connected stream transports in memory, with the troubles of a network on demand."""

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

HIGH_WATER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class PipeFaults:
    """What a pipe does to the bytes. The same seed does the same."""

    seed: int = 0
    split: bool = False
    "Every write arrives in random pieces, each in its own turn of the loop."
    glue: bool = False
    "What was written until the receiver's turn arrives in one piece."
    latency_s: float = 0.0
    "How long every byte is under way."
    bytes_per_s: float | None = None
    "The receiver reads no faster than this; None: as fast as it can."


def pipe(
    protocol_a: asyncio.BaseProtocol,
    protocol_b: asyncio.BaseProtocol,
    *,
    loop: asyncio.AbstractEventLoop | None = None,
    faults: PipeFaults | None = None,
) -> "tuple[MemoryTransport, MemoryTransport]":
    """Connect two protocols; `connection_made` of both has been called when this returns, of `protocol_b` first.

    (The accepting side of a TCP connection may not be ready first in reality, but it can't lose bytes either.)
    """
    loop = loop or asyncio.get_running_loop()
    faults = faults or PipeFaults()
    a = MemoryTransport(loop, protocol_a, faults, random.Random(faults.seed), "a")
    b = MemoryTransport(loop, protocol_b, faults, random.Random(faults.seed + 1), "b")
    a.peer, b.peer = b, a
    protocol_b.connection_made(b)
    protocol_a.connection_made(a)
    return a, b


class MemoryTransport(asyncio.Transport):
    """One end of a `pipe`. Behaves as asyncio's own socket transport does: order, EOF, limits, errors."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BaseProtocol,
        faults: PipeFaults,
        rng: random.Random,
        name: str,
    ) -> None:
        super().__init__({"peername": ("127.0.0.1", 1 if name == "a" else 2), "sockname": ("127.0.0.1", 0)})
        self._loop = loop
        self._protocol = protocol
        self._faults = faults
        self._rng = rng
        self.peer: MemoryTransport | None = None
        self._under_way: deque[bytes] = deque()  # written here, not yet given to the peer
        self._size = 0
        self._pump_planned = False
        self._reading = True
        self._eof_written = self._eof_given = False
        self._closing = self._lost = self._silent = False
        self._writing_paused = False
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4

    def half_open(self) -> None:
        """Break the path without telling anybody: from now on nothing arrives on either side, not even an EOF."""
        for end in (self, self.peer):
            if end is not None:
                end._silent = True

    def reset(self) -> None:
        """End the connection as a RST does: both protocols get ConnectionResetError, what was under way is lost."""
        for end in (self, self.peer):
            if end is not None:
                end._loop.call_soon(end._lose, ConnectionResetError("connection reset by peer"))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._lost or self._eof_written or not data:
            return
        self._under_way.append(bytes(data))
        self._size += len(data)
        if self._size > self._high and not self._writing_paused:
            self._writing_paused = True
            cast(asyncio.Protocol, self._protocol).pause_writing()
        self._plan_pump(self._faults.latency_s)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self._eof_written = True
        self._plan_pump(self._faults.latency_s)

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if self._closing:
            return
        self._closing = self._eof_written = True
        self._plan_pump(self._faults.latency_s)

    def abort(self) -> None:
        self._closing = True
        self._under_way.clear()
        self._size = 0
        self._loop.call_soon(self._lose, None)
        if self.peer is not None and not self._silent:
            self._loop.call_soon(self.peer._lose, ConnectionResetError("connection reset by peer"))

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        if self.peer is not None:
            self.peer._plan_pump(0.0)

    def is_reading(self) -> bool:
        return self._reading and not self.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_WATER_BYTES if high is None else high
        self._low = self._high // 4 if low is None else low

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def _plan_pump(self, delay_s: float) -> None:
        if self._pump_planned or self._lost:
            return
        self._pump_planned = True
        if delay_s > 0:
            self._loop.call_later(delay_s, self._pump)
        else:
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Give the peer one piece, then come back for the next."""
        self._pump_planned = False
        peer = self.peer
        if self._lost or peer is None or self._silent:
            if self._closing and not self._lost:
                self._lose(None)
            return
        if peer._lost:
            over = self._closing and not self._under_way  # both ends said all they had to say
            self._lose(None if over else ConnectionResetError("connection reset by peer"))
            return
        if self._under_way:
            if not peer._reading and not peer._closing:
                return  # resume_reading comes back here
            piece = self._next_piece()
            if not peer._closing:  # who closed reads no more
                cast(asyncio.Protocol, peer._protocol).data_received(piece)
            rate = self._faults.bytes_per_s
            self._plan_pump(len(piece) / rate if rate else 0.0)
            if self._writing_paused and self._size <= self._low:
                self._writing_paused = False
                cast(asyncio.Protocol, self._protocol).resume_writing()
            return
        if self._eof_written and not self._eof_given:
            self._eof_given = True
            if not peer._closing and not cast(asyncio.Protocol, peer._protocol).eof_received():
                peer.close()
        if self._closing:
            self._lose(None)

    def _next_piece(self) -> bytes:
        piece = b"".join(self._under_way) if self._faults.glue else self._under_way[0]
        if self._faults.glue:
            self._under_way.clear()
        else:
            self._under_way.popleft()
        if self._faults.split and len(piece) > 1:
            at = self._rng.randint(1, len(piece))
            if at < len(piece):
                self._under_way.appendleft(piece[at:])
            piece = piece[:at]
        self._size -= len(piece)
        return piece

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._under_way.clear()
        self._size = 0
        self._protocol.connection_lost(error)
        self.peer = None
