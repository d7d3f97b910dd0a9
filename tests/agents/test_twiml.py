"""TwiML in: the verbs we know, and a refusal that says why for everything else."""

from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.agents.media_streams.twiml import (
    MAX_TWIML_BYTES,
    ConnectStream,
    Dial,
    Gather,
    Hangup,
    Pause,
    Play,
    PlayDigits,
    Redirect,
    Say,
    read_twiml,
)
from dueto.errors import RemoteProtocolError

HERE = "https://bot.example.com/calls/incoming"


def response(inner: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{inner}</Response>'


def test_a_stream_comes_with_its_parameters() -> None:
    twiml = """
        <Connect action="/after">
            <Stream url="wss://bot.example.com/ws">
                <Parameter name="from_number" value="+4930123"/>
                <Parameter name="empty"/>
            </Stream>
        </Connect>"""
    assert read_twiml(response(twiml), HERE) == (
        ConnectStream(
            "wss://bot.example.com/ws",
            {"from_number": "+4930123", "empty": ""},
            "https://bot.example.com/after",
        ),
    )


def test_every_verb_is_read_in_order() -> None:
    twiml = """
        <Say voice="Polly.Joanna">Good  morning,
            &amp; welcome.</Say><Play digits="12w3"/><Pause length="2"/><Pause/>
        <Dial>+49 30 1234</Dial>
        <Dial timeout="15" action="done"><Number>0800</Number></Dial>
        <Dial><Sip>sip:sales@pbx.local</Sip></Dial>
        <Dial><Client>sales</Client></Dial>
        <Dial><Client><Identity>billing</Identity></Client></Dial>
        <Redirect method="POST">/more</Redirect><Reject reason="busy"/><Reject/><Hangup/>"""
    assert read_twiml(response(twiml), HERE) == (
        Say("Good morning, & welcome."),
        PlayDigits("12w3"),
        Pause(2.0),
        Pause(1.0),
        Dial("+49 30 1234"),
        Dial("0800", "number", 15.0, "https://bot.example.com/calls/done"),
        Dial("sip:sales@pbx.local", "sip"),
        Dial("sales", "client"),
        Dial("billing", "client"),
        Redirect("https://bot.example.com/more"),
        Hangup("USER_BUSY"),
        Hangup("CALL_REJECTED"),
        Hangup(),
    )


def test_keys_are_gathered_while_something_is_heard() -> None:
    twiml = """
        <Gather input="dtmf speech" numDigits="4" timeout="3" finishOnKey="*" action="/pin" method="get"
            actionOnEmptyResult="true">
            <Say>Your <emphasis>four</emphasis> digits, <break time="1s"/>please.</Say>
            <Pause/><Play loop="2">beep.wav</Play>
        </Gather>
        <Gather/><Play loop="0">/music.wav</Play>"""
    prompt = (Say("Your four digits, please."), Pause(1.0), Play("https://bot.example.com/calls/beep.wav", 2))
    assert read_twiml(response(twiml), HERE) == (
        Gather("https://bot.example.com/pin", prompt, 4, "*", 3.0, True, "GET", frozenset(("dtmf", "speech"))),
        Gather(HERE),
        Play("https://bot.example.com/music.wav", 1000),
    )


def test_what_came_over_rest_has_no_url_to_gather_for() -> None:
    with pytest.raises(RemoteProtocolError, match="http://"):
        read_twiml("<Response><Gather/></Response>")
    assert read_twiml('<Response><Gather action="https://x/y"/></Response>') == (Gather("https://x/y"),)


def test_an_empty_response_does_nothing() -> None:
    assert read_twiml("<Response/>") == ()


@pytest.mark.parametrize(
    ("twiml", "why"),
    [
        ("hello", "no XML"),
        ("<Response>", "no XML"),
        ("<Answer/>", "begins with <Response>"),
        (response("<Record/>"), "<Record>, which there is not here"),
        (response("<Play>file:///etc/passwd</Play>"), "http:// or https://"),
        (response('<Gather input="dtmf video"/>'), "input is none of"),
        (response("<Gather><Dial>1</Dial></Gather>"), "<Dial> within <Gather>"),
        (response('<Gather><Play digits="1"/></Gather>'), "<Play> within <Gather>"),
        (response('<Gather finishOnKey="x"/>'), "finishOnKey"),
        (response('<Gather action="wss://x"/>'), "http:// or https://"),
        (response('<Redirect method="PUT">/x</Redirect>'), "neither GET nor POST"),
        (response("<Connect/>"), "other than one <Stream>"),
        (response('<Connect><Stream url="https://x"/></Connect>'), "ws:// or wss://"),
        (response('<Connect><Stream url="/ws"/></Connect>'), "ws:// or wss://"),
        (response('<Connect><Stream url="wss://x y"/></Connect>'), "ws:// or wss://"),
        (response('<Connect><Stream url="wss://x&#10;y"/></Connect>'), "ws:// or wss://"),
        (response('<Connect><Stream url="wss://x" track="both_tracks"/></Connect>'), "inbound"),
        (response('<Connect><Stream url="wss://x"><Stream url="wss://y"/></Stream></Connect>'), "<Parameter"),
        (response("<Dial/>"), "nobody"),
        (response("<Dial>1&#0;2</Dial>"), "no XML"),
        (response("<Dial><Number>1</Number><Number>2</Number></Dial>"), "several"),
        (response("<Dial><Conference>x</Conference></Dial>"), "<Conference>"),
        (response('<Dial timeout="soon">1</Dial>'), "timeout is not a whole number"),
        (response("<Redirect>file:///etc/passwd</Redirect>"), "http:// or https://"),
        (response("<Redirect>http://[</Redirect>"), "http:// or https://"),
        (response("<Redirect>//x:99999/</Redirect>"), "http:// or https://"),
        (response('<Dial action="http://">1</Dial>'), "http:// or https://"),
        ('<?xml version="1.0" encoding="nobody-knows"?><Response/>', "no XML"),
        ('<!DOCTYPE Response [<!ENTITY a "aaaa">]><Response><Say>&a;</Say></Response>', "document type"),
        ('<!DOCTYPE Response SYSTEM "http://x/y.dtd"><Response/>', "document type"),
        (response("<Say>" * 20 + "</Say>" * 20), "too deep"),
        (response("<Pause/>" * 501), "too many"),
        ("<Response>" + " " * MAX_TWIML_BYTES + "</Response>", "more than"),
    ],
)
def test_anything_else_is_refused_and_the_text_says_why(twiml: str, why: str) -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        read_twiml(twiml, HERE)
    assert why in str(refusal.value)
    assert str(refusal.value).isprintable()


WORDS = st.sampled_from(
    [
        "",
        "1",
        "sales",
        "wss://x/y",
        "https://x",
        "ws://\n",
        "//x",
        "é",
        "&",
        "<",
        '"',
        "\x00",
        "0" * 99,
        "//[",
        "//x:99999",
        "//x:y",
        "//\u2100.com",
    ]
)
NAMES = st.sampled_from(
    ["Response", "Connect", "Stream", "Parameter", "Dial", "Number", "Say", "Pause", "Redirect", "Gather", "Play"]
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["url", "name", "value", "length", "timeout", "action"]), WORDS, max_size=2
)


def written(name: str, attributes: dict[str, str], inner: list[str]) -> str:
    listed = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items())
    return f"<{name}{listed}>{''.join(inner)}</{name}>"


LEAVES = st.builds(written, NAMES, ATTRIBUTES, st.lists(WORDS.map(escape), max_size=1))
TREES = st.builds(
    written,
    NAMES,
    ATTRIBUTES,
    st.lists(st.builds(written, NAMES, ATTRIBUTES, st.lists(LEAVES, max_size=2)), max_size=2),
)
DOCUMENTS = TREES.map(lambda text: f"<Response>{text}</Response>".encode())


@given(st.one_of(st.binary(max_size=200), DOCUMENTS))
def test_whatever_comes_is_read_or_refused_and_nothing_else(document: bytes) -> None:
    try:
        verbs = read_twiml(document, HERE)
    except RemoteProtocolError:
        return
    for verb in verbs:
        if isinstance(verb, ConnectStream):
            assert verb.url.startswith(("ws://", "wss://"))
            assert verb.url.isprintable()
        if isinstance(verb, Gather):
            assert verb.action.startswith(("http://", "https://"))
        if isinstance(verb, Redirect | Play):
            assert verb.url.startswith(("http://", "https://"))
