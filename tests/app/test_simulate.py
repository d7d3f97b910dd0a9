"""`dueto simulate`: what it says of a gateway is what the gateway did."""

import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.agents.echo import echo
from dueto.app.gateway import Gateway
from dueto.app.serve import Stop
from dueto.app.settings import Settings, load_settings
from dueto.app.simulate import Load, Plan, Result, Target, percentile, run_load, summary, target_of
from dueto.app.simulate_report import print_report
from dueto.call import Agent, Call
from dueto.errors import SettingsError
from dueto.sim import Caller, Faults, Switch

SECRET = "a-secret-of-the-tests"


def settings(**sections: dict[str, Any]) -> Settings:
    tree: dict[str, dict[str, Any]] = {
        "control": {"listen": "127.0.0.1:0"},
        "media": {"listen": "127.0.0.1:0", "dialect": "audio_stream-binary", "secret": SECRET},
        "metrics": {"listen": ""},
    }
    for section, keys in sections.items():
        tree[section] = {**tree.get(section, {}), **keys}
    return load_settings(None, tree, {})


@contextlib.asynccontextmanager
async def gateway(agent: Agent = echo, **sections: dict[str, Any]) -> AsyncIterator[Gateway]:
    async with Gateway(settings(**sections), agent=agent) as running:
        yield running
        await running.desk.empty()


def target(running: Gateway, **more: Any) -> Target:
    return target_of(
        running.settings,
        control=f"127.0.0.1:{running.control_port}" if running.control_port else None,
        media=f"ws://127.0.0.1:{running.media_port}",
        **more,
    )


async def listens(call: Call) -> None:
    async for _ in call.events():
        pass


async def hangs_up(call: Call) -> None:
    events = call.events()
    while not call.can("api"):  # the media leg may be the first
        await anext(events)
    await call.hangup("CALL_REJECTED")


async def test_an_echoing_gateway_is_paired_with_every_call_and_owes_no_frame() -> None:
    async with gateway() as running:
        result = await run_load(target(running), Load(calls=5, rate_per_s=50, duration_s=0.6))
    assert result.ok
    assert (result.placed, result.fates["paired"], result.finished) == (5, 5, 5)
    assert result.frames_lost == 0
    assert result.frames_echoed > 5 * 15
    assert len(result.let_go_ms) == 5


async def test_a_gateway_on_a_stock_switch_is_loaded_over_unicast() -> None:
    async with gateway(media={"dialect": "unicast", "unicast_ports": "41000-44999"}) as running:
        to = target_of(running.settings, control=f"127.0.0.1:{running.control_port}")
        result = await run_load(to, Load(calls=5, rate_per_s=50, duration_s=0.6))
        assert running.media_port == 0, "nobody dials it for a stream"
    assert result.ok
    assert result.fates["paired"] == 5
    assert result.frames_lost == 0
    assert result.frames_echoed > 5 * 15


def test_there_is_no_media_listener_to_name_with_unicast() -> None:
    given = settings(media={"dialect": "unicast"})
    with pytest.raises(SettingsError, match="--media"):
        target_of(given, media="ws://127.0.0.1:8085")
    with pytest.raises(SettingsError, match="--media-only"):
        target_of(given, media_only=True)


async def test_a_gateway_that_is_full_refuses_and_that_is_not_well() -> None:
    async with gateway(control={"max_calls": 1}) as running:
        result = await run_load(target(running), Load(calls=3, rate_per_s=1000, duration_s=0.5))
    assert not result.ok
    assert result.fates == {"paired": 1, "refused": 2}
    assert result.reasons == {"the gateway is full": 2}


async def test_a_wrong_secret_leaves_calls_with_one_leg() -> None:
    async with gateway() as running:
        wrong = target_of(
            settings(media={"secret": "not-the-gateways-secret"}),
            control=f"127.0.0.1:{running.control_port}",
            media=f"ws://127.0.0.1:{running.media_port}",
        )
        result = await run_load(wrong, Load(calls=2, rate_per_s=1000, duration_s=0.2, legs_within_s=0.1))
    assert not result.ok
    assert result.fates == {"one_leg": 2}
    assert result.reasons == {"no media leg": 2}


async def test_a_caller_whose_stream_is_late_stays_until_it_comes() -> None:
    plan = Plan(Load(calls=1, rate_per_s=1, duration_s=0.1), Stop(), control=True)
    async with gateway() as running:
        to = target(running)
        async with Switch(to.control, to.media_url, secret=to.secret) as switch:
            call = await switch.place(Caller(script=plan.script), faults=Faults(media_late_s=0.3))
            await call.done()
    assert call.paired
    assert plan.kept


async def test_a_call_that_the_gateway_ends_before_its_time_is_lost() -> None:
    async with gateway(hangs_up) as running:
        result = await run_load(target(running), Load(calls=2, rate_per_s=1000, duration_s=20))
    assert not result.ok
    assert result.fates == {"lost": 2}
    assert all(reason.startswith("ended before its time (") for reason in result.reasons)


async def test_without_an_echo_the_pairing_alone_decides() -> None:
    async with gateway(listens) as running:
        result = await run_load(target(running), Load(calls=2, rate_per_s=1000, duration_s=0.3))
    assert result.ok
    assert not result.echoed
    assert summary(result)["echo_ms"] is None
    assert summary(result)["frames"]["lost"] is None


async def test_an_agent_that_swallows_frames_is_found_out() -> None:
    async def forgetful(call: Call) -> None:
        count = 0

        def some(frame: bytes) -> None:
            nonlocal count
            count += 1
            if count % 5:
                call.write_now(frame)

        call.audio_to(some)
        await listens(call)

    async with gateway(forgetful) as running:
        result = await run_load(target(running), Load(calls=1, rate_per_s=1, duration_s=1.0))
    assert result.fates == {"paired": 1}
    assert result.frames_lost > 0
    assert not result.ok


async def test_calls_without_a_control_leg_are_whole_when_so_meant() -> None:
    async with gateway(correlation={"control": "none"}) as running:
        result = await run_load(target(running), Load(calls=2, rate_per_s=1000, duration_s=0.3))
    assert result.ok
    assert result.frames_echoed > 0


async def test_stopping_hangs_up_what_runs_and_places_no_more() -> None:
    stop = Stop()

    def after_the_third(result: Result) -> None:
        if result.placed == 3:
            stop.ask()

    async with gateway() as running:
        load = Load(calls=1000, rate_per_s=20, duration_s=3600)
        result = await run_load(target(running), load, stop=stop, report=after_the_third)
    assert result.interrupted
    assert result.placed == result.finished == 3
    assert result.fates["lost"] == 0


async def test_nobody_at_home_is_said_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and never listened on: refused
        port = taken.getsockname()[1]
        nobody = target_of(settings(), control=f"127.0.0.1:{port}", media=f"ws://127.0.0.1:{port}")
        with pytest.raises(SettingsError, match=rf"no gateway's control listener at 127\.0\.0\.1:{port} .*dueto serve"):
            await run_load(nobody, Load(1, 1, 1))


def test_the_target_follows_the_configuration() -> None:
    found = target_of(settings(control={"listen": "0.0.0.0:8022"}, media={"listen": "127.0.0.1:9", "rate_hz": 8000}))
    assert found.control == "127.0.0.1:8022"
    assert found.media_url == "ws://127.0.0.1:9/stream/{secretary}/{uuid}/{caller}?rate=8000&mix=mono&token={token}"
    assert found.rate_hz == 8000
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("media", "url"),
    [
        (
            "ws://192.0.2.1:8085",
            "ws://192.0.2.1:8085/stream/{secretary}/{uuid}/{caller}?rate=16000&mix=mono&token={token}",
        ),
        ("ws://192.0.2.1/x/{uuid}?token={token}", "ws://192.0.2.1/x/{uuid}?token={token}"),
    ],
)
def test_media_is_a_base_or_a_whole_url(media: str, url: str) -> None:
    assert target_of(settings(), media=media).media_url == url


@pytest.mark.parametrize("media", ["http://host:1", "host:8085", "ws://host:1/path/without/id"])
def test_a_media_url_that_can_not_work_is_refused(media: str) -> None:
    with pytest.raises(SettingsError, match="--media"):
        target_of(settings(), media=media)


def test_a_missing_secret_is_named_with_the_way_out() -> None:
    with pytest.raises(SettingsError, match="DUETO_MEDIA__SECRET"):
        target_of(settings(media={"secret": ""}))
    assert "token" not in target_of(settings(media={"secret": "", "token": "off"})).media_url


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_and_bounds_its_share(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert percentile(values, 1.0) == max(values)


def test_the_table_tells_bad_news(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result(placed=3)
    result.fates.update({"paired": 2, "lost": 1})
    result.reasons["ended before its time (NO_ROUTE_DESTINATION)"] += 1
    print_report(result, as_json=False)
    said = capsys.readouterr().out
    assert "2 of 3" in said
    assert "NO_ROUTE_DESTINATION" in said
    assert "Not all well" in said


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(Result(), as_json=True)
    assert json.loads(capsys.readouterr().out)["ok"] is False


async def test_two_runs_against_one_gateway_are_different_calls() -> None:
    async with gateway() as running:
        load = Load(calls=20, rate_per_s=1000, duration_s=0.3)
        results = [await run_load(target(running), load) for _ in range(3)]
    assert all(result.ok for result in results)


async def test_a_control_listener_on_ipv6_is_reached() -> None:
    async with gateway(control={"listen": "[::1]:0"}) as running:
        media = f"ws://127.0.0.1:{running.media_port}"
        where = target_of(running.settings, control=f"[::1]:{running.control_port}", media=media)
        result = await run_load(where, Load(calls=1, rate_per_s=100, duration_s=0.2))
        assert result.fates == {"paired": 1}
