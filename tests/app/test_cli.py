"""The command line: what it prints, where, and with which exit code."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dueto
from dueto.app import cli
from dueto.app.serve import run_to_the_end
from dueto.app.settings import load_settings
from dueto.app.simulate import Load, run_load, target_of
from dueto.errors import SettingsError
from dueto.sim import Caller, Line, Switch

SECRET = "a-secret-of-the-tests"
CONFIG = f"""
[control]
listen = "127.0.0.1:0"
[media]
listen = "127.0.0.1:0"
dialect = "audio_stream-binary"
secret = "{SECRET}"
[metrics]
listen = "127.0.0.1:0"
[agent]
use = "echo"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "dueto.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("DUETO_", "DUAL_MODE_", "ESL_", "REALTIME_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `dueto ARGUMENTS` in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["dueto", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    code = ended.value.code
    return code if isinstance(code, int) else 0 if code is None else 1


def test_the_version_is_printed_without_loading_the_gateway() -> None:
    program = (
        "import sys; sys.argv = ['dueto', '--version']\n"
        "from dueto.app.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'pydantic', 'picows', 'structlog', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"dueto {dueto.__version__}", "[]"]


def test_without_arguments_help_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch)
    captured = capsys.readouterr()
    for command in ("serve", "dial", "demo", "simulate", "dialplan"):
        assert command in captured.out + captured.err


@pytest.mark.parametrize("command", ["serve", "dial", "demo", "simulate", "dialplan"])
def test_the_help_of_each_command_has_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    assert f"Example: dueto {command}" in capsys.readouterr().out


def test_each_problem_of_a_configuration_is_one_line_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[media]\nrate = 8000\n[call]\ndrain_s = 'soon'\n")
    assert run(monkeypatch, "serve", "--config", str(path)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("dueto: ") for line in lines)
    assert any("rate_hz" in line for line in lines)


def test_a_configuration_that_can_not_serve_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "serve", "--agent", "echo") == 2
    assert "[media] secret: missing" in capsys.readouterr().err


def test_a_taken_port_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(monkeypatch, "serve", "-c", str(config), "--control-listen", f"127.0.0.1:{port}") == 2
    error = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in error
    assert "Traceback" not in error


def test_the_configuration_beside_us_is_found(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(config.parent)
    assert run(monkeypatch, "dialplan") == 2  # port 0 is no address to dial: so it was read
    assert "listen is 127.0.0.1:0" in capsys.readouterr().err


def test_an_agent_is_found_beside_the_configuration_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "an_agent_beside.py").write_text("async def hello(call): ...\n")
    config = tmp_path / "dueto.toml"
    config.write_text("[media]\ntoken = 'off'\n[agent]\nuse = 'an_agent_beside:hello'\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(elsewhere)
    assert run(monkeypatch, "check", "--config", "../dueto.toml") == 0
    assert "all: an_agent_beside:hello\n" in capsys.readouterr().out


def test_the_dialplan_is_printed_and_the_secret_only_when_asked(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CONFIG.replace("127.0.0.1:0", "127.0.0.1:8022", 1).replace("127.0.0.1:0", "127.0.0.1:8085", 1))
    assert run(monkeypatch, "dialplan", "-c", str(config)) == 0
    printed = capsys.readouterr().out
    assert "127.0.0.1:8022 async full" in printed
    assert SECRET not in printed
    assert run(monkeypatch, "dialplan", "-c", str(config), "--show-secret") == 0
    assert SECRET in capsys.readouterr().out
    assert run(monkeypatch, "dialplan", "-c", str(config), "--fusionpbx", "--media-only") == 0
    rows = capsys.readouterr().out
    assert "socket" not in rows
    assert "Dialplan entry" in rows


def test_simulate_without_a_gateway_ends_with_two(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        assert run(monkeypatch, "simulate", "-c", str(config), "--control", address, "--media", f"ws://{address}") == 2
    assert "start one: dueto serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pairs", "tree"),
    [
        (["media.rate_hz=8000"], {"media": {"rate_hz": 8000}}),
        (["agent.use=echo", "agent.closing_s=1.5"], {"agent": {"use": "echo", "closing_s": 1.5}}),
        (['control.allow=["10.0.0.0/8"]'], {"control": {"allow": ["10.0.0.0/8"]}}),
        (["metrics.listen="], {"metrics": {"listen": ""}}),
        (["destinations.sales.dial=user/1001"], {"destinations": {"sales": {"dial": "user/1001"}}}),
        (["logs.format=a=b"], {"logs": {"format": "a=b"}}),
    ],
)
def test_set_reads_any_key(pairs: list[str], tree: object) -> None:
    assert cli._overrides(pairs) == tree


@pytest.mark.parametrize("pair", ["media", "media=1", "media.rate_hz", ".x=1", "media.=1"])
def test_set_without_a_key_or_a_value_is_refused(pair: str) -> None:
    with pytest.raises(SettingsError, match="--set"):
        cli._overrides([pair])


@dataclass
class Serving:
    """A `dueto serve` process."""

    process: "subprocess.Popen[str]"
    ready: dict[str, Any]

    async def says(self, event: str) -> dict[str, Any]:
        """Wait for the next log line of that name, without holding up the switch that runs here."""
        return await asyncio.to_thread(self.next_line, event)

    def next_line(self, event: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line: dict[str, Any] = json.loads(text)
            if line["event"] == event:
                return line
        raise AssertionError(f"no {event}, but the end")


@pytest.fixture
def serving(config: Path) -> Iterator[Serving]:
    with served(config) as running:
        yield running


@contextlib.contextmanager
def served(config: Path) -> Iterator[Serving]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dueto", "serve", "--config", str(config)], stdout=subprocess.PIPE, text=True
    )
    running = Serving(process, {})
    try:
        running.ready = running.next_line("ready")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def test_serve_says_where_it_listens_and_sigterm_ends_it_with_zero(serving: Serving, config: Path) -> None:
    target = target_of(
        load_settings(config, {}, {}), control=serving.ready["control"], media=f"ws://{serving.ready['media']}"
    )
    result = await run_load(target, Load(calls=3, rate_per_s=100, duration_s=0.3))
    assert result.ok
    assert serving.ready["agent"] == "echo"
    assert serving.ready["metrics"].startswith("127.0.0.1:")
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(10) == 0


STUBBORN = """
import asyncio

async def agent(call):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
"""


@pytest.fixture
def stubborn(config: Path) -> Path:
    (config.parent / "stubborn.py").write_text(STUBBORN)
    config.write_text(CONFIG.replace('"echo"', '"stubborn:agent"\nclosing_s = 0.1'))
    return config


async def test_an_agent_that_swallows_its_cancelling_does_not_keep_the_process(stubborn: Path) -> None:
    with served(stubborn) as serving:
        target = target_of(
            load_settings(stubborn, {}, {}), control=serving.ready["control"], media=f"ws://{serving.ready['media']}"
        )
        await run_load(target, Load(calls=1, rate_per_s=100, duration_s=0.1))
        serving.process.send_signal(signal.SIGTERM)
        await serving.says("agent_stuck")
        await serving.says("left_behind")
        assert serving.process.wait(10) == 0


def test_a_process_that_goes_on_after_its_gateway_is_not_ended() -> None:
    async def main() -> int:
        return 7

    before = set(threading.enumerate())
    assert run_to_the_end(main()) == 7
    for thread in set(threading.enumerate()) - before:
        assert isinstance(thread, threading.Timer)
        assert thread.finished.is_set()


async def test_a_log_that_nobody_reads_holds_up_no_call(serving: Serving, config: Path) -> None:
    target = target_of(
        load_settings(config, {}, {}), control=serving.ready["control"], media=f"ws://{serving.ready['media']}"
    )
    result = await run_load(target, Load(calls=100, rate_per_s=100, duration_s=0.1))  # twice what a pipe holds
    assert result.fates == {"paired": 100}
    serving.process.terminate()
    out, _ = serving.process.communicate(timeout=20)
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events.count("call_ended") == 100
    assert events[-1] == "stopped"


async def test_a_drain_lets_the_call_finish_and_a_second_signal_does_not(serving: Serving) -> None:
    """One call that would last for ever: the first signal leaves it alone, the second ends the process at once."""
    switch = Switch(
        serving.ready["control"],
        f"ws://{serving.ready['media']}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=16000&mix=mono&token={{token}}",
        secret=SECRET,
    )

    async def stays(line: Line) -> None:
        await line.until_hangup()

    async with switch:
        call = await switch.place(Caller(script=stays))
        await serving.says("paired")
        serving.process.send_signal(signal.SIGINT)
        assert (await serving.says("draining"))["calls"] == 1
        assert not call.hangup_cause
        assert serving.process.poll() is None
        serving.process.send_signal(signal.SIGINT)
        assert (await serving.says("closing_at_once"))["calls"] == 1
        assert serving.process.wait(10) == 0
