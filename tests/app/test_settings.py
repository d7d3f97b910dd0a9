"""What can be configured, where it comes from, and what is said when it is wrong."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from dueto.agents import loading
from dueto.agents.profiles import Profile, VoiceProfile
from dueto.app.sections import AgentSettings, DestinationSettings, MediaSettings, RouteSettings, TenantSettings
from dueto.app.settings import Settings, check_for_serving, load_settings
from dueto.call.ports import Destination
from dueto.errors import SettingsError

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from dueto.app.environment import NO_LONGER_MEANT, OLDER_NAMES

    ours = {name for name in os.environ if name.upper().startswith("DUETO_")}
    for name in {*OLDER_NAMES, *NO_LONGER_MEANT, *ours}:
        monkeypatch.delenv(name, raising=False)


def load(
    tmp_path: Path, toml: str = "", overrides: dict[str, Any] | None = None, environ: dict[str, str] | None = None
) -> Settings:
    path = tmp_path / "dueto.toml"
    path.write_text(toml, encoding="utf-8")
    return load_settings(path, overrides or {}, environ or {})


def complaint(tmp_path: Path, toml: str = "", **others: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, toml, **others)
    return str(caught.value)


def test_the_defaults_are_those_that_were_promised() -> None:
    assert Settings().model_dump(mode="json") == {
        "control": {
            "listen": "127.0.0.1:8022",
            "public_address": "",
            "engine": "native",
            "linger_s": 10,
            "allow": ["127.0.0.0/8", "::1/128"],
            "max_calls": 1000,
            "event_loop_interval_s": 0.1,
        },
        "media": {
            "listen": "127.0.0.1:8085",
            "public_url": "",
            "dialect": "auto",
            "start": "dialplan",
            "token": "required",
            "secret": "",
            "path": "/stream/{secretary}/{uuid}/{caller}",
            "rate_hz": 16000,
            "max_lag_ms": 400,
            "unicast_switch_address": "127.0.0.1",
            "unicast_bind_address": "127.0.0.1",
            "unicast_announce_address": "",
            "unicast_ports": "10000-15999",
            "unicast_idle": "silence",
        },
        "correlation": {
            "warn_after_s": 5.0,
            "give_up_after_s": 30.0,
            "on_missing_media": "return_to_dialplan",
            "while_waiting": "silence",
            "control": "expected",
        },
        "call": {"hangup_grace_ms": 250, "drain_s": 60.0},
        "agent": {
            "use": "receptionist",
            "closing_s": 5.0,
            "when_done": "hangup",
            "when_failed": "return_to_dialplan",
            "when_full": "return_to_dialplan",
        },
        "agents": {},
        "route": [],
        "tenants": {},
        "destinations": {},
        "dtmf": {},
        "switch": {"address": "", "password": "", "user": ""},
        "records": {"messages": "", "timelines": ""},
        "twilio": {
            "account_sid": "AC00000000000000000000000000000000",
            "auth_token": "",
            "api_keys": {},
            "listen": "127.0.0.1:8090",
            "allow": [],
            "dial": "",
        },
        "recording": {"directory": "", "format": "wav", "calls": "none", "numbers": [], "announce": ""},
        "logs": {"format": "json"},
        "metrics": {"listen": "127.0.0.1:9108"},
    }


def test_each_layer_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    toml = "[correlation]\nwarn_after_s = 1\n"
    older = {"DUAL_MODE_CORRELATION_TIMEOUT": "2"}
    newer = older | {"DUETO_CORRELATION__WARN_AFTER_S": "3"}
    line = {"correlation": {"warn_after_s": 4}}
    assert load(tmp_path).correlation.warn_after_s == 5.0
    assert load(tmp_path, toml).correlation.warn_after_s == 1.0
    assert load(tmp_path, toml, environ=older).correlation.warn_after_s == 2.0
    assert load(tmp_path, toml, environ=newer).correlation.warn_after_s == 3.0
    assert load(tmp_path, toml, line, newer).correlation.warn_after_s == 4.0


def test_layers_are_joined_key_by_key(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[media]\nrate_hz = 8000\npath = "/s/{uuid}"\n[destinations.sales]\ndial = "user/1"\ndigit = "1"\n',
        {"media": {"listen": None, "dialect": "audio_stream-binary"}},
        {"DUETO_MEDIA__RATE_HZ": "24000", "DUETO_DESTINATIONS__SALES__DIAL": "user/2"},
    )
    assert (settings.media.rate_hz, settings.media.path) == (24000, "/s/{uuid}")
    assert (settings.media.dialect, settings.media.listen) == ("audio_stream-binary", "127.0.0.1:8085")
    assert settings.destinations["sales"] == DestinationSettings(dial="user/2", digit="1")


def test_the_environment_of_the_process_is_not_looked_at_when_another_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUETO_MEDIA__RATE_HZ", "8000")
    assert load(tmp_path).media.rate_hz == 16000
    assert Settings().media.rate_hz == 8000


@pytest.mark.parametrize("text", ["10.0.0.0/8, ::1/128", '["10.0.0.0/8", "::1"]'])
def test_a_list_in_the_environment_has_commas_or_is_json(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, environ={"DUETO_CONTROL__ALLOW": text}).control.allow == ("10.0.0.0/8", "::1/128")


def test_older_host_and_port_make_one_address(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[control]\nlisten = "127.0.0.2:9000"\n',
        environ={
            "ESL_SERVER_PORT": "9022",
            "REALTIME_HOST": "::1",
            "ESL_HOST": "192.0.2.1",
            "ESL_PASSWORD": "of-the-switch",
            "DUAL_MODE_EVENT_LOOP_INTERVAL": "0.05",
            "REALTIME_PORT": "",
        },
    )
    assert settings.control.listen == "127.0.0.2:9022", "a port alone keeps the host of the layer below"
    assert settings.media.listen == "[::1]:8085"
    assert settings.switch.address == "192.0.2.1:8021"
    assert settings.switch.password.get_secret_value() == "of-the-switch"
    assert settings.control.event_loop_interval_s == 0.05


def test_a_variable_that_means_nothing_any_more_is_remarked_upon(tmp_path: Path) -> None:
    remarks = load(tmp_path, environ={"DUAL_MODE_CORRELATION_RETRY": "3"}).settings_remarks
    assert len(remarks) == 1
    assert "DUAL_MODE_CORRELATION_RETRY means nothing any more" in remarks[0]


def test_an_older_name_and_a_missing_underscore_are_remarked_upon(tmp_path: Path) -> None:
    remarks = load(tmp_path, environ={"ESL_SERVER_HOST": "127.0.0.3", "DUETO_CONTROL_LISTEN": "x"}).settings_remarks
    assert any("ESL_SERVER_HOST" in remark and "control.listen" in remark for remark in remarks)
    assert any("DUETO_CONTROL__LISTEN" in remark for remark in remarks)
    assert load(tmp_path, environ={"DUETO_HOME": "/x"}).settings_remarks == ()


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[control]\nlistn = 'x'\n", "[control] listn: no such key; did you mean listen?"),
        ("[contrl]\nlisten = 'x'\n", "[contrl]: no such section; did you mean [control]?"),
        ("[media]\nwarn_after_s = 5\n", "[media] warn_after_s: no such key; warn_after_s belongs in [correlation]"),
        ("[destinations.a]\ndail = 'x'\ndial = 'y'\n", "[destinations.a] dail: no such key; did you mean dial?"),
        ("[destinations.a]\n", "[destinations.a] dial: this key is missing"),
        ("[logs]\nzzz = 1\n", "[logs] zzz: no such key; there are format"),
        ("control = 5\n", "[control]: expected a section ([name]), not 5"),
        ("[control]\nengine = 'nativ'\n", "[control] engine: expected 'native' or 'greenswitch', not 'nativ'; did you"),
        ("[control]\nmax_calls = 1.5\n", "[control] max_calls: expected a whole number, not 1.5"),
        ("[control]\nmax_calls = true\n", "[control] max_calls: expected a number, not true"),
        ("[control]\nmax_calls = 0\n", "[control] max_calls: expected at least 1, not 0"),
        ("[control]\nlisten = '8022'\n", '[control] listen: expected "HOST:PORT"'),
        ("[control]\nlisten = '::1:8022'\n", "an IPv6 address needs its brackets"),
        ("[control]\nallow = '10.0.0.0/8'\n", "[control] allow: expected a list ([...]), not '10.0.0.0/8'"),
        ("[control]\nallow = []\n", "[control] allow: expected at least one network"),
        (
            "[control]\nallow = ['10.0.0.1/8']\n",
            '[control] allow: "10.0.0.1/8" is an address within a network; did you',
        ),
        ("[control]\npublic_address = '0.0.0.0:8022'\n", "expected an address that the switch can connect to"),
        ("[media]\nrate_hz = 44100\n", "[media] rate_hz: expected one of 8000, 16000, 24000, 32000, 48000, not 44100"),
        ("[media]\npublic_url = 'http://x'\n", '[media] public_url: expected "ws://HOST:PORT"'),
        ("[media]\npath = '/a/{id}'\n", "expected {secretary}, {uuid} or {caller} as a whole part, not {id}"),
        ("[media]\npath = '/a b/{uuid}'\n", "[media] path: expected a path such as"),
        ("[correlation]\nwarn_after_s = nan\n", "[correlation] warn_after_s: expected at least 0, not nan"),
        ("[correlation]\nwarn_after_s = -1\n", "[correlation] warn_after_s: expected at least 0"),
        ("[correlation]\nwhile_waiting = 'music'\n", 'expected "silence" or "tone_stream://..."'),
        ('[correlation]\nwhile_waiting = "tone_stream://x\\n"\n', 'expected "silence" or "tone_stream://..."'),
        ("[agent]\nuse = 'receptionst'\n", 'did you mean "receptionist"?'),
        ("[agent]\nwhen_failed = 'sals'\n[destinations.sales]\ndial = 'x'\n", 'did you mean "sales"?'),
        ("[destinations.a]\ndial = 'x'\ndigit = 1\n", '[destinations.a] digit: expected text in quotes ("..."), not 1'),
        ("[destinations.a]\ndial = 'x'\ndigit = '12'\n", "[destinations.a] digit: expected one key"),
        ("[records]\nmessages = 'messages.jsonl'\n", "[records] messages: expected the whole path of a file, such as"),
        ("[records]\ntimelines = 't'\n", "[records] timelines: expected the whole path of a folder, such as"),
        ("[recording]\ndirectory = 'r'\n", "[recording] directory: expected the whole path of a folder, such as"),
        ("[destinations.hangup]\ndial = 'x'\n", "[destinations.hangup]: expected a name"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_was_expected(tmp_path: Path, toml: str, sentence: str) -> None:
    assert sentence in complaint(tmp_path, toml)


def test_every_mistake_is_told_at_once_one_a_line(tmp_path: Path) -> None:
    lines = complaint(tmp_path, "[control]\nlistn = 1\nlinger_s = 'x'\n[call]\ndrain = 3\n").splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["[call] drain", "[control] linger_s", "[control] listn"]


def test_a_mistake_in_a_variable_names_the_variable(tmp_path: Path) -> None:
    environ = {"DUETO_CONTROL__LISTN": "x", "DUETO_CALL__DRAIN_S": "soon", "DUAL_MODE_CORRELATION_TIMEOUT": "later"}
    text = complaint(tmp_path, environ=environ)
    assert "DUETO_CONTROL__LISTN: no such key; did you mean DUETO_CONTROL__LISTEN?" in text
    assert "DUETO_CALL__DRAIN_S: expected a number, not 'soon'" in text
    assert "DUAL_MODE_CORRELATION_TIMEOUT: expected a number, not 'later'" in text
    assert "ESL_SERVER_PORT" in complaint(tmp_path, environ={"ESL_SERVER_PORT": "abc"})


def test_a_mistake_on_the_command_line_is_not_blamed_on_a_variable(tmp_path: Path) -> None:
    text = complaint(tmp_path, overrides={"call": {"drain_s": "soon"}}, environ={"DUETO_CALL__DRAIN_S": "5"})
    assert text == "[call] drain_s: expected a number, not 'soon'"


def test_invalid_toml_is_told_with_line_and_column(tmp_path: Path) -> None:
    assert re.search(r"invalid TOML: .*line 2, column 8", complaint(tmp_path, "[control]\nlisten=\n"))


def test_a_file_that_is_not_there_or_not_text_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such file"):
        load_settings(tmp_path / "none.toml", {}, {})
    with pytest.raises(SettingsError, match="can't be read"):
        load_settings(tmp_path, {}, {})
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_settings(tmp_path / "latin.toml", {}, {})


@pytest.mark.parametrize("section", ["media]\nsecret", "switch]\npassword"])
def test_a_wrong_secret_is_not_repeated_by_the_complaint(tmp_path: Path, section: str) -> None:
    assert "hunter2" not in complaint(tmp_path, f'[{section} = "hunter2 $\\u0001"\n')


def test_secrets_are_not_in_the_representation() -> None:
    settings = Settings(media=MediaSettings(secret=SecretStr(SECRET)), switch={"password": "of-the-switch"})  # type: ignore[arg-type]
    for text in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in text
        assert "of-the-switch" not in text
    with pytest.raises(ValidationError) as caught:
        Settings(media={"secret": "a secret with spaces"})  # type: ignore[arg-type]
    assert "with spaces" not in str(caught.value)


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.media.rate_hz = 8000
    with pytest.raises(ValidationError):
        settings.agent = AgentSettings()


@pytest.mark.parametrize(
    "dial",
    [
        "user/1001",
        "user/1001,user/1002|user/1003",
        "sofia/gateway/office/1001;transport=tcp",
        "{origination_caller_id_name='Front Desk'}[leg_timeout=5]user/1001@192.0.2.1:5060",
    ],
)
def test_a_dial_string_may_use_its_own_separators(dial: str) -> None:
    assert DestinationSettings(dial=dial).dial == dial


@pytest.mark.parametrize("dial", ["", "user/1 &park()", "user/${caller}", "$${x}", "user/1'", 'a"b', "a\\nb", "`id`"])
def test_a_dial_string_that_would_become_something_else_is_refused(dial: str) -> None:
    with pytest.raises(ValidationError):
        DestinationSettings(dial=dial)


@given(st.text(), st.characters(categories=["Cc", "Cs", "Zl", "Zp"]), st.text())
def test_no_dial_string_carries_a_line_break_or_control_character(before: str, control: str, after: str) -> None:
    with pytest.raises(ValidationError):
        DestinationSettings(dial=f"user/{before}{control}{after}")


def test_destinations_become_the_calls_own(tmp_path: Path) -> None:
    toml = """
        [destinations.sales]
        dial = "user/1"
        words = ["Sales Department"]
        digit = "1"
        [destinations.lost-and_found]
        dial = "user/2"
    """
    assert load(tmp_path, toml).destinations_by_name() == {
        "sales": Destination("sales", "user/1", ("sales department",), "1"),
        "lost-and_found": Destination("lost-and_found", "user/2", ("lost and found",), ""),
    }


def test_two_destinations_may_not_share_a_digit_or_a_word(tmp_path: Path) -> None:
    toml = """
        destinations.a = {dial = "x", digit = "1", words = ["Sales"]}
        destinations.b = {dial = "y", digit = "1", words = ["sales"]}
    """
    text = complaint(tmp_path, toml)
    assert '[destinations.b] digit: "1" is that of a already' in text
    assert '[destinations.b] words: "sales" is one of a already' in text


def serving(tmp_path: Path, toml: str = "", *, agent_given: bool = False) -> list[str]:
    settings = load(tmp_path, toml)
    try:
        check_for_serving(settings, agent_given=agent_given)
    except SettingsError as error:
        return str(error).splitlines()
    return []


GOOD = f'agent.use = "echo"\nmedia.secret = "{SECRET}"\n'


UNICAST = 'media.dialect = "unicast"\n'


def test_a_stock_switch_on_this_machine_needs_one_key() -> None:
    check_for_serving(load_settings(None, {"media": {"dialect": "unicast"}, "agent": {"use": "echo"}}, {}))


@pytest.mark.parametrize("address", ["::1", "switch.example", "0.0.0.0", "192.0.2.1:5000", ""])
def test_unicast_takes_one_ipv4_address_and_says_so(tmp_path: Path, address: str) -> None:
    text = complaint(tmp_path, f'media.unicast_switch_address = "{address}"')
    assert "unicast_switch_address: expected" in text
    assert "IPv4" in text or address == "0.0.0.0"


@pytest.mark.parametrize("ports", ["12000", "2000-1000", "80-5000", "60000-70000", "a-b"])
def test_a_port_range_is_two_ports_in_order(tmp_path: Path, ports: str) -> None:
    assert 'expected "FIRST-LAST"' in complaint(tmp_path, f'media.unicast_ports = "{ports}"')


def test_a_good_configuration_may_serve(tmp_path: Path) -> None:
    assert serving(tmp_path, GOOD) == []


def test_a_missing_secret_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    (line,) = serving(tmp_path, 'agent.use = "echo"')
    assert line.startswith("[media] secret: missing")
    assert "secrets.token_hex(16)" in line
    assert serving(tmp_path, 'agent.use = "echo"\nmedia.start = "gateway"\nmedia.public_url = "ws://h:1"') == []


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ('media.secret = "short"', "[media] secret: shorter than 16"),
        ('media.token = "off"\nmedia.listen = "0.0.0.0:8085"', '[media] token: "off" is for loopback only'),
        ('media.token = "off"\nmedia.listen = "gateway.example:8085"', '[media] token: "off" is for loopback only'),
        ('media.start = "gateway"', "[media] public_url: missing"),
        ('media.path = "/x/{caller}"', "[media] path"),
        (
            'correlation.control = "none"\nmedia.dialect = "audio_stream"',
            '[media] dialect: "audio_stream" speaks through the control leg',
        ),
        (
            'correlation.control = "none"\nmedia.dialect = "audio_fork"',
            '[media] dialect: "audio_fork" speaks through the control leg',
        ),
        ('control.listen = "0.0.0.0:8085"', "[media] listen: port 8085 is that of [control] listen already"),
        ('switch.address = "192.0.2.1:8021"\nswitch.password = "ClueCon"', "[switch] password: everybody knows"),
        ('switch.address = "192.0.2.1:8021"', "[switch] password: missing"),
        ('agent.use = "receptionist"', '[agent] use: "receptionist" has nobody'),
        (UNICAST + 'correlation.control = "none"', '[media] dialect: "unicast" is started over the control leg'),
        (UNICAST + 'media.start = "dialplan"', '[media] start: no dialplan can start "unicast"'),
        (UNICAST + 'correlation.while_waiting = "tone_stream://%(1,1,1)"', "[correlation] while_waiting: a tone"),
        (UNICAST + 'control.listen = "0.0.0.0:8022"', "[control] public_address: missing"),
        (UNICAST + 'media.unicast_switch_address = "192.0.2.20"', "[media] unicast_bind_address: 192.0.2.20 and"),
        (UNICAST + 'media.unicast_ports = "12000-12999"', "[media] unicast_ports: 12000 to 12999 is enough for 500"),
    ],
)
def test_what_may_not_serve_is_refused(tmp_path: Path, toml: str, sentence: str) -> None:
    given_keys = {line.split(" ")[0] for line in toml.splitlines()}
    base = "".join(f"{line}\n" for line in GOOD.splitlines() if line.split(" ")[0] not in given_keys)
    lines = serving(tmp_path, base + toml)
    assert any(line.startswith(sentence) for line in lines), lines


@pytest.mark.parametrize(
    "toml",
    [
        'media.token = "off"\nagent.use = "echo"',
        'media.token = "off"\nmedia.listen = "[::1]:8085"\nagent.use = "echo"',
        f'{GOOD}switch.address = "localhost:8021"\nswitch.password = "ClueCon"',
        f'{GOOD}control.listen = "127.0.0.1:0"\nmedia.listen = "127.0.0.1:0"\nmetrics.listen = ""',
    ],
)
def test_what_stays_on_the_machine_may_be_lax(tmp_path: Path, toml: str) -> None:
    assert serving(tmp_path, toml) == []


def test_an_agent_from_code_makes_agent_use_irrelevant(tmp_path: Path) -> None:
    assert serving(tmp_path, f'media.secret = "{SECRET}"', agent_given=True) == []


def test_timelines_and_recordings_would_overwrite_each_other_in_one_folder(tmp_path: Path) -> None:
    toml = f"media.secret = '{SECRET}'\nagent.use = 'echo'\nrecording.directory = '/a/calls'\n"
    assert (
        "timelines: the folder of [recording] directory"
        in serving(tmp_path, toml + "records.timelines = '/a/calls/'")[0]
    )
    assert serving(tmp_path, toml + "records.timelines = '/a/lines'") == []


def test_the_example_loads_and_serves_once_it_has_a_secret() -> None:
    settings = load_settings(ROOT / "examples/dueto.toml", {}, {"DUETO_MEDIA__SECRET": SECRET})
    check_for_serving(settings)
    assert set(settings.destinations) == {"sales", "support", "operator"}


def test_every_key_stands_in_the_documentation_with_its_default() -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## \[+([\w.]+)\](.*?)(?=^## )", text, re.MULTILINE | re.DOTALL))
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    defaults["destinations.NAME"] = DestinationSettings(dial="needed")
    defaults["agents.NAME"] = Profile(use="needed")
    defaults["route"], defaults["tenants.NAME"] = RouteSettings(), TenantSettings()
    del defaults["destinations"], defaults["agents"], defaults["tenants"]
    assert set(sections) == set(defaults)
    assert defaults.pop("dtmf") == {}, "a table of keys, explained by its example"
    for section, model in defaults.items():
        assert isinstance(model, BaseModel)
        _check_rows(sections[section].partition("\n### ")[0], model.model_dump(mode="json"))
    kinds = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    voice = _defaults(VoiceProfile, without=Profile)
    _check_rows(kinds.pop("Kinds with a voice provider"), voice)
    for use in loading.kinds():
        kind = loading.find_kind(use)
        assert kind is not None
        _check_rows(
            kinds.pop(f'use = "{use}"', ""),
            _defaults(kind.profile, without=VoiceProfile if issubclass(kind.profile, VoiceProfile) else Profile),
        )


def _defaults(profile: type[Profile], without: type[Profile]) -> dict[str, Any]:
    """The keys that a kind adds, or changes the default of."""
    common = {key: field.get_default() for key, field in without.model_fields.items()}
    own = {
        key: "needed" if field.is_required() else field.get_default()
        for key, field in profile.model_fields.items()
        if key not in common or (key != "use" and field.get_default() != common[key])
    }
    return {key: value.get_secret_value() if isinstance(value, SecretStr) else value for key, value in own.items()}


def _check_rows(section: str, defaults: dict[str, Any]) -> None:
    rows = dict(re.findall(r"^\| `((?!dueto_)\w+)` \| ([^|]+) \|", section, re.MULTILINE))
    assert set(rows) == set(defaults)
    for key, value in defaults.items():
        if value is None:
            assert re.fullmatch(r"\(.+\)", rows[key]), f"{key}: where it comes from, in words"
        else:
            assert rows[key] == ("(needed)" if value == "needed" else f"`{_as_toml(value)}`"), key


def _as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_as_toml(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_every_older_name_stands_in_the_documentation() -> None:
    from dueto.app.environment import NO_LONGER_MEANT, OLDER_NAMES

    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    for name in (*OLDER_NAMES, *NO_LONGER_MEANT):
        assert f"`{name}`" in text


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ('[dtmf]\n"10" = "repeat"', "keys"),
        ('[dtmf]\n"1" = "dance"', "transfer NAME"),
        ('[dtmf]\n"1" = "transfer"', "transfer NAME"),
        ('[dtmf]\n"1" = "transfer nobody"', 'no destination "nobody"'),
        ('[agents.a]\nuse = "echo"\n[agents.a.dtmf]\n"1" = "transfer nobody"', 'no destination "nobody"'),
        ('[agents.a]\nuse = "echo"\n[agents.a.dtmf]\n"1" = "dance"', "transfer NAME"),
        ('[destinations.a]\ndial = "user/1"\nwhen = "always"', "mon-fri 09:00-18:00"),
        ('[destinations.a]\ndial = "user/1"\nwhen = "mon 09:00-18:00"\nfallback = "b"', 'no destination "b"'),
        ('[destinations.a]\ndial = "user/1"\nwhen = "mon 09:00-18:00"\nfallback = "a"', "leads back"),
        ('[destinations.a]\ndial = "user/1"\nfallback = "a"', "without `when`"),
        ('[switch]\nuser = "x y"', "NAME@DOMAIN"),
    ],
)
def test_call_control_is_checked_when_the_configuration_is_read(tmp_path: Path, toml: str, word: str) -> None:
    assert word in complaint(tmp_path, toml)


def test_keys_and_hours_reach_the_gateway(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[dtmf]\n"0" = "transfer a"\n[destinations.a]\ndial = "user/1"\nwhen = "mon-fri 09:00-18:00"\nfallback = "b"\n'
        '[destinations.b]\ndial = "user/2"',
    )
    assert settings.dtmf == {"0": "transfer a"}
    assert settings.destinations_by_name()["a"].fallback == "b"
