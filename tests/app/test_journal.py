"""The journal's way to the log and to several listeners."""

import pytest
import structlog
from structlog.testing import capture_logs

from dueto.app.journal import Fields, LogJournal, fan_out


@pytest.mark.parametrize(
    ("event", "level"),
    [
        ("paired", "info"),
        ("hungup", "info"),
        ("pairing_late", "warning"),
        ("refused", "warning"),
        ("agent_failed", "error"),
        ("custom", "debug"),
        ("never_heard_of", "info"),
    ],
)
def test_every_event_is_a_log_line_of_its_level(event: str, level: str) -> None:
    with capture_logs() as lines:
        LogJournal()("abc", event, {"figure": 3})
    assert lines == [{"event": event, "log_level": level, "call": "abc", "figure": 3}]


def test_a_field_named_like_a_part_of_the_line_does_not_break_it() -> None:
    with capture_logs() as lines:
        LogJournal()("abc", "odd", {"event": "x", "call": "other", "level": 1, "exc_info": True})
    assert lines[0]["event"] == "odd"
    assert lines[0]["call"] == "abc"
    assert (lines[0]["event_"], lines[0]["call_"], lines[0]["level_"], lines[0]["exc_info_"]) == ("x", "other", 1, True)


def test_all_journals_are_told_in_order() -> None:
    told: list[tuple[str, str, str]] = []

    def listener(name: str) -> "object":
        return lambda unique_id, event, fields: told.append((name, unique_id, event))

    fan_out(listener("a"), listener("b"))("1", "paired", {})  # type: ignore[arg-type]
    assert told == [("a", "1", "paired"), ("b", "1", "paired")]


def test_a_journal_that_raises_harms_nobody_and_is_complained_of_once() -> None:
    told: list[str] = []

    def broken(unique_id: str, event: str, fields: Fields) -> None:
        raise RuntimeError("broken")

    def sound(unique_id: str, event: str, fields: Fields) -> None:
        told.append(event)

    journal = fan_out(broken, sound)
    with capture_logs() as lines:
        journal("1", "paired", {})
        journal("1", "hungup", {})
    assert told == ["paired", "hungup"]
    assert [(line["event"], line["failed_on"]) for line in lines] == [("journal_failed", "paired")]


def test_a_log_that_fails_does_not_harm_the_call() -> None:
    def refuse(*_: object) -> None:
        raise OSError("disk full")

    structlog.configure(processors=[refuse])  # type: ignore[list-item]
    try:
        fan_out(LogJournal())("1", "paired", {})
    finally:
        structlog.reset_defaults()
