"""One file of messages, several workers that write to it."""

import asyncio
import fcntl
import json
import os
import threading
from pathlib import Path

import pytest

from dueto.agents import messages
from dueto.agents.messages import Message, MessageFile, NotKept

PATIENCE_S = 30


async def test_a_worker_for_whom_the_disk_is_full_takes_no_message_of_another_one_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, loop = tmp_path / "messages.jsonl", asyncio.get_running_loop()
    full, other = MessageFile(path), MessageFile(path)
    write, flock = os.write, fcntl.flock
    other_is_there = threading.Event()
    kept: asyncio.Future[None] = loop.create_future()

    async def keep_the_other() -> None:
        await other.keep(Message("2026", "id", "a", "t", "1", "2", "of the other worker"))
        other_is_there.set()
        kept.set_result(None)

    def asks(handle: int, operation: int) -> None:
        other_is_there.set()
        flock(handle, operation)

    def write_a_part(handle: int, line: bytes) -> int:
        """By the time the disk turns out to be full, the other worker is writing, or waits until it may."""
        monkeypatch.setattr(os, "write", write)
        monkeypatch.setattr(fcntl, "flock", asks)
        asyncio.run_coroutine_threadsafe(keep_the_other(), loop)
        assert other_is_there.wait(PATIENCE_S)
        return write(handle, line[:20])

    await full.keep(Message("2026", "id", "a", "t", "1", "2", "before"))
    monkeypatch.setattr(os, "write", write_a_part)
    with pytest.raises(NotKept, match="the disk is full"):
        await full.keep(Message("2026", "id", "a", "t", "1", "2", "too much"))
    async with asyncio.timeout(PATIENCE_S):
        await kept
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["before", "of the other worker"]


def test_a_file_that_another_worker_is_writing_to_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        MessageFile(path).check()


async def test_a_message_is_refused_in_time_where_another_process_keeps_the_file_and_the_next_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LOCK_S", 0.05)
    path = tmp_path / "messages.jsonl"
    ours = MessageFile(path)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(NotKept, match="another process has held the file"):
                await ours.keep(Message("2026", "id", "a", "t", "1", "2", "too late"))
    async with asyncio.timeout(PATIENCE_S):
        await ours.keep(Message("2026", "id", "a", "t", "1", "2", "kept"))
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["kept"]
