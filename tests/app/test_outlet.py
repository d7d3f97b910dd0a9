"""Log lines leave in order and whole, and nobody ever waits for whoever reads them."""

import asyncio
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from dueto.app.logs import call_logger, configure_logs, finish_logs, log_line
from dueto.app.outlet import AGAIN_S, MOST_WAITING_BYTES


class Reader:
    """The other end of the log; each system call of the writer's is one of its pieces."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._rest = b""
        self.stream = os.fdopen(theirs.detach(), "w", encoding="utf-8")

    def pieces(self) -> list[bytes]:
        """All that has come since this was last asked."""
        pieces = []
        while select.select([self._ours], [], [], 0)[0] and (piece := self._ours.recv(1 << 20)):
            pieces.append(piece)
        return pieces

    def lines(self) -> list[dict[str, Any]]:
        *lines, self._rest = (self._rest + b"".join(self.pieces())).split(b"\n")
        return [json.loads(line) for line in lines]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]

    def hang_up(self) -> None:
        self._ours.close()

    def close(self) -> None:
        self.hang_up()
        self.stream.close()


@pytest.fixture
def reader() -> Iterator[Reader]:
    root = logging.getLogger()
    handlers = list(root.handlers)
    reader = Reader()
    configure_logs("json", reader.stream)
    yield reader
    with open(os.devnull, "w") as nobody:
        configure_logs("json", nobody)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    reader.close()


def test_lines_of_one_turn_of_the_loop_are_written_together_and_in_order(reader: Reader) -> None:
    async def turns() -> None:
        for turn in range(2):
            for number in range(3):
                log_line("info", "abc", f"{turn}{number}", {})
            assert reader.pieces() == []
            await asyncio.sleep(0)
            (piece,) = reader.pieces()
            assert [json.loads(line)["event"] for line in piece.splitlines()] == [f"{turn}{n}" for n in range(3)]

    log_line("info", "", "before", {})
    assert reader.events() == ["before"]
    for _ in range(2):  # the second one is another loop
        asyncio.run(turns())


def test_lines_on_either_way_keep_their_order(reader: Reader) -> None:
    async def turn() -> None:
        log_line("info", "abc", "short", {})
        call_logger("abc").info("long")
        log_line("info", "abc", "short again", {})
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert reader.events() == ["short", "long", "short again"]


def test_where_nobody_reads_nobody_waits_and_what_was_dropped_is_told(reader: Reader) -> None:
    written = 0

    async def hang() -> None:
        nonlocal written
        while written * 100 < 2 * MOST_WAITING_BYTES:
            for _ in range(100):
                log_line("info", "abc", "line", {"number": written, "text": "x" * 50})
                written += 1
            await asyncio.sleep(0)

    async def read_again() -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        async with asyncio.timeout(10):
            while not lines or lines[-1]["event"] != "log_lines_dropped":
                lines += reader.lines()
                await asyncio.sleep(AGAIN_S / 10)
        return lines

    async def main() -> list[dict[str, Any]]:
        await hang()
        return await read_again()

    *kept, dropped = asyncio.run(main())
    assert [line["number"] for line in kept] == list(range(len(kept)))
    assert len(kept) * 100 > MOST_WAITING_BYTES / 2
    assert dropped["lines"] == written - len(kept) > 0
    assert dropped["level"] == "warning"
    log_line("info", "abc", "and on", {})
    assert reader.events() == ["and on"]


def test_a_reader_who_is_gone_harms_nobody(reader: Reader) -> None:
    reader.hang_up()
    for _ in range(3):
        log_line("info", "abc", "for nobody", {})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_harms_nobody(reader: Reader) -> None:
    with open("/dev/full", "wb", buffering=0) as full, os.fdopen(os.dup(full.fileno()), "w") as stream:
        configure_logs("json", stream)
        for number in range(3):
            log_line("info", "abc", f"lost {number}", {})
        with open(os.devnull, "w") as nobody:
            configure_logs("json", nobody)


def test_lines_of_other_threads_are_whole(reader: Reader) -> None:
    names = [[f"{thread}-{number}" for number in range(10)] for thread in range(4)]

    def write(mine: list[str]) -> None:
        for name in mine:
            log_line("info", "abc", name, {})

    threads = [threading.Thread(target=write, args=(mine,)) for mine in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish_logs()
    events = reader.events()
    for mine in names:
        assert [event for event in events if event in mine] == mine


def test_what_waits_is_written_before_the_process_ends() -> None:
    program = (
        "import sys\n"
        "from dueto.app.logs import configure_logs, log_line\n"
        "configure_logs('json', sys.stdout)\n"
        "for number in range(2000): log_line('info', 'abc', 'line', {'number': number})\n"
        "print('all said', file=sys.stderr, flush=True)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"all said\n"  # more than the pipe holds; nobody has read any of it
        out, _ = process.communicate(timeout=20)
    assert [json.loads(line)["number"] for line in out.splitlines()] == list(range(2000))


def test_lines_of_processes_that_share_a_pipe_are_whole() -> None:
    program = (
        "import asyncio, sys\n"
        "from dueto.app.logs import configure_logs, log_line\n"
        "configure_logs('json', sys.stdout, worker=sys.argv[1])\n"
        "async def main():\n"
        "    for turn in range(20):\n"
        "        for number in range(100): log_line('info', 'abc', 'line', {'number': 100 * turn + number})\n"
        "        await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
    )
    reading, writing = os.pipe()
    writers = [subprocess.Popen([sys.executable, "-c", program, name], stdout=writing) for name in ("w1", "w2")]
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = [json.loads(line) for line in pipe]
    for writer in writers:
        assert writer.wait(20) == 0
        numbers = [line["number"] for line in lines if line["worker"] == writer.args[-1]]  # type: ignore[index]
        assert numbers == list(range(2000))
