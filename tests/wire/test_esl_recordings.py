"""Everything a real switch sent and took, in any pieces."""

from itertools import pairwise
from urllib.parse import unquote as url_unquote

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tests.wire.recordings import all_streams, blocks, pieces, streams, with_crlf

from dueto.wire.esl import ApiResponse, ConnectAnswer, Decoder, Event, Message, Reply
from dueto.wire.esl.switch_end import CommandDecoder, encode_event

STREAMS = all_streams()
KINDS = {
    b"command/reply": "Reply",
    b"api/response": "ApiResponse",
    b"text/event-plain": "Event",
    b"text/event-json": "Event",
    b"text/event-xml": "Event",
    b"text/disconnect-notice": "DisconnectNotice",
    b"auth/request": "AuthRequest",
    b"text/rude-rejection": "Rejection",
}


def seen(message: Message) -> tuple[str, bytes, bytes]:
    """All there is to a message, to compare by."""
    return type(message).__name__, message.raw, message.body_bytes


def read(stream: bytes, size: int = 0) -> list[tuple[str, bytes, bytes]]:
    """Feed `stream` in pieces of `size` bytes, or whole."""
    decoder = Decoder()
    step = size or len(stream)
    messages = [m for at in range(0, len(stream), step) for m in decoder.feed(stream[at : at + step])]
    assert decoder.pending_bytes == 0
    return [seen(message) for message in messages]


def header_lines(block: bytes) -> list[tuple[str, str]]:
    """Read event headers with nothing but the standard library."""
    pairs = (line.partition(": ") for line in block.decode().split("\n") if line)
    return [(name, "" if value == "_undef_" else url_unquote(value)) for name, _, value in pairs]


@pytest.mark.parametrize(("folder", "conn"), STREAMS)
def test_a_recording_gives_every_block_the_switch_sent(folder: str, conn: int) -> None:
    stream = streams(folder)[conn]
    messages = Decoder().feed(stream)
    sent = list(blocks(stream))
    assert len(messages) == len(sent)
    for message, (head, body) in zip(messages, sent, strict=True):
        kind = next(line[14:] for line in head.split(b"\n") if line.startswith(b"Content-Type: "))
        assert type(message).__name__.replace("ConnectAnswer", "Reply") == KINDS[kind]
        if kind == b"text/event-plain":
            assert isinstance(message, Event)
            inner, _, inner_body = body.partition(b"\n\n")
            assert list(message.items()) == header_lines(inner)
            assert message.body_bytes == inner_body
        elif not isinstance(message, Event):
            assert message.raw == b"\n" + head + b"\n"
            assert message.body_bytes == body


@pytest.mark.parametrize(("folder", "conn"), STREAMS)
def test_a_recording_reads_the_same_byte_by_byte(folder: str, conn: int) -> None:
    stream = streams(folder)[conn]
    assert read(stream, 1) == read(stream)


@pytest.mark.parametrize(("folder", "conn"), STREAMS)
def test_a_recording_reads_the_same_with_crlf(folder: str, conn: int) -> None:
    stream = streams(folder)[conn]
    expected = [(kind, raw.rstrip(b"\n"), body) for kind, raw, body in read(stream)]
    for size in (0, 1):
        messages = read(with_crlf(stream), size)
        assert [kind for kind, _, _ in messages] == [kind for kind, _, _ in expected]
        for (kind, raw, body), (_, lf_raw, lf_body) in zip(messages, expected, strict=True):
            assert body == lf_body
            if kind == "Event":  # the envelope's length differs, what is in it does not
                assert raw.rstrip(b"\n") == lf_raw


@seed(8022)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_recording_reads_the_same_at_any_splits(data: st.DataObject) -> None:
    folder, conn = data.draw(st.sampled_from(STREAMS))
    stream = streams(folder)[conn]
    if data.draw(st.booleans(), label="crlf"):
        stream = with_crlf(stream)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=40))
    decoder = Decoder()
    messages = [seen(message) for piece in pieces(stream, cuts) for message in decoder.feed(piece)]
    assert messages == read(stream)
    assert decoder.pending_bytes == 0


@pytest.mark.parametrize(("folder", "conn"), [s for s in STREAMS if not s[0].startswith("17")])
def test_a_call_begins_with_the_channel_and_keeps_its_unique_id(folder: str, conn: int) -> None:
    messages = Decoder().feed(streams(folder)[conn])
    answer = messages[0]
    assert isinstance(answer, ConnectAnswer)
    assert answer.ok
    assert answer.text == "+OK"
    assert answer.channel.name == "CHANNEL_DATA"
    assert answer.channel.unique_id
    assert answer.full == (folder not in {"09b-without-full", "18d-sync-exit-continues-dialplan"})
    assert answer.is_async == (folder not in {"18c-sync-full", "18d-sync-exit-continues-dialplan"})
    events = [m for m in messages if isinstance(m, Event) and m.get("Event-Calling-File") != "mod_commands.c"]
    assert {e.unique_id for e in events if e.name.startswith("CHANNEL_")} <= {answer.channel.unique_id}
    assert all(event.sequence > 0 for event in events)


def test_the_captures_hold_what_these_tests_stand_on() -> None:
    assert len(STREAMS) > 60
    kinds = {type(m).__name__ for folder, conn in STREAMS for m in Decoder().feed(streams(folder)[conn])}
    assert kinds == {*KINDS.values(), "ConnectAnswer"}


def test_json_events_have_the_same_headers_as_plain_ones_and_keep_percent_signs() -> None:
    messages = Decoder().feed(streams("12a-myevents-json")[1])
    answer = messages[0]
    assert isinstance(answer, ConnectAnswer)
    kinds = [head for head, _ in blocks(streams("12a-myevents-json")[1])]
    events: dict[bool, dict[str, Event]] = {True: {}, False: {}}
    for message, head in zip(messages, kinds, strict=True):
        if isinstance(message, Event):
            events[b"event-json" in head].setdefault(message.name, message)
            for name in ("Caller-Caller-ID-Name", "Channel-Name", "Unique-ID", "variable_sip_from_uri"):
                assert message.get(name) == (answer.channel.get(name) if name in message.as_dict() else "")
    plain, from_json = events[False]["CHANNEL_EXECUTE_COMPLETE"], events[True]["CHANNEL_EXECUTE_COMPLETE"]
    assert [name for name, _ in plain.items()] == [name for name, _ in from_json.items()]
    fixed = [name for name, _ in plain.items() if name.startswith(("Caller-", "variable_sip_", "FreeSWITCH-"))]
    assert len(fixed) > 60
    assert [plain.get(name) for name in fixed] == [url_unquote(from_json.get(name)) for name in fixed]
    # The caller calls himself `Zoë 100%41: x`: only JSON can tell that from `100A`.
    assert plain.get("variable_sip_from_display") == "Zoë 100A: x"
    assert from_json.get("variable_sip_from_display") == "Zoë 100%41: x"


def test_xml_events_have_the_same_headers_as_plain_ones() -> None:
    answer, *others = Decoder().feed(streams("12b-myevents-xml")[1])
    assert isinstance(answer, ConnectAnswer)
    events = {message.name: message for message in others if isinstance(message, Event)}
    plain = {m.name: m for m in Decoder().feed(streams("03b-dtmf-info-and-recv-dtmf")[1]) if isinstance(m, Event)}
    assert [name for name, _ in events["DTMF"].items()] == [name for name, _ in plain["DTMF"].items()]
    hangup = events["CHANNEL_HANGUP"]
    fixed = [name for name, _ in hangup.items() if name.startswith(("Caller-Caller", "variable_sip_", "FreeSWITCH-"))]
    known = answer.channel.as_dict()
    assert len([name for name in fixed if name in known]) > 30
    assert {n: hangup.get(n) for n in fixed if n in known} == {n: known[n] for n in fixed if n in known}


@pytest.mark.parametrize("folder", ["12a-myevents-json", "12b-myevents-xml"])
def test_events_of_the_other_formats_say_the_same_when_written_as_plain(folder: str) -> None:
    for event in Decoder().feed(streams(folder)[1]):
        if isinstance(event, Event):
            items = [(name, value) for name, value in event.items() if name != "Content-Length"]
            (plain,) = Decoder().feed(encode_event(items, event.body_bytes))
            assert isinstance(plain, Event)
            assert plain.as_dict() == {name: url_unquote(value) for name, value in event.as_dict().items()}
            assert plain.body_bytes == event.body_bytes


def test_the_body_of_a_json_event_is_apart_from_its_headers() -> None:
    events = [m for m in Decoder().feed(streams("12a-myevents-json")[1]) if isinstance(m, Event) and m.subclass]
    assert [event.body for event in events] == ['{"status":"connected"}', '{"type":"x","v":"é"}']
    assert all("_body" not in event.as_dict() for event in events)


def test_a_header_that_the_switch_wrote_twice_is_its_first() -> None:
    events = [m for m in Decoder().feed(streams("01-normal-linger")[1]) if isinstance(m, Event)]
    hangup = next(event for event in events if event.name == "CHANNEL_HANGUP_COMPLETE")
    causes = [value for name, value in hangup.items() if name == "Hangup-Cause"]
    assert len(causes) == 2
    assert hangup.get("Hangup-Cause") == causes[0] == hangup.as_dict()["Hangup-Cause"]


def test_replies_and_api_answers_are_not_decoded() -> None:
    messages = Decoder().feed(streams("09a-api-bgapi-full")[1])
    assert any(isinstance(m, ApiResponse) and m.ok for m in messages)
    assert any(isinstance(m, ApiResponse) and not m.ok and m.body.startswith("-ERR") for m in messages)
    jobs = [m for m in messages if isinstance(m, Reply) and m.job_uuid]
    assert jobs
    assert all(job.text == f"+OK Job-UUID: {job.job_uuid}" for job in jobs)


@pytest.mark.parametrize(("folder", "conn"), all_streams("gw>fs"))
def test_a_recorded_gateway_is_understood_in_any_pieces(folder: str, conn: int) -> None:
    stream = streams(folder, "gw>fs")[conn]
    commands = CommandDecoder().feed(stream)
    assert commands
    assert all(command.word for command in commands)
    for same in (stream, stream.replace(b"\r\n", b"\n"), stream.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")):
        decoder = CommandDecoder()
        one_by_one = [c for at in range(len(same)) for c in decoder.feed(same[at : at + 1])]
        assert [(c.line, c.headers) for c in one_by_one] == [(c.line, c.headers) for c in commands]


def test_sequence_numbers_rise_within_a_call() -> None:
    events = [m for m in Decoder().feed(streams("01-normal-linger")[1]) if isinstance(m, Event)]
    assert all(earlier.sequence < later.sequence for earlier, later in pairwise(events))
