"""Commands: the bytes that are written, what is refused, and what the switch's end makes of them."""

from collections.abc import Callable

import pytest
from hypothesis import example, given, seed
from hypothesis import strategies as st
from tests.wire.recordings import pieces, streams

from dueto.errors import LocalProtocolError, RemoteProtocolError
from dueto.wire.esl import (
    Api,
    Auth,
    BgApi,
    Command,
    Connect,
    Execute,
    Exit,
    Linger,
    MyEvents,
    Raw,
    SendMsg,
    Subscribe,
    Unicast,
    checked,
)
from dueto.wire.esl.switch_end import CommandBlock, CommandDecoder

WRITTEN: list[tuple[Command, bytes]] = [
    (Connect(), b"connect\n\n"),
    (Linger(10), b"linger 10\n\n"),
    (MyEvents(), b"myevents\n\n"),
    (MyEvents("json"), b"myevents json\n\n"),
    (MyEvents(unique_id="A"), b"myevents A\n\n"),
    (Subscribe(("CHANNEL_HOLD", "DTMF")), b"event plain CHANNEL_HOLD DTMF\n\n"),
    (
        Subscribe(("CHANNEL_HOLD",), ("mod_audio_stream::play", "x::y"), "json"),
        b"event json CHANNEL_HOLD CUSTOM mod_audio_stream::play x::y\n\n",
    ),
    (Api("status"), b"api status\n\n"),
    (Api("uuid_kill", "A USER_BUSY"), b"api uuid_kill A USER_BUSY\n\n"),
    (BgApi("originate", "user/1 &park"), b"bgapi originate user/1 &park\n\n"),
    (BgApi("status", job_uuid="J"), b"bgapi status\nJob-UUID: J\n\n"),
    (Exit(), b"exit\n\n"),
    (Auth("ClueCon"), b"auth ClueCon\n\n"),
    (Auth("secret", "1@example.org"), b"userauth 1@example.org:secret\n\n"),
    (Raw("getvar x"), b"getvar x\n\n"),
    (
        Execute("playback", "/a b.wav", "E"),
        b"sendmsg\ncall-command: execute\nexecute-app-name: playback\nexecute-app-arg: /a b.wav\n"
        b"Event-UUID: E\nevent-lock: true\n\n",
    ),
    (
        Execute("park", event_lock=False, loops=-1),
        b"sendmsg\ncall-command: execute\nexecute-app-name: park\nloops: -1\n\n",
    ),
    (
        SendMsg("hangup", {"hangup-cause": "USER_BUSY"}),
        b"sendmsg\ncall-command: hangup\nhangup-cause: USER_BUSY\n\n",
    ),
    (
        Unicast("192.0.2.20", 12000, "192.0.2.10", 12001),
        b"sendmsg\ncall-command: unicast\nlocal-ip: 192.0.2.20\nlocal-port: 12000\n"
        b"remote-ip: 192.0.2.10\nremote-port: 12001\ntransport: udp\n\n",
    ),
    (SendMsg("hangup", unique_id="B"), b"sendmsg B\ncall-command: hangup\n\n"),
]


@pytest.mark.parametrize(("command", "data"), WRITTEN)
def test_a_command_is_written_in_one_block(command: Command, data: bytes) -> None:
    assert command.encode() == data
    (block,) = CommandDecoder().feed(data)
    assert data.startswith(block.line.encode())


@pytest.mark.parametrize(
    "command",
    [
        Unicast("::1", 1, "127.0.0.1", 1),
        Unicast("127.0.0.1", 1, "localhost", 1),
        Unicast("127.0.0.1\nflags: native", 1, "127.0.0.1", 1),
        Unicast("127.0.0.1", 0, "127.0.0.1", 1),
        Unicast("127.0.0.1", 1, "127.0.0.1", 65536),
    ],
)
def test_a_unicast_is_between_ipv4_addresses_and_real_ports(command: Unicast) -> None:
    with pytest.raises(LocalProtocolError):
        command.encode()


def test_the_recorded_gateways_unicast_is_ours() -> None:
    written = streams("20-unicast", "gw>fs")[1]
    at = written.index(b"sendmsg\ncall-command: unicast")
    assert Unicast("127.0.0.1", 45964, "127.0.0.1", 45963).encode() == written[at : written.index(b"\n\n", at) + 2]


MAKERS: dict[str, Callable[[str], Command]] = {
    "myevents id": lambda text: MyEvents(unique_id=text),
    "myevents format": lambda text: MyEvents(text),
    "event name": lambda text: Subscribe(("DTMF", text)),
    "event subclass": lambda text: Subscribe((), (text,)),
    "event format": lambda text: Subscribe(("DTMF",), format=text),
    "api command": Api,
    "api argument": lambda text: Api("uuid_kill", text),
    "bgapi command": BgApi,
    "bgapi argument": lambda text: BgApi("originate", text),
    "job": lambda text: BgApi("status", job_uuid=text),
    "application": Execute,
    "argument": lambda text: Execute("playback", text),
    "event uuid": lambda text: Execute("playback", event_uuid=text),
    "call-command": SendMsg,
    "header name": lambda text: SendMsg("hangup", {text: "x"}),
    "header value": lambda text: SendMsg("hangup", {"hangup-cause": text}),
    "other channel": lambda text: SendMsg("hangup", unique_id=text),
    "password": Auth,
    "password beside a user": lambda text: Auth(text, "user"),
    "user": lambda text: Auth("secret", text),
    "raw": Raw,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize("bad", ["\n", "\r", "\0", "\r\n", "\ud800"])
def test_no_value_can_end_its_line(make: Callable[[str], Command], bad: str) -> None:
    for text in (bad, "a" + bad, bad + "a", f"a{bad}{bad}api system rm"):
        with pytest.raises(LocalProtocolError) as caught:
            make(text).encode()
        assert "system" not in str(caught.value)


@pytest.mark.parametrize("what", ["myevents id", "event name", "event subclass", "other channel", "header name"])
def test_what_is_one_word_stays_one(what: str) -> None:
    with pytest.raises(LocalProtocolError):
        MAKERS[what]("one two").encode()


@seed(8022)
@given(st.sampled_from(sorted(MAKERS)), st.text(st.characters(), max_size=30))
@example("argument", "x\n\napi system rm")
def test_every_command_is_refused_or_read_as_one(what: str, text: str) -> None:
    try:
        data = MAKERS[what](text).encode()
    except LocalProtocolError:
        return
    commands = CommandDecoder().feed(data + b"exit\n\n")
    assert commands[-1] == CommandBlock("exit")
    assert len(commands) <= 2  # `Raw("")` is no command at all


def test_a_secret_is_not_shown() -> None:
    assert "hunter2" not in repr(Auth("hunter2", "user"))
    with pytest.raises(LocalProtocolError) as caught:
        Auth("hunter2\n").encode()
    assert "hunter2" not in str(caught.value)


def test_a_linger_without_end_is_not_written() -> None:
    with pytest.raises(LocalProtocolError):
        Linger(-1).encode()


def test_a_sendmsg_cannot_swallow_the_commands_after_it() -> None:
    with pytest.raises(LocalProtocolError):
        SendMsg("execute", {"Content-Length": "9"}).encode()


def test_checked_gives_back_what_can_be_written() -> None:
    assert checked("Zoë x=1", "value") == "Zoë x=1"
    with pytest.raises(LocalProtocolError, match="value holds '=' at 5"):
        checked("Zoë x=1", "value", forbidden="=")


# -- the switch's end

LINES = st.text("abcXYZ019-_ ./", min_size=1, max_size=20).map(lambda text: "x" + text.strip())
FIELDS = st.dictionaries(st.text("abcxyz-", min_size=1, max_size=10).filter("content-length".__ne__), LINES, max_size=4)
COMMANDS = st.lists(st.tuples(LINES, FIELDS, st.binary(max_size=50)), max_size=6)


@seed(8022)
@given(COMMANDS, st.sampled_from(["\n", "\r\n"]), st.data())
def test_commands_are_read_as_they_were_written_in_any_pieces(
    commands: list[tuple[str, dict[str, str], bytes]], end: str, data: st.DataObject
) -> None:
    stream = b""
    for line, fields, body in commands:
        lines = [line, *(f"{name.upper()}: {value}" for name, value in fields.items())]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        stream += (end * data.draw(st.integers(0, 2)) + end.join(lines) + end + end).encode() + body
    decoder = CommandDecoder()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10))
    blocks = [block for piece in pieces(stream, cuts) for block in decoder.feed(piece)]
    assert [(block.line, block.body) for block in blocks] == [(line, body) for line, _, body in commands]
    for block, (_, fields, body) in zip(blocks, commands, strict=True):
        assert block.headers == fields | ({"content-length": str(len(body))} if body else {})


@pytest.mark.parametrize("length", ["0", "-5", "x", "", "²", "1_0", "+3"])
def test_a_command_whose_length_is_no_number_has_no_body(length: str) -> None:
    blocks = CommandDecoder().feed(f"sendmsg\ncontent-length: {length}\n\nexit\n\n".encode())
    assert [block.word for block in blocks] == ["sendmsg", "exit"]


@pytest.mark.parametrize("length", [str((10 << 20) + 1), "9" * 5000])
def test_a_command_body_of_more_than_ten_mebibytes_is_refused(length: str) -> None:
    with pytest.raises(RemoteProtocolError):
        CommandDecoder().feed(f"sendmsg\ncontent-length: {length}\n\n".encode())


def test_a_command_line_of_more_than_ten_mebibytes_is_refused() -> None:
    decoder = CommandDecoder()
    piece = b"x" * (1 << 20)
    for _ in range(10):
        assert decoder.feed(piece) == []
    with pytest.raises(RemoteProtocolError):
        decoder.feed(b"x")


def test_the_words_of_a_command_are_told_apart() -> None:
    (block,) = CommandDecoder().feed(b"  SendMsg  A \nCall-Command : execute\nno colon\ncall-command: second\n\n")
    assert (block.word, block.rest) == ("sendmsg", "A")
    assert block.headers == {"call-command": "execute"}


def test_our_opening_is_what_a_recorded_gateway_said() -> None:
    said = CommandDecoder().feed(streams("01-normal-linger", "gw>fs")[1])
    ours = CommandDecoder().feed(b"".join(c.encode() for c in (Connect(), Linger(5), MyEvents())))
    assert said[: len(ours)] == ours
