"""A file for each call: whole, in order, redacted, and no part of the call."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dueto.app import timeline
from dueto.app.timeline import Timelines
from dueto.errors import SettingsError

NOON = datetime(2026, 11, 25, 12, 0, 1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for path in sorted(folder.rglob("*.jsonl")):
        found[str(path.relative_to(folder))] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


async def test_every_call_has_a_file_with_all_that_happened_in_order_and_nothing_secret(tmp_path: Path) -> None:
    clock = Clock()
    timelines = Timelines(tmp_path / "t", clock=clock, local_time=lambda: NOON)
    timelines.journal("", "refused", {"reason": "full"})
    timelines.journal("a/../b", "control_connected", {"peer": "127.0.0.1"})
    clock.now = 0.25
    timelines.journal("a/../b", "dtmf", {"digit": "7", "ms": 80})
    timelines.journal("other", "control_connected", {})
    clock.now = 2.0
    timelines.journal("a/../b", "transcript", {"who": "caller", "text": "token=abcdef\nBye"})
    timelines.journal("a/../b", "tool", {"name": "transfer_call", "outcome": "ok", "took_ms": 12})
    timelines.journal("a/../b", "call_ended", {"cause": "NORMAL_CLEARING"})
    timelines.journal("a/../b", "call_ended", {})
    timelines.journal("a/../b", "tool", {"outcome": "cancelled"})
    assert set(timelines._calls) == {"other"}, "nothing of a call that is over is kept"
    await timelines.aclose()
    found = lines(tmp_path / "t")
    assert list(found) == ["2026-11-25/120001-a____b.jsonl", "2026-11-25/120001-other.jsonl"]
    first = found["2026-11-25/120001-a____b.jsonl"]
    assert [line["event"] for line in first] == ["control_connected", "dtmf", "transcript", "tool", "call_ended"]
    assert [line["after_ms"] for line in first] == [0, 250, 2000, 2000, 2000]
    assert {line["call"] for line in first} == {"a/../b"}
    assert (first[1]["digit"], first[1]["ms"]) == ("*", 80)
    assert first[2]["text"] == "token=***\\nBye"
    assert (tmp_path / "t/2026-11-25").stat().st_mode & 0o007 == 0
    assert timelines.lost == 0


async def test_what_happened_is_on_the_disk_within_a_second_and_an_event(tmp_path: Path) -> None:
    clock = Clock()
    timelines = Timelines(tmp_path, clock=clock, local_time=lambda: NOON)
    timelines.journal("a", "control_connected", {})
    clock.now = 1.1
    timelines.journal("a", "bridged", {})
    await timelines.written()
    assert len(lines(tmp_path)["2026-11-25/120001-a.jsonl"]) == 2
    await timelines.aclose()


async def test_a_full_disk_loses_lines_and_never_half_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[str] = []
    timelines = Timelines(tmp_path, local_time=lambda: NOON, complain=complaints.append)
    write = os.write
    monkeypatch.setattr(timeline.os, "write", lambda handle, data: write(handle, data[:10]))
    for call in ("a", "b"):
        timelines.journal(call, "control_connected", {})
        timelines.journal(call, "call_ended", {})
    await timelines.written()
    assert timelines.lost == 4
    monkeypatch.undo()
    assert complaints == ["the disk is full"]
    assert lines(tmp_path) == {"2026-11-25/120001-a.jsonl": [], "2026-11-25/120001-b.jsonl": []}
    timelines.journal("c", "call_ended", {})
    timelines.journal("d", "control_connected", {})
    await timelines.aclose()
    assert list(lines(tmp_path)) == [f"2026-11-25/120001-{name}.jsonl" for name in "abd"]


async def test_a_disk_that_is_too_slow_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MAX_WAITING_BYTES", 300)
    complaints: list[str] = []
    timelines = Timelines(tmp_path, local_time=lambda: NOON, complain=complaints.append)
    for number in range(10):
        timelines.journal(str(number), "control_connected", {})
        timelines.journal(str(number), "call_ended", {})
    assert timelines.lost >= 14
    assert complaints == ["the disk is too slow"]
    await timelines.aclose()


def test_a_folder_that_cannot_be_had_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"\[records\] timelines: .*file/x can't be made \(Not a directory\)"):
        Timelines(tmp_path / "file" / "x")
    with pytest.raises(SettingsError, match="file is a file; name a folder"):
        Timelines(tmp_path / "file")
