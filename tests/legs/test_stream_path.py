"""The stream's URL, the community module's texts, the token."""

import base64
import hashlib
import json
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.switch_peer import recorded_events

from dueto.errors import LocalProtocolError, Refused
from dueto.wire.esl import Decoder, Event
from dueto.wire.media import StreamPath, StreamRequest, WrittenFile
from dueto.wire.media.audio_stream import play_file, stream_audio
from dueto.wire.media.request import MAX_FIELDS, MAX_URL_BYTES
from dueto.wire.media.token import media_token, token_is_valid

PATH = StreamPath("/stream/{secretary}/{uuid}/{caller}")
BASE = "ws://127.0.0.1:8085"
PLAIN = string.ascii_letters + string.digits
requests = st.builds(
    StreamRequest,
    unique_id=st.text(PLAIN + "._:@-", min_size=1, max_size=128),
    secretary=st.text(PLAIN + "._~-", min_size=1, max_size=64),
    caller=st.text(PLAIN + "._+*#@: -", max_size=64),
    rate_hz=st.sampled_from((8000, 16000, 24000, 32000, 48000)),
    mix=st.sampled_from(("mono", "mixed", "stereo")),
    token=st.text(st.characters(codec="utf-8"), max_size=60),
)


def parse(target: str | bytes, path: StreamPath = PATH) -> StreamRequest:
    return path.parse(target, default_rate_hz=16000)


def read(target: str | bytes) -> StreamRequest | Refused:
    try:
        return parse(target)
    except Refused as refused:
        return refused


def refusal(target: str | bytes, path: StreamPath = PATH) -> tuple[str, int]:
    with pytest.raises(Refused) as raised:
        parse(target, path)
    return raised.value.reason, raised.value.status


# -- the URL


@given(requests)
def test_what_is_built_parses_to_the_same(request: StreamRequest) -> None:
    url = PATH.build(BASE, request)
    assert url.startswith(BASE + "/stream/")
    assert url.isascii()
    assert not set(url) & set(" \r\n\t\"'\\")  # it stands as one word in `uuid_audio_stream ... start URL`
    assert parse(url.removeprefix(BASE)) == request
    assert parse(url.removeprefix(BASE).encode()) == request


@given(st.text() | st.binary())
@example("/stream/a/b/c?rate=²")
@example("/stream/a/b/c?rate=%C2%B2")
@example("/stream/a/b/c?" + "&".join("a=b" for _ in range(20)))
@example("/stream/a/%ff%fe/c")
@example("/stream/a/b%0a/c")
@example("/stream/a/%00/c")
@example("/stream//b/")
@example("/stream/a/b/c?token=%ff&token=2")
@example(b"/stream/a/\xff/c")
def test_any_target_is_read_or_refused(target: str | bytes) -> None:
    request = read(target)
    if isinstance(request, Refused):
        assert request.status in (400, 404, 414)
        assert request.reason in ("bad_request", "unknown_path")
    else:
        assert set(request.unique_id) <= set(PLAIN + "._:@-")
        assert request.rate_hz in (8000, 16000, 24000, 32000, 48000)


@given(st.text(max_size=80), st.text(max_size=200), st.text(max_size=80), st.text(max_size=20), st.text(max_size=20))
def test_any_parts_are_read_or_refused(secretary: str, uuid: str, caller: str, rate: str, mix: str) -> None:
    request = read(f"/stream/{secretary}/{uuid}/{caller}?rate={rate}&mix={mix}")
    if isinstance(request, Refused):
        assert request.status in (400, 404, 414)
    else:
        assert 1 <= len(request.unique_id) <= 128
        assert len(request.secretary) <= 64
        assert len(request.caller) <= 64
        assert request.mix in ("mono", "mixed", "stereo")


def test_what_a_dialplan_prints_is_read() -> None:
    uuid = "779bea1c-6dce-45dd-be52-dc01733920a2"
    request = parse(f"/stream/office/{uuid}/+491511234567?rate=8000&mix=stereo&token=0123456789abcdef")
    assert request == StreamRequest(uuid, "office", "+491511234567", 8000, "stereo", "0123456789abcdef")
    assert request.channels == 2


def test_what_the_query_does_not_say_is_default() -> None:
    request = parse("/stream/office/u/")
    assert request == StreamRequest("u", "office", "", 16000, "mono", "")
    assert request.channels == parse("/stream/office/u/?mix=mixed").channels == 1


@pytest.mark.parametrize(
    "query", ["rate=", "rate=0", "rate=11025", "rate=16k", "rate=+8000", "rate=008000", "rate=-8000", "rate=64000"]
)
def test_a_rate_that_is_none_is_refused(query: str) -> None:
    assert refusal(f"/stream/a/b/c?{query}") == ("bad_request", 400)


@pytest.mark.parametrize(
    "target",
    ["", "/", "/stream", "/stream/a/b", "/stream/a/b/c/", "/Stream/a/b/c", "//stream/a/b/c", "http://h/stream/a/b/c"],
)
def test_another_path_is_unknown(target: str) -> None:
    assert refusal(target) == ("unknown_path", 404)


@pytest.mark.parametrize(
    "target",
    [
        "/stream//b/c",
        "/stream/a//c",
        f"/stream/{'a' * 65}/b/c",
        f"/stream/a/{'b' * 129}/c",
        f"/stream/a/b/{'c' * 65}",
        "/stream/a/b%2Fb/c",
        "/stream/a/b%20b/c",
        "/stream/a/b%0D%0A/c",
        "/stream/a/b/c%0A",
        "/stream/a/b%/c%zz",
        "/stream/ä/b/c",
        "/stream/a/b'/c",
    ],
)
def test_a_part_too_long_or_of_odd_characters_is_refused(target: str) -> None:
    assert refusal(target) == ("bad_request", 400)


def test_a_target_longer_than_the_module_takes_is_refused() -> None:
    head = "/stream/a/b/c?token="
    assert parse(head + "t" * (MAX_URL_BYTES - len(head))).token
    assert refusal(head + "t" * (MAX_URL_BYTES + 1 - len(head))) == ("bad_request", 414)


def test_a_query_of_more_fields_than_anybody_needs_is_refused() -> None:
    more = "&".join(f"f{number}=" for number in range(MAX_FIELDS - 1))
    assert parse(f"/stream/a/b/c?{more}&token=t").token == "t"
    assert refusal(f"/stream/a/b/c?{more}&token=t&g=") == ("bad_request", 400)


def test_of_a_field_given_twice_the_first_counts() -> None:
    request = parse("/stream/a/b/c?token=right&token=wrong&rate=8000&rate=nonsense")
    assert (request.token, request.rate_hz) == ("right", 8000)


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(Refused) as raised:
        parse("/stream/a/<script>/c?token=secret")
    assert "script" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_token_does_not_show_in_a_log() -> None:
    assert "hunter2" not in repr(parse("/stream/a/b/c?token=hunter2"))


@pytest.mark.parametrize(
    ("template", "target", "caller"),
    [("/{uuid}", "/b", ""), ("/v1.0/{caller}/x-{uuid}/end", "/v1.0/7/x-b/end", "7"), ("/{uuid}/{caller}", "/b/", "")],
)
def test_other_templates_work_too(template: str, target: str, caller: str) -> None:
    request = parse(target, StreamPath(template))
    assert (request.unique_id, request.secretary, request.caller) == ("b", "", caller)
    assert StreamPath(template).build(BASE, request).startswith(BASE + target + "?")


@pytest.mark.parametrize(
    "template",
    [
        "",
        "/stream",
        "/{caller}",
        "/{uuid}/{uuid}",
        "/{uuid}/{name}",
        "{uuid}",
        "{uuid}/stream",
        "stream/{uuid}",
        "/{uuid}{caller}",
        "/{uuid}-{caller}",
        "/{uuid}/{",
        "/{uuid}/}",
        "/{{uuid}}",
        "/{uuid!r}",
        "/{uuid}?x=y",
        "/{uuid}/a b",
        "/{uuid}\n",
        "/%41/{uuid}",
    ],
)
def test_a_template_that_can_be_misread_is_refused(template: str) -> None:
    with pytest.raises(LocalProtocolError):
        StreamPath(template)


@given(st.text())
@example("1" * 65)
def test_whatever_a_caller_calls_himself_the_call_gets_its_stream(caller: str) -> None:
    request = StreamRequest("u", "s", caller, 8000, "mono", "t")
    read = parse(PATH.build(BASE, request).removeprefix(BASE))
    assert (read.unique_id, read.secretary, read.token) == ("u", "s", "t")
    assert len(read.caller) == min(len(caller), 64)


@pytest.mark.parametrize("unique_id", ["", "a/b", "a b", "a\nb", "x" * 129, "ü"])
def test_a_channel_that_no_path_can_name_is_refused(unique_id: str) -> None:
    with pytest.raises(LocalProtocolError, match="uuid"):
        PATH.build(BASE, StreamRequest(unique_id, "s", "c", 8000, "mono", "t"))


def test_no_secretary_is_called_default() -> None:
    url = PATH.build(BASE + "/", StreamRequest("u", "", "c", 8000, "mono", "a b&c"))
    assert url == BASE + "/stream/default/u/c?rate=8000&mix=mono&token=a%20b%26c"


def test_a_url_longer_than_the_module_takes_is_refused() -> None:
    def build(token: str) -> str:
        return PATH.build(BASE, StreamRequest("u", "s", "c", 8000, "mono", token))

    longest = "t" * (MAX_URL_BYTES - len(build("")))
    assert len(build(longest)) == MAX_URL_BYTES
    with pytest.raises(LocalProtocolError, match="4096"):
        build(longest + "t")


# -- the community module's texts


@given(st.binary(max_size=2000), st.sampled_from((8000, 16000, 48000)), st.text(PLAIN + "-_.", max_size=40))
def test_audio_goes_down_as_the_module_reads_it(pcm: bytes, rate_hz: int, piece_id: str) -> None:
    message = json.loads(stream_audio(pcm, rate_hz, piece_id))
    data = message["data"]
    assert message["type"] == "streamAudio"
    assert base64.b64decode(data["audioData"], validate=True) == pcm
    assert (data["audioDataType"], data["sampleRate"], data["id"]) == ("raw", rate_hz, piece_id)


def test_a_recorded_play_event_names_its_file() -> None:
    blocks = recorded_events("10a-audio-stream-events-myevents", "mod_audio_stream::play")
    assert blocks
    for block in blocks:
        (event,) = Decoder().feed(block)
        assert isinstance(event, Event)
        play = play_file(event.body)
        assert play is not None
        assert json.loads(event.body)["file"] == play.file
        assert play.file.startswith("/var/lib/fs/tmp/")
        assert play_file(event.body_bytes) == play


@pytest.mark.parametrize(
    "body",
    [
        "",
        "x",
        "{}",
        "[]",
        "null",
        '{"id":"a"}',
        '{"file":1}',
        '{"file":""}',
        '{"file":"a"',
        '{"file":"a","id":{}}',
        "\ud800",
    ],
)
def test_a_body_that_names_no_file_is_none(body: str) -> None:
    assert play_file(body) is None


@given(st.binary() | st.text())
def test_any_body_is_read_or_none(body: bytes | str) -> None:
    assert play_file(body) is None or isinstance(play_file(body), WrittenFile)


def test_an_event_of_somebody_elses_audio_has_no_id() -> None:
    assert play_file('{"audioDataType":"wav","file":"/tmp/x.wav","more":[1]}') == WrittenFile("", "/tmp/x.wav")


# -- the token


def test_the_token_is_what_the_switch_computes() -> None:
    switch_says = hashlib.md5(b"s3cret:779bea1c:s3cret").hexdigest()  # ${md5(s3cret:${uuid}:s3cret)}
    assert media_token("s3cret", "779bea1c") == switch_says
    assert token_is_valid("s3cret", "779bea1c", switch_says)
    odd = "s\udce4cret"  # as the environment hands on bytes that are no UTF-8
    assert media_token(odd, "779bea1c") == hashlib.md5(b"s\xe4cret:779bea1c:s\xe4cret").hexdigest()


@pytest.mark.parametrize("token", ["", "x", "0" * 32, "ü", "\ud800"])
def test_another_token_is_not_valid(token: str) -> None:
    assert not token_is_valid("s3cret", "779bea1c", token)


def test_a_token_is_one_channels_and_one_secrets() -> None:
    token = media_token("s3cret", "a")
    assert not token_is_valid("s3cret", "b", token)
    assert not token_is_valid("other", "a", token)
    assert not token_is_valid("s3cret", "a", token.upper())


def test_without_a_secret_no_token_is_valid() -> None:
    assert not token_is_valid("", "a", media_token("", "a"))
