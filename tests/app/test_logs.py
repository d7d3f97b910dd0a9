"""Log lines: their form, and what is never in them."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from dueto.app.logs import Level, call_logger, configure_logs, log_line
from dueto.app.redact import MAX_CHARACTERS, clean, redact


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    structlog.reset_defaults()
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure_logs("json", stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_that_begins_with_when_how_bad_what_and_which_call(stream: io.StringIO) -> None:
    call_logger("abc").info("paired", order="media_first", waited_ms=12.5)
    (line,) = lines(stream)
    assert list(line) == ["ts", "level", "event", "call", "order", "waited_ms"]
    assert line | {"ts": 0} == {
        "ts": 0, "level": "info", "event": "paired", "call": "abc", "order": "media_first", "waited_ms": 12.5
    }  # fmt: skip
    written = datetime.fromisoformat(str(line["ts"]))
    assert written.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
@pytest.mark.parametrize("unique_id", ["abc", "", "a\nb"])
@pytest.mark.parametrize("worker", ["", "2"])
def test_the_short_way_to_a_line_writes_what_structlog_writes(
    stream: io.StringIO, level: Level, unique_id: str, worker: str
) -> None:
    configure_logs("json", stream, worker=worker)
    fields = {
        "cause": "NORMAL_CLEARING",
        "token": "x",
        "digit": "5",
        "text": "secret=1 \x1b",
        "error": ValueError("no"),
    }
    call_logger(unique_id).log(getattr(logging, level.upper()), "hung up", **fields)
    log_line(level, unique_id, "hung up", fields)
    written = lines(stream)
    assert len(written) == (0 if level == "debug" else 2)
    for line in written:
        assert line.pop("ts")
    assert written[:1] == written[1:]


def test_the_short_way_follows_a_configuration_that_came_later(stream: io.StringIO) -> None:
    with structlog.testing.capture_logs() as captured:
        log_line("info", "abc", "paired", {})
    assert captured == [{"event": "paired", "log_level": "info", "call": "abc"}]
    configure_logs("json", later := io.StringIO(), level="warning")
    log_line("info", "abc", "paired", {})
    log_line("error", "abc", "paired", {})
    assert (len(lines(stream)), len(lines(later))) == (0, 1)


def test_a_logger_without_a_call_has_no_call_in_its_lines(stream: io.StringIO) -> None:
    call_logger("").warning("refused")
    assert "call" not in lines(stream)[0]


@pytest.mark.parametrize("key", ["token", "secret", "password", "media_secret", "api_key", "Authorization"])
def test_a_secret_is_masked_by_its_name_however_deep(key: str) -> None:
    assert redact({key: "hunter2"}) == {key: "***"}
    assert "hunter2" not in str(redact({"a": {"b": [{key: "hunter2"}]}}))


def test_digits_are_counted_but_not_shown() -> None:
    assert redact({"digit": "5", "digits": "1234", "dtmf": "#"}) == {"digit": "*", "digits": "****", "dtmf": "*"}


@pytest.mark.parametrize(
    "text",
    [
        "ws://h:8085/stream/x/u/1001?rate=16000&mix=mono&token=hunter2",
        "ws://h/x?token=hunter2&rate=8000",
        "start ws://h/x?TOKEN=hunter2 mono 16k",
        '{"token": "hunter2"}',
        "auth hunter2",
        "Authorization: Bearer hunter2",
        "password=hunter2",
    ],
)
def test_a_secret_within_a_text_is_masked(text: str) -> None:
    shown = str(redact({"url": text})["url"])
    assert "hunter2" not in shown
    assert "***" in shown


def test_what_stands_around_a_masked_token_stays() -> None:
    assert clean("ws://h/x?token=abc&rate=8000") == "ws://h/x?token=***&rate=8000"


def test_secret_values_and_audio_are_not_written_out() -> None:
    shown = redact({"value": SecretStr("hunter2"), "frame": b"\x00" * 640})
    assert "hunter2" not in str(shown)
    assert shown["frame"] == "<640 bytes>"


def test_a_caller_can_not_write_lines_of_its_own(stream: io.StringIO) -> None:
    call_logger("x\n{}").info("control_connected", caller='x\n{"event":"hungup"}\x1b[2J\u202e\ud800')
    (line,) = lines(stream)
    assert line["call"] == "x\\n{}"
    assert line["caller"] == 'x\\n{"event":"hungup"}\\x1b[2J\\u202e\\ud800'


def test_the_console_form_is_cleaned_and_masked_as_well() -> None:
    stream = io.StringIO()
    configure_logs("console", stream)
    call_logger("abc").info("dtmf", digit="7", caller="a\x1b[31mb\nc")
    (text,) = stream.getvalue().splitlines()
    assert "abc" in text
    assert "\x1b" not in text
    assert "7" not in text.partition("dtmf")[2]


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_whatever_is_logged_becomes_one_line_of_printable_json(fields: dict[str, object]) -> None:
    import msgspec

    text = msgspec.json.encode(redact(fields)).decode()
    assert isinstance(json.loads(text), dict)
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in text)


def test_a_long_text_is_cut() -> None:
    assert len(clean("x" * 1_000_000)) < MAX_CHARACTERS + 50


def test_an_exception_is_told_with_its_traceback_and_still_one_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("token=hunter2")
    except ValueError as error:
        call_logger("abc").error("agent_failed", error=error, exc_info=error)
    (line,) = lines(stream)
    assert str(line["error"]).startswith("ValueError")
    assert "test_logs.py" in str(line["exception"])
    assert "hunter2" not in stream.getvalue()


def test_the_standard_librarys_warnings_come_in_the_same_form(stream: io.StringIO) -> None:
    logging.getLogger("asyncio").warning("task %s was never retrieved", "x")
    logging.getLogger("noisy").info("not this one")
    (line,) = lines(stream)
    assert (line["level"], line["event"], line["logger"]) == ("warning", "task x was never retrieved", "asyncio")


def test_configuring_twice_does_not_double_the_lines() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logs("json", first)
    configure_logs("json", second)
    logging.getLogger("x").warning("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def test_details_are_left_out_unless_wanted() -> None:
    stream = io.StringIO()
    configure_logs("json", stream)
    call_logger("a").debug("custom")
    assert stream.getvalue() == ""
    configure_logs("json", stream, level="debug")
    call_logger("a").debug("custom")
    assert len(lines(stream)) == 1
