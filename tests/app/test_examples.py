"""The examples that several agents share: read, built and asked as they stand there."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agents.test_tools import FakeCall, heard

from dueto.agents.own_tools import load_tools
from dueto.app.overview import check_overview
from dueto.app.settings import load_settings

OFFLINE = ("call_centre", "cascade", "dueto")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _beside_the_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for module in ("order_tool", "gemini_live", "openai_realtime"):
        sys.modules.pop(module, None)


def test_the_call_centre_is_a_good_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "not-a-key")
    records = {"messages": str(tmp_path / "messages.jsonl"), "timelines": str(tmp_path / "timelines")}
    secret = {"DUETO_MEDIA__SECRET": "0123456789abcdef0123456789abcdef"}
    settings = load_settings(EXAMPLES / "call_centre.toml", {"records": records}, secret)
    assert check_overview(settings) == (
        "The configuration is good. Who gets which call:\n"
        "  1. dialled 0800555* or 2000: acme (openai), then acme_spare (gemini), then destination acme-desk"
        ", tenant acme\n"
        "  2. domain bakery.example: receptionist, tenant bakery\n"
        "  all others: receptionist\n"
        "Callers of no tenant can reach operator\n"
        "Callers of tenant acme can reach acme-desk, acme-sales; 40 calls at once\n"
        "Callers of tenant bakery can reach bakery-shop\n"
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_of_a_configuration_is_a_good_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem in OFFLINE:
        pytest.importorskip("pocketsphinx", reason="needs dueto[receptionist]")
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ELEVENLABS_API_KEY"):
        monkeypatch.setenv(name, "not-a-key")
    secrets = {
        "DUETO_MEDIA__SECRET": "0123456789abcdef0123456789abcdef",
        "DUETO_TWILIO__AUTH_TOKEN": "not-a-token-at-all",
    }
    records = {"messages": str(tmp_path / "messages.jsonl"), "timelines": str(tmp_path / "timelines")}
    text = check_overview(load_settings(path, {"records": records}, secrets))
    assert text.startswith("The configuration is good.")
    assert "Remark" not in text


async def test_the_order_tool_answers_and_refuses_with_what_to_do_instead() -> None:
    box = load_tools(["order_tool:lookup_order"])

    async def asked(number: int) -> str:
        call = FakeCall()
        call.caller_number = "49"  # type: ignore[attr-defined]
        call.info = lambda *args, **fields: None  # type: ignore[attr-defined]
        return await box.run(call, "lookup_order", json.dumps({"number": number}), heard)  # type: ignore[arg-type]

    assert await asked(4711) == "Order 4711 left the house on Monday."
    assert json.loads(await asked(4713))["error"].endswith("ask the caller to read it again")
    assert json.loads(await asked(3))["error"].startswith("number: Input should be greater than or equal to 1000")
