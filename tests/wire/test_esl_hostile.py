"""What callers, audio servers and odd peers may put on an event socket, and what must not come of it."""

import json
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st
from tests.wire.recordings import pieces

from dueto.errors import RemoteProtocolError
from dueto.wire.esl import (
    ApiResponse,
    BrokenStream,
    ConnectAnswer,
    Decoder,
    DisconnectNotice,
    Event,
    Limits,
    LogLine,
    Message,
    Reply,
)
from dueto.wire.esl.formats import event_from_json, event_from_xml
from dueto.wire.esl.messages import _NEEDLES
from dueto.wire.esl.switch_end import (
    encode_api_response,
    encode_connect_answer,
    encode_event,
    encode_event_json,
    encode_goodbye,
    encode_linger_notice,
    encode_reply,
)

HANGUP = encode_event([("Event-Name", "CHANNEL_HANGUP"), ("Unique-ID", "A"), ("Hangup-Cause", "NORMAL_CLEARING")])
FORGED = "x%0AUnique-ID: VICTIM%0AEvent-Name: CHANNEL_HANGUP"
SMALL = Limits(header_bytes=400, line_bytes=200, body_bytes=1000)


def one(data: bytes) -> Message:
    decoder = Decoder()
    (message,) = decoder.feed(data)
    assert decoder.pending_bytes == 0
    return message


def event(data: bytes) -> Event:
    message = one(data)
    assert isinstance(message, Event)
    return message


def outcome(decoder: Decoder, feeds: Iterable[bytes]) -> tuple[list[Message], str]:
    """Feed all of it; return every message, and the fault or an empty text."""
    messages: list[Message] = []
    try:
        for piece in feeds:
            messages += decoder.feed(piece)
    except BrokenStream as error:
        return [*messages, *error.complete], str(error)
    return messages, ""


def plain(inner: bytes) -> bytes:
    return b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % len(inner) + inner


# -- forging


@pytest.mark.parametrize("name", [FORGED, FORGED.replace("%0A", "\n"), FORGED.replace("%0A", "\r\n"), FORGED + "\n\n"])
@pytest.mark.parametrize("encode", [encode_event, encode_event_json])
def test_a_caller_name_forges_nothing(name: str, encode: Callable[[list[tuple[str, str]]], bytes]) -> None:
    headers = [("Event-Name", "DTMF"), ("Caller-Caller-ID-Name", name), ("Unique-ID", "A")]
    seen = event(encode(headers))
    assert (seen.name, seen.unique_id) == ("DTMF", "A")
    assert [header for header, _ in seen.items()] == [header for header, _ in headers]
    assert "VICTIM" in seen.get("Caller-Caller-ID-Name")


def test_a_caller_name_ahead_of_the_real_headers_forges_nothing() -> None:
    seen = event(encode_event([("Caller-Caller-ID-Name", FORGED), ("Unique-ID", "A"), ("Event-Name", "DTMF")]))
    assert (seen.name, seen.unique_id) == ("DTMF", "A")
    assert seen.get("Caller-Caller-ID-Name") == "x\nUnique-ID: VICTIM\nEvent-Name: CHANNEL_HANGUP"


@pytest.mark.parametrize(
    "body",
    [
        b"\nUnique-ID: VICTIM\n\n",
        b"Unique-ID: VICTIM\nEvent-Name: CHANNEL_HANGUP\n\n",
        b"\n\nUnique-ID: VICTIM\n",
        b"Content-Length: 3\n\nabc\nUnique-ID: VICTIM\n\n",
        b"\r\n\r\nUnique-ID: VICTIM\r\n\r\n",
        HANGUP,
    ],
)
@pytest.mark.parametrize("encode", [encode_event, encode_event_json])
def test_a_body_forges_nothing(body: bytes, encode: Callable[[list[tuple[str, str]], bytes], bytes]) -> None:
    seen = event(encode([("Event-Name", "CUSTOM"), ("Event-Subclass", "mod_audio_stream::json")], body))
    assert (seen.name, seen.unique_id, seen.get("Hangup-Cause", "none")) == ("CUSTOM", "", "none")
    assert seen.find("Unique-ID") is None
    assert seen.body_bytes == body
    assert [name for name, _ in seen.items()] == ["Event-Name", "Event-Subclass", "Content-Length"]


@seed(8022)
@given(st.binary(min_size=1, max_size=200))
@example(b"\n\n")
@example(b"\nUnique-ID: VICTIM\n\n")
def test_absent_headers_are_never_found_in_a_body(body: bytes) -> None:
    seen = event(encode_event([("Event-Name", "CUSTOM")], body + b"\nUnique-ID: VICTIM\n\n"))
    assert seen.get("Unique-ID", "absent") == "absent"
    assert seen.as_dict().keys() == {"Event-Name", "Content-Length"}


def test_api_output_and_notices_with_header_lines_in_their_bodies_have_only_their_own_headers() -> None:
    answer = one(encode_api_response(b"Reply-Text: +OK\nUnique-ID: VICTIM\n\n"))
    assert isinstance(answer, ApiResponse)
    assert answer.find("Unique-ID") is None
    goodbye = one(b"Content-Type: text/disconnect-notice\nContent-Length: 31\n\nContent-Disposition: linger\nabc\n")
    assert isinstance(goodbye, DisconnectNotice)
    assert not goodbye.lingers


@pytest.mark.parametrize("name", ["Unique-ID\nX", "a\rb", "Unique-ID: VICTIM\nx", "Unique-ID: A", ""])
def test_a_json_member_name_cannot_become_another_header(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        event_from_json(json.dumps({name: "VICTIM", "Event-Name": "DTMF"}).encode())


def test_a_name_that_ends_like_another_is_not_that_other() -> None:
    seen = event(encode_event([("Channel-Unique-ID", "B"), ("Unique-ID-X", "C"), ("variable_Unique-ID", "D")]))
    assert seen.unique_id == ""
    assert seen.variable("Unique-ID") == "D"


def test_the_first_of_headers_that_occur_twice_wins() -> None:
    for encode in (encode_event, encode_event_json):
        seen = event(encode([("Hangup-Cause", "USER_BUSY"), ("Event-Name", "X"), ("Hangup-Cause", "FORGED")]))
        assert seen.get("Hangup-Cause") == seen.as_dict()["Hangup-Cause"] == "USER_BUSY"


@pytest.mark.parametrize("held", [0, 1, 20])
def test_an_event_inside_a_body_is_none_wherever_the_pieces_are_cut(held: int) -> None:
    stream = encode_api_response(b"x" * held + HANGUP)
    for cut in range(len(stream)):
        messages, fault = outcome(Decoder(), (stream[:cut], stream[cut:]))
        assert not fault
        assert [type(message) for message in messages] == [ApiResponse]


def test_an_event_whose_envelope_has_more_headers_is_one_wherever_the_pieces_are_cut() -> None:
    stream = b"X-First: 1\n" + HANGUP
    for cut in range(len(stream)):
        decoder = Decoder()
        messages, fault = outcome(decoder, (stream[:cut], stream[cut:]))
        assert not fault
        assert [type(message) for message in messages] == [Event]
        assert decoder.pending_bytes == 0


# -- framing that lies


@pytest.mark.parametrize(
    "broken",
    [
        b"no colon here\n\n",
        b"Content-Type: command/reply\nno colon\n\n",
        b"Content-Type: text/unheard-of\n\n",
        b"Reply-Text: +OK\n\n",
        b"Content-Type: api/response\nContent-Length: -1\n\n",
        b"Content-Type: api/response\nContent-Length: \n\n",
        b"Content-Type: api/response\nContent-Length: 0x10\n\n",
        b"Content-Type: api/response\nContent-Length: 1_0\n\n",
        "Content-Type: api/response\nContent-Length: ²\n\n".encode(),
        b"Content-Type: api/response\nContent-Length: 99999999999\n\n",
        b"Content-Type: api/response\nContent-Length: " + b"9" * 5000 + b"\n\n",
        b"Content-Length: " + b"9" * 12 + b"\nContent-Type: text/event-plain\n\n",
        b"Content-Type: api/response\nContent-Length: 1\nContent-Length: 2\n\nab",
        b"Content-Type: api/response\nContent-Length: 1\ncontent-length: 2\n\nab",
        plain(b""),
        plain(b"Event-Name: DTMF\n"),
        plain(b"Event-Name: DTMF"),
        plain(b"Event-Name: CUSTOM\nContent-Length: 9\n\nshort"),
        plain(b"Event-Name: CUSTOM\nContent-Length: 2\n\nlonger"),
        plain(b"Event-Name: CUSTOM\nContent-Length: " + b"1" * 5000 + b"\n\nabc"),
        plain(b"Event-Name: CUSTOM\n\nno length"),
        b"Content-Length: 4\nContent-Type: text/event-json\n\n[{}]",
        b"Content-Length: 2\nContent-Type: text/event-json\n\n{x",
        b'Content-Length: 7\nContent-Type: text/event-json\n\n{"a":1}',
        b'Content-Length: 9\nContent-Type: text/event-json\n\n{"a":[1]}',
        b'Content-Length: 12\nContent-Type: text/event-json\n\n{"_body":{} }',
        b"Content-Length: 100000\nContent-Type: text/event-json\n\n" + b"[" * 100_000,
        b"Content-Length: 100000\nContent-Type: text/event-json\n\n" + b"1" * 100_000,
        b"Content-Length: 3\nContent-Type: text/event-xml\n\n<a>",
        b"Content-Length: 32\nContent-Type: text/event-xml\n\n<!DOCTYPE a [<!ENTITY b 'c'>]><a/>"[:-2],
    ],
)
def test_what_was_complete_before_a_fault_is_kept_and_nothing_after_it_is_read(broken: bytes) -> None:
    for size in (1, len(HANGUP) + len(broken) + len(HANGUP)):
        stream = HANGUP + broken + HANGUP
        decoder = Decoder()
        messages, fault = outcome(decoder, (stream[at : at + size] for at in range(0, len(stream), size)))
        assert fault
        (hangup,) = messages
        assert isinstance(hangup, Event)
        assert hangup.get("Hangup-Cause") == "NORMAL_CLEARING"
        with pytest.raises(BrokenStream) as again:
            decoder.feed(HANGUP)
        assert again.value.complete == ()
        assert decoder.pending_bytes == 0


def test_a_broken_stream_is_a_remote_protocol_error() -> None:
    with pytest.raises(RemoteProtocolError, match="without a colon"):
        Decoder().feed(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    ("head", "kind", "body"),
    [
        (b"Event-Name: X\nContent-Type: command/reply\nReply-Text: +OK\n", ConnectAnswer, b""),
        (b"Event-Name: X\ncontent-length: 3\nContent-Type: command/reply\nReply-Text: +OK\n", ConnectAnswer, b"abc"),
        (b"Event-Name: X\nContent-Type: command/reply\nReply-Text: +OK\ncontent-length: 3\n", ConnectAnswer, b"abc"),
        (
            b"Event-Name: X\nContent-Type: api/response\nContent-Type: command/reply\nReply-Text: +OK\n",
            ApiResponse,
            b"",
        ),
        (b"Event-Name: X\r\nContent-Type: command/reply\nReply-Text: +OK\n", ConnectAnswer, b""),
        (b"Event-Name: X\nno colon\nContent-Type: command/reply\nReply-Text: +OK\n", None, b""),
        (b"Event-X: Y\nContent-Type: command/reply\nReply-Text: +OK\n", Reply, b""),
    ],
)
def test_an_answer_to_connect_is_what_its_lines_say(head: bytes, kind: type | None, body: bytes) -> None:
    for size in (len(head) + 4, 1):
        stream = head + b"\nabc"
        messages, fault = outcome(Decoder(), (stream[at : at + size] for at in range(0, len(stream), size)))
        assert [(type(message), message.body_bytes) for message in messages] == ([(kind, body)] if kind else [])
        assert bool(fault) == (kind is None)
        assert not any(b"\r" in message.raw for message in messages)


def test_no_byte_makes_up_for_a_colon() -> None:
    for byte in sorted(set(range(256)) - set(b":\r\n")):
        with pytest.raises(BrokenStream, match="without a colon"):
            Decoder().feed(b"Content-Type: command/reply\n%c\n\n" % byte)


def test_a_length_given_twice_alike_is_taken() -> None:
    answer = one(b"Content-Type: api/response\nContent-Length:3\nContent-Length: 3\n\n+OK")
    assert answer.body_bytes == b"+OK"


def test_the_length_that_an_event_brings_along_is_not_that_of_its_body() -> None:
    seen = event(plain(b"Event-Name: CUSTOM\nContent-Length: 999\nContent-Length: 2\n\nhi"))
    assert seen.body == "hi"
    assert event(plain(b"Event-Name: CUSTOM\nContent-Length: 0\n\n")).body_bytes == b""


def test_a_line_without_a_colon_inside_an_event_is_no_header() -> None:
    seen = event(plain(b"Event-Name: DTMF\nnonsense\nUnique-ID: A\n\n"))
    assert seen.unique_id == "A"
    assert list(seen.as_dict()) == ["Event-Name", "Unique-ID"]


def test_blank_lines_between_blocks_are_skipped() -> None:
    decoder = Decoder()
    stream = b"\n\n" + HANGUP + b"\r\n\n\r\n" + encode_reply("+OK") + b"\n"
    assert [type(m) for m in decoder.feed(stream)] == [Event, Reply]
    one_by_one = Decoder()
    assert [type(m) for at in range(len(stream)) for m in one_by_one.feed(stream[at : at + 1])] == [Event, Reply]


def test_line_endings_may_be_mixed() -> None:
    reply = b"Content-Type: command/reply\r\nReply-Text: +OK bye\n\r\n"
    log = b"Content-Type: log/data\nLog-Level: 7\r\nContent-Length: 6\r\n\r\nline\r\n"
    inner = b"Event-Name: CUSTOM\r\nUnique-ID: A\nContent-Length: 4\r\n\r\n\n\r\n\n"
    first, second, third = Decoder().feed(reply + log + plain(inner))
    assert isinstance(first, Reply)
    assert first.text == "+OK bye"
    assert isinstance(second, LogLine)
    assert (second.level, second.body) == ("7", "line\r\n")
    assert isinstance(third, Event)
    assert (third.unique_id, third.body_bytes) == ("A", b"\n\r\n\n")


@seed(8022)
@settings(max_examples=400)
@given(
    st.lists(
        st.sampled_from(
            [
                HANGUP,
                encode_event([("Event-Name", "CUSTOM")], b"\n\nbody\n\n"),
                encode_event_json([("Event-Name", "CUSTOM")], b"\n"),
                encode_reply("+OK"),
                encode_api_response(b""),
                encode_api_response(b"\n\n-ERR"),
                encode_linger_notice("A", "sofia/x", 5),
                encode_goodbye("A"),
                encode_connect_answer([("Event-Name", "CHANNEL_DATA"), ("Unique-ID", "A")]),
                b"Event-Name: CHANNEL_DATA\n",
                b"\nContent-Type: command/reply\nReply-Text: +OK\n\n",
                b"content-length: 3\n",
                b"X: 1\n",
                b"\n",
                b"\r\n",
                b"Content-Length: 5\n",
                b"Content-Type: text/event-plain\r\n",
                b"Content-Length: 3\n\n",
                b"junk",
                b": ",
                b"\x00\xff",
                b"{}",
            ]
        ),
        max_size=8,
    ),
    st.data(),
)
def test_any_bytes_in_any_pieces_give_the_same_messages_or_the_same_fault(
    parts: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(parts)

    def compared(feeds: Iterable[bytes]) -> tuple[list[tuple[type, bytes, bytes]], str]:
        messages, fault = outcome(Decoder(), feeds)
        return [(type(message), message.raw, message.body_bytes) for message in messages], fault

    whole = compared([stream])
    assert compared(stream[at : at + 1] for at in range(len(stream))) == whole
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    assert compared(pieces(stream, cuts)) == whole


@seed(8022)
@given(st.binary(max_size=300))
def test_the_other_formats_fail_in_one_way_only(content: bytes) -> None:
    for read in (event_from_json, event_from_xml, lambda data: Event.from_content(b"\n" + data)):
        try:
            seen = read(content)
        except RemoteProtocolError:
            continue
        seen.as_dict()
        assert seen.sequence >= 0


def test_xml_in_another_encoding_hides_no_document_type() -> None:
    entity = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "c">]>'
    text = entity + "<event><headers><A>&b;</A></headers></event>"
    for content in (text.encode(), text.encode("utf-16")):
        with pytest.raises(RemoteProtocolError):
            event_from_xml(content)


def test_half_a_surrogate_pair_in_json_breaks_nothing() -> None:
    seen = event_from_json(rb'{"Event-Name":"CUSTOM","A":"\ud800x","\udfff":"1","_body":"\ud800"}')
    assert seen.get("A") == "?x"
    assert seen.body == "?"


def test_bytes_that_are_no_utf8_are_read_as_such() -> None:
    reply = one(b"Content-Type: command/reply\nReply-Text: +OK \xff\n\n")
    assert isinstance(reply, Reply)
    assert reply.text == "+OK \ufffd"
    assert one(encode_api_response(b"\xff")).body == "\ufffd"
    seen = event(plain(b"Event-Name: X\nA: \xff\n\xff: %FF\n\n"))
    assert seen.as_dict() == {"Event-Name": "X", "A": "\ufffd", "\ufffd": "\ufffd"}
    assert seen.get("\ud800", "absent") == "absent"


def test_names_that_were_asked_for_are_not_kept_for_ever() -> None:
    seen = event(HANGUP)
    for number in range(3000):
        seen.get(f"variable_{number}")
        assert len(_NEEDLES) <= 1024
    assert seen.find("Event-Name") == b"CHANNEL_HANGUP"


@pytest.mark.parametrize("digits", ["9" * 5000, "1" * 21, "-1", "", "1e3", "²"])
def test_an_event_sequence_that_is_none_reads_zero(digits: str) -> None:
    seen = event(encode_event([("Event-Name", "X"), ("Event-Sequence", digits)]))
    assert seen.sequence == 0
    assert seen.number("Event-Sequence") is None
    assert event(encode_event([("Event-Sequence", str(2**64 - 1))])).sequence == 2**64 - 1


# -- limits


def reply_of(lines: int, width: int) -> bytes:
    """A reply whose header block is 28 bytes and `lines` lines of `width` bytes, newlines included."""
    return b"Content-Type: command/reply\n" + (b"X: " + b"x" * (width - 4) + b"\n") * lines + b"\n"


def connect_answer(lines: int, width: int) -> bytes:
    """The same, of an answer to `connect`: 96 bytes and those lines."""
    return encode_connect_answer([("Event-Name", "X"), *[("variable_x", "x" * (width - 13))] * lines])


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (reply_of(1, 201), ""),
        (reply_of(1, 202), "header line of more than 200 bytes"),
        (reply_of(12, 31), ""),
        (reply_of(12, 32), "header block of more than 400 bytes"),
        (encode_api_response(b"x" * 1000), ""),
        (encode_api_response(b"x" * 1001), "body of 1001 bytes, more than 1000"),
        (plain(b"A: " + b"x" * 995 + b"\n\n"), ""),
        (plain(b"A: " + b"x" * 996 + b"\n\n"), "body of 1001 bytes, more than 1000"),
        (encode_reply("+OK " + "x" * 184), ""),
        (encode_reply("+OK " + "x" * 185), "header line of more than 200 bytes"),
        (connect_answer(1, 201), ""),
        (connect_answer(1, 202), "header line of more than 200 bytes"),
        (connect_answer(8, 38), ""),
        (connect_answer(8, 39), "header block of more than 400 bytes"),
        (b"x" * 201, "header line of more than 200 bytes"),
        (b"x: y\n" * 81, "header block of more than 400 bytes"),
    ],
)
def test_limits_are_exact_and_messages_before_the_fault_are_kept(stream: bytes, fault: str) -> None:
    stream = HANGUP + stream
    for size in (len(stream), 1):
        messages, seen = outcome(Decoder(SMALL), (stream[at : at + size] for at in range(0, len(stream), size)))
        assert seen == fault
        assert isinstance(messages[0], Event)
        assert len(messages) == (1 if fault else 2)


@seed(8022)
@given(st.integers(150, 250), st.lists(st.integers(0, 600), max_size=5))
def test_a_long_line_is_refused_in_whatever_pieces_it_comes(width: int, cuts: list[int]) -> None:
    stream = encode_reply("+OK") + HANGUP + b"Content-Type: command/reply\n" + b"x" * width
    messages, fault = outcome(Decoder(SMALL), pieces(stream, [min(cut, len(stream)) for cut in cuts]))
    assert len(messages) == 2
    assert fault == ("header line of more than 200 bytes" if width > 200 else "")


def test_a_body_is_refused_when_it_is_announced() -> None:
    with pytest.raises(BrokenStream, match="body of"):
        Decoder().feed(b"Content-Type: api/response\nContent-Length: %d\n\n" % (17 << 20))


def test_blank_lines_without_end_are_not_held() -> None:
    decoder = Decoder(SMALL)
    for _ in range(1000):
        assert decoder.feed(b"\r\n\n\n") == []
        assert decoder.pending_bytes == 0
