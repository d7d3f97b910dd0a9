"""The thread that works on files: in order, bounded, and nobody's hostage."""

import asyncio
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from dueto.disk import DiskThread
from dueto.errors import NotCapable

PATIENCE_S = 30


async def test_work_is_done_in_order_by_one_thread_and_its_outcome_is_told_on_the_loop() -> None:
    disk = DiskThread("of a test", 100)
    here = threading.get_ident()
    told: list[object] = []
    threads: set[int] = set()

    def fail() -> int:
        raise OSError(28, "No space left on device")

    def note(number: int) -> int:
        threads.add(threading.get_ident())
        return number

    for number in range(3):
        disk.do(lambda number=number: note(number), lambda result: told.append((result, threading.get_ident())), 10)
    disk.do(fail, lambda error: told.append(type(error)), 10)
    with pytest.raises(OSError, match="No space"):
        await disk.run(fail)
    assert await disk.run(lambda: note(3)) == 3
    assert told == [(0, here), (1, here), (2, here), OSError]
    assert len(threads) == 1
    assert here not in threads
    await disk.aclose(PATIENCE_S)


async def test_what_waits_is_bounded_and_work_of_no_size_is_never_refused() -> None:
    disk, may_go_on = DiskThread("of a test", 100), threading.Event()
    told: list[object] = []
    disk.do(lambda: may_go_on.wait(PATIENCE_S), told.append, 60)
    with pytest.raises(NotCapable, match="too slow"):
        disk.do(lambda: None, told.append, 41)
    disk.do(lambda: "fits", told.append, 40)
    disk.do(lambda: "an end", told.append)
    may_go_on.set()
    await disk.flushed()
    assert told == [True, "fits", "an end"]
    disk.do(lambda: "room again", told.append, 100)
    await disk.aclose(PATIENCE_S)
    assert told[-1] == "room again"
    disk.do(lambda: "too late", told.append)
    await asyncio.sleep(0)
    assert isinstance(told[-1], NotCapable)
    await disk.aclose(PATIENCE_S)


async def test_who_is_cancelled_while_he_waits_has_his_work_done() -> None:
    disk, may_go_on = DiskThread("of a test", 100), threading.Event()
    done: list[int] = []
    disk.do(lambda: may_go_on.wait(PATIENCE_S), lambda result: None)
    task = asyncio.create_task(disk.run(lambda: done.append(1)))
    await asyncio.sleep(0)
    task.cancel()
    may_go_on.set()
    await disk.aclose(PATIENCE_S)
    assert task.cancelled()
    assert done == [1]


async def test_a_thread_keeps_nothing_of_what_it_did_and_ends_with_its_owner() -> None:
    class Call:
        pass

    disk, call = DiskThread("of a test", 100), Call()
    gone = weakref.ref(call)
    disk.do(lambda call=call: str(call), lambda result: None)
    await disk.flushed()
    del call
    await disk.flushed()
    assert gone() is None
    thread = disk._thread
    assert thread is not None
    del disk
    await asyncio.to_thread(thread.join, PATIENCE_S)
    assert not thread.is_alive()


async def test_a_disk_that_hangs_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hangs")
    program = f"""
import asyncio
from dueto.disk import DiskThread

async def main():
    disk = DiskThread("hangs", 100)
    disk.do(lambda: open({str(tmp_path / "hangs")!r}), print)
    await disk.aclose(0.05)
    print(await asyncio.to_thread(lambda: "ended"))

asyncio.run(main())
"""
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (run.stdout, run.stderr, run.returncode) == ("ended\n", "", 0)
