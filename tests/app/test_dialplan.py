"""What `dueto dialplan` prints must be read by a switch and let in by the gateway."""

import hashlib
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from dueto.app.dialplan import dialplan_guide, dialplan_xml, fusionpbx_rows, vars_xml_line
from dueto.app.sections import MediaSettings
from dueto.app.settings import Settings
from dueto.errors import SettingsError
from dueto.wire.media.request import StreamPath
from dueto.wire.media.token import media_token, token_is_valid

SECRET = "0123456789abcdef0123456789abcdef"
UUID = "779bea1c-6dce-45dd-be52-dc01733920a2"


def settings(**sections: Any) -> Settings:
    media = {"secret": SECRET, **sections.pop("media", {})}
    return Settings(media=MediaSettings(**media), **sections)


def expand(text: str, *, preprocessed: bool) -> str:
    """Fill in variables and api calls as the switch does: `$${}` when XML is loaded, then `${}` from the inside out."""
    if preprocessed:
        text = text.replace("$${dueto_secret}", SECRET)
    assert "$${" not in text
    variables = {"uuid": UUID, "caller_id_number": "1001"}
    calls: dict[str, Callable[[str], str]] = {
        "md5": lambda argument: hashlib.md5(argument.encode()).hexdigest(),
        "global_getvar": {"dueto_secret": SECRET}.__getitem__,
    }
    while found := re.search(r"\$\{(\w+)(?:\(([^${}]*)\))?\}", text):
        value = variables[found[1]] if found[2] is None else calls[found[1]](found[2])
        text = text[: found.start()] + value + text[found.end() :]
    return text


def actions(xml: str) -> list[tuple[str, str, str]]:
    root = ElementTree.fromstring(xml)
    return [
        (line.tag, line.get("application", ""), line.get("data", ""))
        for condition in root.iter("condition")
        for line in condition
    ]


def fusionpbx_actions(text: str) -> list[tuple[str, str, str]]:
    lines = []
    for row in text.splitlines():
        cells = re.split(r" {2,}", row)
        if cells[0] in ("action", "anti-action"):
            data = cells[2] if len(cells) > 4 else ""
            lines.append((cells[0], cells[1], data))
    return lines


def stream_start(lines: list[tuple[str, str, str]]) -> str:
    (data,) = [data for _, application, data in lines if application == "set" and data.startswith("api_on_answer=")]
    return data


@pytest.mark.parametrize("media_only", [False, True])
@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
@pytest.mark.parametrize("form", ["xml", "fusionpbx"])
def test_the_gateway_lets_in_the_stream_that_the_printed_dialplan_starts(
    media_only: bool, rate_hz: int, form: str
) -> None:
    configuration = settings(media={"rate_hz": rate_hz})
    if form == "xml":
        lines = actions(dialplan_xml(configuration, media_only=media_only, secretary="front-desk"))
    else:
        lines = fusionpbx_actions(fusionpbx_rows(configuration, media_only=media_only, secretary="front-desk"))
    command = expand(stream_start(lines), preprocessed=form == "xml").removeprefix("api_on_answer=")
    api, unique_id, verb, url, mix, rate = command.split(" ")
    assert (api, unique_id, verb, mix) == ("uuid_audio_stream", UUID, "start", "mono")
    assert rate == {8000: "8k", 16000: "16k", 24000: "24000"}[rate_hz]
    assert url.startswith("ws://127.0.0.1:8085/")
    target = url.removeprefix("ws://127.0.0.1:8085")
    request = StreamPath(configuration.media.path).parse(target, default_rate_hz=16000)
    assert (request.unique_id, request.secretary, request.caller) == (UUID, "front-desk", "1001")
    assert (request.rate_hz, request.mix) == (rate_hz, "mono")
    assert token_is_valid(SECRET, UUID, request.token)
    assert not token_is_valid(SECRET, UUID.replace("7", "8"), request.token)
    assert not token_is_valid(SECRET + "x", UUID, request.token)


def test_the_xml_escapes_what_xml_must() -> None:
    text = dialplan_xml(settings(), media_only=False)
    assert "&amp;mix=mono&amp;token=" in text
    assert "&mix" not in text


def test_a_call_without_a_gateway_is_stopped_marked_and_then_spoken_to_or_routed() -> None:
    configuration = settings(destinations={"operator": {"dial": "{a='b c'}user/1001"}})
    lines = actions(dialplan_xml(configuration, media_only=False))
    applications = [application for _, application, _ in lines]
    after = lines[applications.index("socket") + 1 :]
    assert lines[applications.index("socket")][2] == "127.0.0.1:8022 async full"
    assert after[0] == ("action", "set", "dueto_state=fallback")
    assert after[1][2].endswith("${uuid_audio_stream(${uuid} stop)}")
    assert ("action", "bridge", "{a='b c'}user/1001") in after
    assert after[-2][1:] == ("playback", "tone_stream://%(500,500,480,620);loops=6")
    assert after[-1][1] == "hangup"
    assert applications.index("answer") > 0, "the stream is set up before the answer starts it"


@pytest.mark.parametrize("media_only", [False, True])
@pytest.mark.parametrize("start", ["dialplan", "gateway"])
def test_nothing_ever_parks_and_every_branch_ends(media_only: bool, start: str) -> None:
    lines = actions(dialplan_xml(settings(media={"start": start}), media_only=media_only))
    assert "park" not in {application for _, application, _ in lines}
    assert lines[-1][1] == "hangup"
    assert [a for _, a, _ in lines].count("playback") == 2, "silence is no answer"


def test_a_gateway_that_starts_the_stream_itself_leaves_it_out_of_the_dialplan() -> None:
    configuration = settings(media={"start": "gateway", "secret": ""})
    assert "uuid_audio_stream ${uuid} start" not in dialplan_xml(configuration, media_only=False)
    assert "dueto_secret" not in dialplan_guide(configuration, media_only=False)
    assert "uuid_audio_stream ${uuid} start" in dialplan_xml(configuration, media_only=True)


def test_media_only_asks_for_the_stream_only_in_its_own_extension() -> None:
    root = ElementTree.fromstring(dialplan_xml(settings(), media_only=True))
    first, talking = root.findall("extension")
    assert [c.get("field") for c in first.findall("condition")] == ["destination_number"]
    guard, asks = talking.findall("condition")
    assert (guard.get("field"), guard.get("expression")) == ("destination_number", "^dueto_talking$")
    assert len(guard) == 0
    assert asks.get("field") == "${uuid_audio_stream(${uuid} resume)}"
    assert re.match(str(asks.get("expression")), "+OK Success\n")
    assert not re.match(str(asks.get("expression")), "-ERR Operation Failed\n")
    assert "socket" not in {application for _, application, _ in actions(ElementTree.tostring(root).decode())}
    transfers = [line.get("data") for line in root.iter("action") if line.get("application") == "transfer"]
    assert transfers == ["dueto_talking", "dueto_talking"]


def test_a_build_that_plays_is_told_so() -> None:
    binary = dialplan_xml(settings(media={"dialect": "audio_stream-binary", "rate_hz": 8000}), media_only=False)
    assert "STREAM_PLAYBACK=true" in binary
    assert "STREAM_SAMPLE_RATE=8000" in binary
    assert "STREAM_PLAYBACK" not in dialplan_xml(settings(media={"dialect": "audio_stream"}), media_only=False)


@pytest.mark.parametrize(
    ("dialect", "command", "ends", "variables"),
    [
        ("auto", "uuid_audio_stream", " mono 16k", ["STREAM_PLAYBACK=true"]),
        ("audio_stream", "uuid_audio_stream", " mono 16k", []),
        ("audio_stream-base64", "uuid_audio_stream", " mono 16k", ["STREAM_PLAYBACK=true"]),
        (
            "audio_stream-binary",
            "uuid_audio_stream",
            " mono 16k",
            ["STREAM_PLAYBACK=true", "STREAM_SAMPLE_RATE=16000"],
        ),
        ("audio_fork", "uuid_audio_fork", " mono 16k", []),
        ("audio_fork-binary", "uuid_audio_fork", " mono 16k audio_fork {} true true 16000", []),
    ],
)
def test_each_module_is_started_and_stopped_in_its_own_words(
    dialect: str, command: str, ends: str, variables: list[str]
) -> None:
    for media_only in (False, True):
        xml = dialplan_xml(settings(media={"dialect": dialect}), media_only=media_only)
        data = [data for _, _, data in actions(xml)]
        (start,) = (line for line in data if line.startswith("api_on_answer="))
        assert start.startswith(f"api_on_answer={command} ${{uuid}} start ws://")
        assert start.endswith(ends)
        assert [line for line in data if line.startswith("STREAM_")] == variables
        assert f"dueto_stopped=${{{command}(${{uuid}} stop)}}" in data
        assert ("uuid_audio_stream" in xml) == (command == "uuid_audio_stream")
    module = command.replace("uuid", "mod")
    assert f'subclass="{module}::disconnect"' in dialplan_guide(settings(media={"dialect": dialect}), media_only=True)


def test_without_tokens_none_is_printed() -> None:
    text = dialplan_guide(settings(media={"token": "off"}), media_only=False)
    assert "token" not in text
    assert "dueto_secret" not in text


def test_the_secret_is_printed_only_when_asked_for() -> None:
    for media_only in (False, True):
        assert SECRET not in dialplan_guide(settings(), media_only=media_only)
        assert SECRET in dialplan_guide(settings(), media_only=media_only, show_secret=True)
    line = ElementTree.fromstring(vars_xml_line(settings(), show_secret=True))
    assert (line.get("cmd"), line.get("data")) == ("set", f"dueto_secret={SECRET}")


def test_a_wildcard_is_never_given_to_the_switch() -> None:
    wild = {"listen": "0.0.0.0:8022"}
    with pytest.raises(SettingsError, match="public_address"):
        dialplan_xml(settings(control=wild), media_only=False)
    with pytest.raises(SettingsError, match="public_url"):
        dialplan_xml(settings(media={"listen": "[::]:8085"}), media_only=False)
    with pytest.raises(SettingsError, match="IPv6"):
        dialplan_xml(settings(media={"listen": "[::1]:8085"}), media_only=False)
    text = dialplan_xml(
        settings(
            control=wild | {"public_address": "192.0.2.1|192.0.2.2:9022"},
            media={"listen": "0.0.0.0:8085", "public_url": "wss://gateway.example"},
        ),
        media_only=False,
    )
    assert 'data="192.0.2.1:8022|192.0.2.2:9022 async full"' in text
    assert "start wss://gateway.example/stream/default/${uuid}" in text


def test_a_stock_switch_gets_an_answer_and_the_socket_and_no_stream() -> None:
    given = settings(media={"dialect": "unicast"}, destinations={"operator": {"dial": "user/1001"}})
    assert dialplan_guide(given, media_only=False).startswith("# 1. FreeSWITCH")
    lines = [(application, data) for _, application, data in actions(dialplan_xml(given, media_only=False))]
    assert lines[:3] == [("unset", "send_silence_when_idle"), ("answer", ""), ("socket", "127.0.0.1:8022 async full")]
    assert ("set", "dueto_state=fallback") in lines
    assert ("bridge", "user/1001") in lines
    assert "uuid_audio_stream" not in dialplan_guide(given, media_only=False)
    assert "secret" not in dialplan_guide(given, media_only=False)
    named = actions(dialplan_xml(given, media_only=False, secretary="sales"))
    assert ("action", "set", "dueto_secretary=sales") in named


def test_a_stock_switch_has_no_calls_without_a_control_leg() -> None:
    with pytest.raises(SettingsError, match="control leg"):
        dialplan_xml(settings(media={"dialect": "unicast"}), media_only=True)


@pytest.mark.parametrize("number", ["", "5000$|.*", "50 00", "<5000>"])
def test_a_number_that_would_match_something_else_is_refused(number: str) -> None:
    with pytest.raises(SettingsError, match="number"):
        dialplan_xml(settings(), media_only=False, number=number)


def test_a_number_is_matched_literally() -> None:
    root = ElementTree.fromstring(dialplan_xml(settings(), media_only=False, number="+49*1"))
    expression = next(root.iter("condition")).get("expression", "")
    assert re.search(expression, "+49*1")
    assert not re.search(expression, "4999991")


def test_fusionpbx_gets_the_same_actions_in_the_same_order() -> None:
    configuration = settings(destinations={"operator": {"dial": "user/1001"}})
    for media_only in (False, True):
        xml = actions(dialplan_xml(configuration, media_only=media_only))
        rows = fusionpbx_actions(fusionpbx_rows(configuration, media_only=media_only))
        in_words = [
            (tag, app, data.replace("$${dueto_secret}", "${global_getvar(dueto_secret)}")) for tag, app, data in xml
        ]
        assert rows == in_words
    table = fusionpbx_rows(configuration, media_only=False).splitlines()
    assert table[2].split() == ["Tag", "Type", "Data", "Break", "Inline", "Group", "Order"]
    orders = [int(row.split()[-1]) for row in table if row.startswith(("condition", "action"))]
    assert orders == sorted(set(orders))


def test_the_token_is_what_the_switch_makes_of_its_expression() -> None:
    assert media_token("s", "u") == hashlib.md5(b"s:u:s").hexdigest()
    assert not token_is_valid("", "u", media_token("", "u")), "no secret, no token"
    assert not token_is_valid("s", "u", "")
    assert not token_is_valid("s", "u", "\udcff\u00e9")
    assert not token_is_valid("s", "u", media_token("s", "u").upper())
