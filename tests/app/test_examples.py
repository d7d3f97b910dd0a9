"""The examples that several agents share: read, built and asked as they stand there."""

import asyncio
import configparser
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agents.test_tools import FakeCall, heard
from tests.support.virtual import virtual_desk

from dueto.agents.own_tools import load_tools
from dueto.app.overview import check_overview
from dueto.app.serve import FILES, FILES_PER_CALL
from dueto.app.settings import load_settings
from dueto.call import CallRules, Destination
from dueto.sim import Caller, Endpoint, Line, run_virtual, tone

OFFLINE = ("another_machine", "cascade", "dueto", "two_companies")
EXAMPLES = Path(__file__).parents[2] / "examples"
SHORTEST, LONGEST = 20, 40
"Lines of an example, all of them counted: that is how a reader meets it."
PROVIDERS = (
    "cascade",
    "elevenlabs_agent",
    "gemini_live",
    "media_streams",
    "openai_realtime",
    "own_agent",
    "pipecat_pipeline",
)


@pytest.fixture(autouse=True)
def _beside_the_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for module in ("order_tool", "openai_realtime", "own_agent"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.*")), ids=lambda path: path.name)
def test_every_example_is_read_in_a_minute(path: Path) -> None:
    assert path.suffix in (".py", ".toml", ".service")
    assert SHORTEST <= len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_has_an_example_in_python_and_one_as_a_configuration(provider: str) -> None:
    assert (EXAMPLES / f"{provider}.py").is_file()
    assert (EXAMPLES / f"{provider}.toml").is_file()


def test_the_two_companies_are_a_good_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    secret = {"DUETO_MEDIA__SECRET": "0123456789abcdef0123456789abcdef"}
    settings = load_settings(EXAMPLES / "two_companies.toml", {}, secret)
    assert check_overview(settings) == (
        "The configuration is good. Who gets which call:\n"
        "  1. dialled 0800555* or 2000: acme (openai), tenant acme\n"
        "  2. domain bakery.example: receptionist, tenant bakery\n"
        "  all others: receptionist\n"
        "Callers of no tenant can reach operator\n"
        "Callers of tenant acme can reach acme-desk; 40 calls at once\n"
        "Callers of tenant bakery can reach bakery-shop\n"
    )


CONFIGURATIONS = [path for path in sorted(EXAMPLES.glob("*.toml")) if path.stem != "pipecat_pipeline"]  # tests/vendors


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
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


class Mouth:
    """A tone for every sentence: 20 ms for each of its letters."""

    def __init__(self) -> None:
        self.spoke: list[str] = []

    async def speak(self, text: str, rate_hz: int) -> bytes:
        self.spoke.append(text)
        return tone(rate_hz, len(text) / 50, 440.0)


def test_the_agent_of_your_own_connects_who_presses_a_key_and_says_goodbye_to_who_does_not() -> None:
    from examples.own_agent import menu

    async def busy_then_the_workshop(line: Line) -> None:
        for key in "12":
            await line.hears_speech()
            await line.wait(0.6)  # the second time it is the apology that begins
            await line.press(key)
        await line.bridged()
        await line.until_hangup()

    async def nothing(line: Line) -> None:
        await line.until_hangup()

    async def calls() -> None:
        destinations = {"sales": Destination("sales", "user/1001"), "workshop": Destination("workshop", "user/1002")}
        endpoints = {"user/1001": Endpoint("busy"), "user/1002": Endpoint(hangs_up_after_s=1.0)}
        rules = CallRules(rate_hz=8000)
        async with virtual_desk(menu, rules=rules, destinations=destinations, mouth=mouth) as here:
            async with here.switch(endpoints=endpoints) as switch:
                for script in (busy_then_the_workshop, nothing):
                    await (await switch.place(Caller(script=script))).done()
                    await asyncio.sleep(1)
        outcomes = [fields["outcome"] for _, name, fields in here.journal if name == "transfer"]
        assert outcomes == ["busy", "bridged"]

    mouth = Mouth()
    run_virtual(calls())
    assert mouth.spoke[:3] == [mouth.spoke[0], "Nobody is there.", mouth.spoke[0]]
    assert mouth.spoke[3:] == [mouth.spoke[0]] * 3 + ["Please call again later. Goodbye."]


def test_the_service_allows_what_the_defaults_may_need() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(EXAMPLES / "dueto.service")
    service, settings = unit["Service"], load_settings(None, {}, {})
    assert service.getint("LimitNOFILE") >= FILES + FILES_PER_CALL * settings.control.max_calls
    assert service.getfloat("TimeoutStopSec") > settings.call.drain_s
    _, *command = shlex.split(service["ExecStart"])
    shown = subprocess.run([sys.executable, "-m", "dueto", *command, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "--config" in command
