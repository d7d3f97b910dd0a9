"""What each dialect declares, and the texts each writes and reads."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.recordings import CAPTURES

from dueto.wire.media import AUDIO_FORK, AUDIO_FORK_BINARY, AUDIO_STREAM, AUDIO_STREAM_BASE64, DIALECTS, Dialect
from dueto.wire.media.audio_fork import Mark, play_audio, played_audio, read_mark, set_mark
from dueto.wire.media.audio_stream import play_file

EVERY = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))


def test_the_dialects_are_found_by_the_names_of_the_settings() -> None:
    assert list(DIALECTS) == [
        "audio_stream",
        "audio_stream-binary",
        "audio_stream-base64",
        "audio_fork",
        "audio_fork-binary",
        "unicast",
    ]
    assert all(DIALECTS[name].name == name for name in DIALECTS)


@EVERY
def test_a_dialect_is_of_a_piece(dialect: Dialect) -> None:
    assert set(dialect.rates) == {8000, 16000, 24000, 32000, 48000}
    assert all(dialect.down_hz(rate_hz) * dialect.frame_ms % 1000 == 0 for rate_hz in dialect.rates)
    assert (dialect.files is not None) == (dialect.downlink == "file")
    assert dialect.clear == "uuid_break" or dialect.downlink == "stream"
    assert dialect.lead_ms >= dialect.warm_up_ms + dialect.frame_ms  # or it would run dry while it warms up
    assert not dialect.buffer_ms or dialect.lead_ms * 2 < dialect.buffer_ms
    if not dialect.clear_text and dialect.downlink == "stream":
        assert dialect.lead_ms <= 200  # it will be heard after a clear
    if dialect.clear_text:
        assert json.loads(dialect.clear_text) == {"type": dialect.clear}


def test_a_stream_is_started_in_each_modules_own_words() -> None:
    assert AUDIO_STREAM.start("u", "ws://h/p", "mono", 16000) == "u start ws://h/p mono 16000"
    assert AUDIO_FORK.start("u", "ws://h/p", "mono", 8000) == "u start ws://h/p mono 8000"
    assert AUDIO_FORK_BINARY.start("u", "ws://h/p", "stereo", 16000).split(" ") == (
        ["u", "start", "ws://h/p", "stereo", "16000", "audio_fork", "{}", "true", "true", "16000"]
    )


@given(st.binary(max_size=700))
def test_a_base64_fork_is_sent_what_it_plays(pcm: bytes) -> None:
    assert AUDIO_STREAM_BASE64.text is not None
    message = json.loads(AUDIO_STREAM_BASE64.text(pcm))
    assert message["type"] == "streamAudio"
    assert base64.b64decode(message["data"].pop("audioData")) == pcm
    assert message["data"] == {"audioDataType": "raw", "sampleRate": 8000}


@given(st.binary(max_size=700), st.sampled_from((8000, 16000, 24000)))
def test_a_fork_is_handed_files_as_it_reads_them(pcm: bytes, rate_hz: int) -> None:
    message = json.loads(play_audio(pcm, rate_hz, "d7"))
    assert message["type"] == "playAudio"
    assert base64.b64decode(message["data"].pop("audioContent")) == pcm
    assert message["data"] == {"audioContentType": "raw", "sampleRate": rate_hz, "textContent": "d7"}


def test_a_recorded_play_audio_event_names_its_file() -> None:
    esl = (CAPTURES / "10f-audio-fork" / "esl.txt").read_text()
    body = next(line.strip() for line in esl.splitlines() if '"textContent"' in line)
    written = played_audio(body)
    assert written is not None
    assert written.id == "hi"
    assert written.file.endswith("_0.tmp.r8")


@pytest.mark.parametrize("body", ["", "{}", '{"file":""}', '{"file":1}', "[]", b"\xff", '{"textContent":"x"}'])
def test_a_body_that_names_no_file_is_none(body: str | bytes) -> None:
    assert played_audio(body) is None


def test_marks_are_read_as_the_module_writes_them() -> None:
    assert json.loads(set_mark("m1")) == {"type": "mark", "data": {"name": "m1"}}
    assert read_mark('{"type": "mark", "data": {"name":"m1", "event": "playout"}}') == Mark("m1", True)
    assert read_mark('{"type": "mark", "data": {"name":"m1", "event": "cleared"}}') == Mark("m1", False)


def test_a_text_that_is_nested_without_end_names_nothing() -> None:
    deep = '{"x":' + "[" * 100_000
    assert read_mark(deep) is None
    assert played_audio(deep) is None
    assert play_file(deep) is None


@given(st.text() | st.just('{"type":"mark"}') | st.just('{"type":"mark","data":{"name":1}}'))
def test_any_other_text_is_no_mark(text: str) -> None:
    assert read_mark(text) is None
