"""What the simulated switch writes, the decoder reads back; and what is not told apart on the wire is said here."""

import re
from urllib.parse import unquote as url_unquote

import pytest
from hypothesis import example, given, seed
from hypothesis import strategies as st

from dueto.errors import LocalProtocolError
from dueto.wire.esl import (
    ConnectAnswer,
    Decoder,
    DisconnectNotice,
    Event,
    Message,
    Reply,
    quote,
    unquote,
)
from dueto.wire.esl.quoting import utf8
from dueto.wire.esl.switch_end import (
    encode_api_response,
    encode_connect_answer,
    encode_event,
    encode_event_json,
    encode_goodbye,
    encode_linger_notice,
    encode_reply,
)

NAMES = st.text("ABCabc-_019", min_size=1, max_size=20).map("X-".__add__)
VALUES = st.one_of(
    st.text(st.characters()),  # surrogates too
    st.text("%0123456789ABCDEFabcdef\r\n: _", max_size=30),
    st.sampled_from(["", "_undef_", "%0A", "%zz", "100%", "Zoë", "a\nb", "\udce9", "\ud800", "\x85", "\u2028", " x "]),
)
BODIES = st.binary(max_size=60)


def one(data: bytes) -> Message:
    (message,) = Decoder().feed(data)
    return message


def through_the_wire(value: str) -> str:
    """What is left of a value: `%41` can't be told from `A`, `_undef_` not from nothing, bytes that are no text are."""
    text = utf8(value).decode("utf-8", "surrogateescape")
    if text == "_undef_":
        return ""
    already = re.sub(r"%(?![0-9A-F]{2})", "%25", text)
    raw = url_unquote(already, errors="surrogateescape").encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "replace")


@seed(8022)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), BODIES)
@example([("X-A", "x\nUnique-ID: VICTIM"), ("X-A", "second")], b"\n\nX-B: c\n\n")
@example([("X-A", "%%41%4")], b"")
def test_any_headers_and_body_come_back_from_a_plain_event(headers: list[tuple[str, str]], body: bytes) -> None:
    event = one(encode_event(headers, body))
    assert isinstance(event, Event)
    length = [("Content-Length", str(len(body)))] if body else []
    assert list(event.items()) == [(name, through_the_wire(value)) for name, value in headers] + length
    first: dict[str, str] = {}
    for name, value in headers:
        first.setdefault(name, through_the_wire(value))
    assert {name: event.get(name) for name, _ in headers} == first
    assert event.body_bytes == body
    assert event.get("Absent", "nothing") == "nothing"


@seed(8022)
@given(st.lists(st.tuples(NAMES, st.text(st.characters(exclude_categories=["Cs"]))), max_size=8), st.text())
def test_a_json_event_brings_every_value_as_it_was(headers: list[tuple[str, str]], body: str) -> None:
    headers = [(name, value) for name, value in headers if value not in {"_undef_"} and "ARRAY::" not in value]
    event = one(encode_event_json(headers, utf8(body)))
    assert isinstance(event, Event)
    assert [item for item in event.items() if item[0] != "Content-Length"] == headers
    assert event.body_bytes == utf8(body)


@seed(8022)
@given(st.binary())
def test_quoted_text_is_printable_ascii_and_reads_back(value: bytes) -> None:
    quoted = quote(value)
    assert re.fullmatch(rb"[!$'()*,\-./0-9A-Z_a-z~%]*", quoted)
    assert quote(quoted) == quoted
    if not re.search(rb"%[0-9A-F]{2}", value):
        assert unquote(quoted) == value.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        (b"", b""),
        (b"!$'()*,-./azAZ09_~", b"!$'()*,-./azAZ09_~"),
        (b'#%&+:;<=>?@[\\]^{|}"` ', b"%23%25%26%2B%3A%3B%3C%3D%3E%3F%40%5B%5C%5D%5E%7B%7C%7D%22%60%20"),
        (b"\n\r\0\x7f", b"%0A%0D%00%7F"),
        ("é".encode(), b"%C3%A9"),
        (b"%41", b"%41"),
        (b"%4a", b"%254a"),
        (b"%zz", b"%25zz"),
        (b"%%41", b"%25%41"),
        (b"100%", b"100%25"),
    ],
)
def test_values_are_quoted_as_the_switch_does(value: bytes, quoted: bytes) -> None:
    assert quote(value) == quoted


def test_an_empty_value_is_written_undef_and_reads_as_absent() -> None:
    raw = encode_event([("Event-Name", "X"), ("Caller-Caller-ID-Name", "")])
    assert b"Caller-Caller-ID-Name: _undef_\n" in raw
    event = one(raw)
    assert isinstance(event, Event)
    assert event.get("Caller-Caller-ID-Name", "nobody") == "nobody"
    assert event.as_dict()["Caller-Caller-ID-Name"] == ""
    assert event.find("Caller-Caller-ID-Name") == b"_undef_"


def test_a_header_with_several_entries_reads_as_a_list_in_both_formats() -> None:
    for encode in (encode_event, encode_event_json):
        event = one(encode([("Event-Name", "X"), ("variable_v", "ARRAY::a b|:c"), ("variable_one", "d")]))
        assert isinstance(event, Event)
        assert event.get_list("variable_v") == ["a b", "c"]
        assert event.get_list("variable_one") == ["d"]
        assert event.get_list("variable_none") == []
    assert b'"variable_v":["a b","c"]' in encode_event_json([("variable_v", "ARRAY::a b|:c")])


@seed(8022)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.sampled_from(["async", "static"]), st.booleans())
def test_the_connect_answer_is_the_channel(headers: list[tuple[str, str]], mode: str, full: bool) -> None:
    control = "full" if full else "single-channel"
    head = [("Event-Name", "CHANNEL_DATA"), ("Unique-ID", "A"), *headers]
    answer = one(encode_connect_answer(head, mode=mode, control=control))
    assert isinstance(answer, ConnectAnswer)
    assert (answer.ok, answer.text, answer.full, answer.is_async) == (True, "+OK", full, mode == "async")
    assert list(answer.channel.items())[: len(head)] == [(name, through_the_wire(value)) for name, value in head]
    assert answer.channel.unique_id == "A"


@seed(8022)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=40))
@example("+OK 100%41 %0A")
def test_a_reply_is_not_decoded(text: str) -> None:
    reply = one(encode_reply(text, [("Job-UUID", "%41")]))
    assert type(reply) is Reply
    assert reply.text == text
    assert reply.job_uuid == "%41"


@seed(8022)
@given(BODIES)
def test_api_output_comes_back_byte_for_byte(output: bytes) -> None:
    assert one(encode_api_response(output)).body_bytes == output


def test_the_two_notices_are_told_apart() -> None:
    linger, goodbye, inbound = Decoder().feed(
        encode_linger_notice("A", "sofia/internal/1", -1) + encode_goodbye("A") + encode_goodbye()
    )
    assert isinstance(linger, DisconnectNotice)
    assert (linger.lingers, linger.unique_id, linger.body) == (True, "A", "")
    assert isinstance(goodbye, DisconnectNotice)
    assert (goodbye.lingers, goodbye.unique_id) == (False, "A")
    assert goodbye.body.startswith("Disconnected, goodbye.")
    assert isinstance(inbound, DisconnectNotice)
    assert (inbound.lingers, inbound.unique_id) == (False, "")


@pytest.mark.parametrize("name", ["", "a\nb", "a: b", "a\rb"])
@pytest.mark.parametrize("encode", [encode_event, encode_event_json])
def test_the_simulated_switch_writes_no_header_name_that_is_two(encode, name: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LocalProtocolError):
        encode([(name, "value")])


def test_headers_of_an_event_built_from_items_are_read_as_they_were_given() -> None:
    event = Event.from_items([("Event-Name", "CUSTOM"), ("A", "100%41\n"), ("B", ""), ("A", "later")], b"body")
    assert (event.name, event.get("A"), event.get("B", "none"), event.body) == ("CUSTOM", "100%41\n", "none", "body")
    assert Event.from_items([]).as_dict() == {}
    assert Event.from_items([]).name == ""


def test_more_header_names_than_are_kept_ready_are_all_found() -> None:
    names = [f"variable_{number}" for number in range(3000)]
    event = Event.from_items([(name, name.upper()) for name in names])
    assert all(event.get(name) == name.upper() for name in names)
