"""The gateway as a whole: built from settings, reached by a simulated switch, read over HTTP, closed in order."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dueto.app.gateway import Gateway
from dueto.app.settings import Settings, load_settings
from dueto.call import Call
from dueto.errors import SettingsError
from dueto.sim import Caller, Line, Switch

SECRET = "0123456789abcdef0123456789abcdef"


def settings(**more: Any) -> Settings:
    given: dict[str, Any] = {
        "control": {"listen": "127.0.0.1:0"},
        "media": {"listen": "127.0.0.1:0", "secret": SECRET, "dialect": "audio_stream-binary"},
        "metrics": {"listen": "127.0.0.1:0"},
        "agent": {"use": "echo"},
    }
    for section, values in more.items():
        given[section] = given.get(section, {}) | values
    return load_settings(None, given, {})


def switch_for(gateway: Gateway) -> Switch:
    url = f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=16000&mix=mono&token={{token}}"
    return Switch(f"127.0.0.1:{gateway.control_port}", url, secret=SECRET)


class Noted:
    """A journal one can wait for."""

    def __init__(self) -> None:
        self._seen: dict[str, asyncio.Event] = {}

    def __call__(self, unique_id: str, event: str, fields: Mapping[str, object]) -> None:
        self._seen.setdefault(event, asyncio.Event()).set()

    async def until(self, event: str) -> None:
        async with asyncio.timeout(10):
            await self._seen.setdefault(event, asyncio.Event()).wait()


async def get(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def test_a_call_through_the_whole_gateway_shows_in_its_metrics() -> None:
    async def script(line: Line) -> None:
        await line.say(b"\x00\x20\x00\xe0" * 4000)
        await line.hears_speech(5)

    async with Gateway(settings()) as gateway, switch_for(gateway) as switch:
        call = await switch.place(Caller(script=script))
        await call.done()
        await gateway.desk.empty()
        status, page = await get(gateway.metrics_port, "/metrics")
        ready, _ = await get(gateway.metrics_port, "/readyz")
    assert status == 200
    assert ready == 200
    assert 'dueto_calls_total{outcome="hungup"} 1.0' in page
    assert "dueto_hangup_to_agent_seconds_count 1.0" in page


def how_many(folder: Path) -> int:
    return len(list(folder.rglob("*.jsonl")))


async def test_an_agent_that_fails_to_close_keeps_nothing_else_from_closing(tmp_path: Path) -> None:
    async def boom() -> None:
        raise RuntimeError("boom")

    async with Gateway(settings(records={"timelines": str(tmp_path)})) as gateway:
        gateway.agent = replace(gateway.agent, aclose=boom)
        gateway.desk.house.journal("a-call", "control_connected", {})
    async with asyncio.timeout(10):
        await gateway.serve_forever()
    assert how_many(tmp_path) == 1


async def test_a_full_gateway_is_not_ready() -> None:
    async def script(line: Line) -> None:
        await line.until_hangup()

    noted = Noted()
    async with Gateway(settings(control={"max_calls": 1}), journal=noted) as gateway, switch_for(gateway) as switch:
        call = await switch.place(Caller(script=script))
        await noted.until("media_connected")
        status, body = await get(gateway.metrics_port, "/readyz")
        call.hang_up()
        await call.done()
    assert (status, "full" in body) == (503, True)


async def test_drain_closes_the_doors_lets_the_call_finish_and_ends() -> None:
    hang_up = asyncio.Event()

    async def script(line: Line) -> None:
        await hang_up.wait()

    noted = Noted()
    gateway = Gateway(settings(), journal=noted)
    await gateway.start()
    async with switch_for(gateway) as switch:
        call = await switch.place(Caller(script=script))
        await noted.until("paired")
        draining = asyncio.ensure_future(gateway.drain())
        await noted.until("draining")
        status, _ = await get(gateway.metrics_port, "/readyz")
        assert status == 503
        assert not draining.done()
        hang_up.set()
        await call.done()
        await draining
    await gateway.serve_forever()
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", gateway.control_port)


async def test_a_port_that_is_taken_is_one_sentence_that_says_what_to_do() -> None:
    async with Gateway(settings()) as first:
        second = Gateway(settings(media={"listen": f"127.0.0.1:{first.media_port}"}))
        with pytest.raises(SettingsError, match=r"\[media\] listen: can't listen on .*choose another port"):
            async with second:
                pass


@pytest.mark.parametrize("listen", ["192.0.2.1:0", "no-such-host.invalid:8022"])
async def test_an_address_of_another_machine_is_not_said_to_be_in_use(listen: str) -> None:
    with pytest.raises(SettingsError, match=r"\[control\] listen: can't listen .*; write an address of this machine$"):
        async with Gateway(settings(control={"listen": listen, "allow": ["127.0.0.1/32"]})):
            pass


async def test_the_agent_of_the_settings_is_found_by_its_name() -> None:
    with pytest.raises(SettingsError, match="no callable"):
        Gateway(settings(agent={"use": "dueto.agents.echo:nobody"}))
    with pytest.raises(SettingsError, match="No module named"):
        Gateway(settings(agent={"use": "no_such_module:agent"}))
    with pytest.raises(SettingsError, match="async def"):
        Gateway(settings(agent={"use": "dueto.wire.esl:checked"}))
    async with Gateway(settings(agent={"use": "dueto.agents.echo:echo"})) as gateway:
        assert gateway.agent.name == "dueto.agents.echo:echo"


async def test_an_agent_may_be_given_as_an_object() -> None:
    seen: list[str] = []

    async def mine(call: Call) -> None:
        seen.append(call.caller_number)
        await call.hangup()

    async with Gateway(settings(agent={"use": "receptionist"}), agent=mine) as gateway, switch_for(gateway) as switch:
        call = await switch.place(Caller(number="4711"))
        await call.done()
    assert seen == ["4711"]


async def test_the_greenswitch_engine_is_one_key_away() -> None:
    pytest.importorskip("greenswitch")

    async def script(line: Line) -> None:
        await line.wait(0.1)

    async with Gateway(settings(control={"engine": "greenswitch"})) as gateway, switch_for(gateway) as switch:
        call = await switch.place(Caller(script=script))
        await call.done()
        await gateway.desk.empty()
