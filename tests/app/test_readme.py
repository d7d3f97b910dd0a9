"""What the README and the other pages show runs as it stands there."""

import ast
import importlib.util
import inspect
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from dueto import Call
from dueto.app import cli
from dueto.app.gateway import Gateway
from dueto.app.settings import load_settings
from dueto.sim import Caller, Line, Switch

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef0123456789abcdef"


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


async def test_the_readmes_agent_echoes_and_hangs_up_on_pound() -> None:
    names: dict[str, object] = {}
    exec(python_blocks("README.md")[0], names)
    settings = load_settings(
        None,
        {
            "control": {"listen": "127.0.0.1:0"},
            "media": {"listen": "127.0.0.1:0", "secret": SECRET, "dialect": "audio_stream-binary"},
            "metrics": {"listen": ""},
        },
        {},
    )
    async with Gateway(settings, agent=names["echo_until_pound"]) as gateway:  # type: ignore[arg-type]
        url = f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?token={{token}}"

        async def script(line: Line) -> None:
            await line.say(b"\x00\x20\x00\xe0" * 2000)
            await line.hears_speech(5)
            await line.press("#")
            await line.until_hangup()

        async with Switch(f"127.0.0.1:{gateway.control_port}", url, secret=SECRET) as switch:
            call = await switch.place(Caller(script=script))
            await call.done()
    assert call.hangup_cause == "NORMAL_CLEARING"
    assert not any(happening.leg == "caller" and happening.name == "hangup" for happening in call.events)


PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
PYTHON = [(page, number, block) for page in PAGES for number, block in enumerate(python_blocks(page))]
STAND_INS = ("my_agent", "alice", "MyControlProtocol", "open_media")
"What a reader has of his own, and blocks speak of."


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pipecat's own, as it is imported
@pytest.mark.parametrize(
    ("page", "block"), [pytest.param(page, block, id=f"{page}-{number}") for page, number, block in PYTHON]
)
def test_what_a_python_block_imports_is_there_and_what_it_asks_of_a_call_exists(page: str, block: str) -> None:
    if "pipecat" in block:
        pytest.importorskip("pipecat")
    tree = ast.parse(block)
    tree.body = [line for line in tree.body if not isinstance(line, ast.Expr)]  # such as `run_virtual(main())`
    exec(compile(tree, page, "exec"), dict.fromkeys(STAND_INS, print))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for argument in function.args.args:
                if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Call":
                    check_use(function, argument.arg)


def check_use(function: ast.AST, call: str) -> None:
    """Whatever `function` reads of its `call` exists, and takes the keywords that it is given."""
    for node in ast.walk(function):
        used = node.func if isinstance(node, ast.Call) else node
        if not (isinstance(used, ast.Attribute) and isinstance(used.value, ast.Name) and used.value.id == call):
            continue
        assert hasattr(Call, used.attr) or used.attr == "log", f"a call has no {used.attr}"
        if isinstance(node, ast.Call):
            parameters = inspect.signature(getattr(Call, used.attr)).parameters
            taken = {name for name, one in parameters.items() if one.kind is not one.POSITIONAL_ONLY}
            assert {keyword.arg for keyword in node.keywords} <= taken


TOML = [
    (page, block) for page in PAGES for block in re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
]
AROUND: dict[str, Any] = {
    "media": {"token": "off"},
    "agents": {name: {"use": "echo"} for name in ("front", "voice", "bot")},
    "tenants": {"acme": {}},
    "destinations": {name: {"dial": "user/1"} for name in ("operator", "sales")},
}
"What blocks speak of and other blocks show."


@pytest.mark.parametrize(("page", "block"), [pytest.param(*one, id=f"{one[0]}-{n}") for n, one in enumerate(TOML)])
def test_every_toml_block_is_a_configuration(page: str, block: str) -> None:
    read = tomllib.loads(block)
    merged = {key: {**AROUND.get(key, {}), **read[key]} if key in AROUND else read[key] for key in read}
    load_settings(None, {**AROUND, **merged}, {})


def test_every_command_that_is_shown_exists_with_its_options() -> None:
    group = typer.main.get_command(cli.app)
    shown = set()
    for page in PAGES:
        text = (ROOT / page).read_text()
        lines = re.findall(r"^ {4,}(?:\w+=\S+ )*dueto ([a-z].*?)(?:  +#.*)?$", text, re.MULTILINE)
        for command in [*lines, *re.findall(r"`dueto ([a-z][^`]*)`", text)]:
            name, *words = shlex.split(command)
            known = group.commands.get(name)  # type: ignore[attr-defined]
            assert known is not None, f"{page}: dueto {command}"
            options = {option for parameter in known.params for option in parameter.opts} | {"--help"}
            assert {word.partition("=")[0] for word in words if word.startswith("-")} <= options, f"{page}: {command}"
            shown.add(name)
    assert shown >= {"serve", "demo", "simulate", "dial", "dialplan", "check", "agents", "tools"}


def test_every_bench_that_is_shown_exists() -> None:
    for page in PAGES:
        for module in re.findall(r"python -m (bench\.\w+)", (ROOT / page).read_text()):
            assert importlib.util.find_spec(module) is not None, f"{page}: {module}"


def headings(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    missing = []
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^):]+)\)", page.read_text()):
            path, _, heading = target.partition("#")
            there = page.parent / path if path else page
            if not there.exists() or (heading and heading not in headings(there)):
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert not missing


def test_each_decision_has_a_number_of_its_own_and_bears_it() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert len({path.name[:4] for path in decisions}) == len(decisions)
    for path in decisions:
        assert path.read_text().startswith(f"# {int(path.name[:4])}. ")
