"""Memory pipes behave as TCP does, and their faults as a network's."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.sim import MemoryTransport, PipeFaults, pipe, run_virtual


class End(asyncio.Protocol):
    """Remembers everything."""

    def __init__(self) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.told: list[str] = []
        self.lost = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: Exception | None = None
        self.stay_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(MemoryTransport, transport)
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.pieces.append((asyncio.get_running_loop().time(), data))

    def eof_received(self) -> bool:
        self.told.append("eof")
        self.ended.set()
        return self.stay_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.error = exc
        self.lost.set()

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.pieces)


def joined(act: Callable[[End, End], Awaitable[None]], faults: PipeFaults | None = None) -> tuple[End, End]:
    """Run `act` on the two ends of a pipe."""

    async def main() -> tuple[End, End]:
        a, b = End(), End()
        pipe(a, b, faults=faults)
        await act(a, b)
        return a, b

    return run_virtual(main(), start_s=0.0)


@given(
    st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=200)), max_size=20),
    st.builds(
        PipeFaults,
        seed=st.integers(0, 99),
        split=st.booleans(),
        glue=st.booleans(),
        latency_s=st.sampled_from([0.0, 0.05]),
        bytes_per_s=st.sampled_from([None, 1000.0]),
    ),
)
def test_what_is_written_arrives_whole_and_in_order_whatever_the_faults(
    writes: list[tuple[bool, bytes]], faults: PipeFaults
) -> None:
    async def act(a: End, b: End) -> None:
        for from_a, data in writes:
            (a if from_a else b).transport.write(data)
        a.stay_open = b.stay_open = True
        a.transport.write_eof()
        b.transport.write_eof()
        await a.ended.wait()
        await b.ended.wait()
        a.transport.close()
        b.transport.close()
        await a.lost.wait()
        await b.lost.wait()

    a, b = joined(act, faults)
    assert b.data == b"".join(data for from_a, data in writes if from_a)
    assert a.data == b"".join(data for from_a, data in writes if not from_a)
    assert a.error is None
    assert b.error is None


def test_split_cuts_writes_and_glue_joins_them() -> None:
    async def act(a: End, b: End) -> None:
        a.transport.write(bytes(500))
        a.transport.write(bytes(500))
        await asyncio.sleep(0.01)

    assert len(joined(act)[1].pieces) == 2
    assert len(joined(act, PipeFaults(glue=True))[1].pieces) == 1
    assert len(joined(act, PipeFaults(split=True))[1].pieces) > 2
    again = [len(data) for _, data in joined(act, PipeFaults(split=True, seed=7))[1].pieces]
    assert again == [len(data) for _, data in joined(act, PipeFaults(split=True, seed=7))[1].pieces]


def test_close_is_an_eof_for_the_other_end_after_everything_was_read() -> None:
    async def act(a: End, b: End) -> None:
        a.transport.write(b"last words")
        a.transport.close()
        await b.lost.wait()

    a, b = joined(act)
    assert b.data == b"last words"
    assert b.told == ["made", "eof", "lost"]
    assert a.told == ["made", "lost"]


def test_an_end_that_stays_open_after_eof_can_still_write() -> None:
    async def act(a: End, b: End) -> None:
        b.stay_open = True
        a.transport.write_eof()
        await asyncio.sleep(0.01)
        b.transport.write(b"still here")
        b.transport.close()
        await a.lost.wait()

    a, _ = joined(act)
    assert a.data == b"still here"


def test_abort_is_a_reset_for_the_other_end_and_loses_what_was_under_way() -> None:
    async def act(a: End, b: End) -> None:
        a.transport.write(b"lost")
        a.transport.abort()
        await b.lost.wait()

    a, b = joined(act)
    assert b.data == b""
    assert isinstance(b.error, ConnectionResetError)
    assert a.error is None


def test_a_reset_hits_both() -> None:
    async def act(a: End, b: End) -> None:
        a.transport.reset()
        await a.lost.wait()
        await b.lost.wait()

    assert all(isinstance(end.error, ConnectionResetError) for end in joined(act))


def test_a_half_open_pipe_tells_nobody_anything() -> None:
    async def act(a: End, b: End) -> None:
        a.transport.half_open()
        a.transport.write(b"into the void")
        b.transport.write(b"into the void")
        a.transport.close()
        await asyncio.sleep(3600)

    a, b = joined(act)
    assert a.told == ["made", "lost"]
    assert b.told == ["made"]
    assert b.data == a.data == b""


def test_a_reader_that_pauses_fills_the_writers_buffer_until_it_is_told_to_stop() -> None:
    async def act(a: End, b: End) -> None:
        b.transport.pause_reading()
        a.transport.set_write_buffer_limits(high=1000, low=100)
        for _ in range(11):
            a.transport.write(bytes(100))
        assert a.told == ["made", "pause"]
        assert a.transport.get_write_buffer_size() == 1100
        await asyncio.sleep(1)
        assert b.data == b""
        b.transport.resume_reading()
        await asyncio.sleep(1)

    a, b = joined(act)
    assert len(b.data) == 1100
    assert a.told == ["made", "pause", "resume"]


def test_a_slow_reader_takes_its_time() -> None:
    async def act(a: End, b: End) -> None:
        for _ in range(10):
            a.transport.write(bytes(100))
        await asyncio.sleep(60)

    _, b = joined(act, PipeFaults(bytes_per_s=500.0))
    assert b.pieces[-1][0] == pytest.approx(1.8)


def test_an_end_that_closes_reads_no_more() -> None:
    async def act(a: End, b: End) -> None:
        a.transport.write(b"unread")
        b.transport.close()
        await a.lost.wait()

    _, b = joined(act)
    assert b.data == b""


def test_nothing_arrives_after_an_end_was_lost() -> None:
    async def act(a: End, b: End) -> None:
        b.transport.abort()
        a.transport.write(b"too late")
        await a.lost.wait()
        a.transport.write(b"far too late")
        await asyncio.sleep(1)

    _, b = joined(act)
    assert b.told == ["made", "lost"]
    assert b.data == b""
