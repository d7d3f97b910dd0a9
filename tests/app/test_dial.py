"""`dueto dial` against a simulated switch on real sockets: what it prints, and with which exit code it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.app.test_cli import run
from tests.app.test_gateway import Noted

from dueto.app.dial import STOPPED, Wish, place_one
from dueto.app.serve import Stop
from dueto.app.settings import load_settings
from dueto.sim import Access, Endpoint, Switch

PASSWORD = "not ClueCon"
ENDPOINTS = {
    "user/answers": Endpoint("answers", answer_after_s=0.05, hangs_up_after_s=0.3),
    "user/busy": Endpoint("busy", answer_after_s=0.05),
    "user/rings": Endpoint("no_answer"),
    "user/stays": Endpoint("answers", answer_after_s=0.05),
}


@asynccontextmanager
async def configured(tmp_path: Path, password: str = PASSWORD) -> AsyncIterator[tuple[Switch, Path]]:
    async with Switch("", "", endpoints=ENDPOINTS) as switch:
        port = await switch.listen_inbound(access=Access(PASSWORD))
        path = tmp_path / "dueto.toml"
        path.write_text(
            f'[agent]\nuse = "echo"\n[media]\ndialect = "audio_stream-binary"\nsecret = "a-secret-of-the-tests"\n'
            f'[switch]\naddress = "127.0.0.1:{port}"\npassword = "{password}"\n'
        )
        yield switch, path


@pytest.mark.parametrize(
    ("dial", "code", "outcome", "cause"),
    [("user/answers", 0, "answered", "SUCCESS"), ("user/busy", 1, "busy", "USER_BUSY")],
)
async def test_what_became_of_the_call_is_printed(
    dial: str,
    code: int,
    outcome: str,
    cause: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with configured(tmp_path) as (switch, path):
        arguments = ("dial", dial, "--config", str(path), "--json", "--timeout", "5")
        assert await asyncio.to_thread(run, monkeypatch, *arguments) == code
        printed: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (printed["outcome"], printed["cause"]) == (outcome, cause)
        assert (printed["ended"] == "NORMAL_CLEARING") == (code == 0)
        assert not [call for call in switch.calls.values() if not call.hangup_cause]


async def test_in_words_where_nobody_asked_for_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with configured(tmp_path) as (_, path):
        assert await asyncio.to_thread(run, monkeypatch, "dial", "user/busy", "--config", str(path)) == 1
        assert capsys.readouterr().out == "user/busy: busy (USER_BUSY)\n"


@pytest.mark.parametrize(
    ("password", "dial", "word"), [("wrong", "user/busy", "password"), (PASSWORD, "a b", "spaces")]
)
async def test_what_can_not_be_dialled_says_why(
    password: str,
    dial: str,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dueto.app.dial.LINK_S", 0.5)
    async with configured(tmp_path, password) as (_, path):
        assert await asyncio.to_thread(run, monkeypatch, "dial", dial, "--config", str(path)) == 2
        assert word in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dial", "moment"), [("user/rings", "dialling"), ("user/stays", "dialling"), ("user/stays", "agent_started")]
)
async def test_whoever_stops_it_hangs_up(dial: str, moment: str, tmp_path: Path) -> None:
    async with configured(tmp_path) as (switch, path):
        stop, noted = Stop(), Noted()
        doors = {"metrics": {"listen": ""}, "control": {"listen": "127.0.0.1:0"}, "media": {"listen": "127.0.0.1:0"}}
        placing = asyncio.ensure_future(place_one(load_settings(path, doors, {}), Wish(dial), stop, journal=noted))
        await noted.until(moment)
        stop.ask()
        async with asyncio.timeout(10):
            assert await placing == STOPPED
            for call in tuple(switch.calls.values()):
                await call.done()  # which nobody who is left would bring about
