"""Several processes behind one control socket: real processes, real sockets, a simulated switch that dials them."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Counter as Prometheus
from prometheus_client import Gauge, Histogram, Info
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry
from tests.agents.fakes.media_streams_bot import bot
from tests.agents.test_media_streams import stays
from tests.app.test_gateway import get
from tests.support.ports import free_ports

from dueto.agents.media_streams import call_sid
from dueto.app.settings import check_for_serving, load_settings
from dueto.app.workers.checks import check_for_workers, with_port
from dueto.app.workers.merging import Merged
from dueto.app.workers.pipe import pass_on, take
from dueto.app.workers.worker import Post, settings_of
from dueto.errors import Refused, SettingsError
from dueto.legs.handover import mark_of
from dueto.sim import Caller, Faults, Line, Switch, tone

pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("patient_switch")]

PATIENCE_S = 90.0
Entry = dict[str, Any]


class Serving:
    """A `dueto serve --workers N`, and all that it logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[Entry] = []
        self._more = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for text in self.process.stdout:
            async with self._more:
                self.lines.append(json.loads(text))
                self._more.notify_all()
        async with self._more:
            self._more.notify_all()

    def found(self, event: str, **fields: Any) -> list[Entry]:
        return [
            line for line in self.lines if line["event"] == event and all(line.get(k) == v for k, v in fields.items())
        ]

    async def says(self, event: str, *, times: int = 1, **fields: Any) -> Entry:
        """Wait for the so-maniest line of that name."""
        async with asyncio.timeout(PATIENCE_S), self._more:
            await self._more.wait_for(lambda: len(self.found(event, **fields)) >= times)
        return self.found(event, **fields)[times - 1]

    @property
    def control(self) -> str:
        return f"127.0.0.1:{self.found('ready')[0]['control']}"

    def switch(self, **more: Any) -> Switch:
        return Switch(self.control, "", start="gateway", **more)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path,
    workers: int = 2,
    *,
    dialect: str = "audio_stream-binary",
    agent: str = 'use = "echo"',
    more: str = "",
) -> AsyncIterator[Serving]:
    media = free_ports(2 * workers)
    config = tmp_path / "dueto.toml"
    config.write_text(
        f"""
        [control]
        listen = "127.0.0.1:0"
        [media]
        listen = "127.0.0.1:{media}"
        public_url = "ws://127.0.0.1:{media}"
        start = "gateway"
        dialect = "{dialect}"
        [call]
        drain_s = 0.5
        [agent]
        {agent}
        [metrics]
        listen = "127.0.0.1:0"
        {more}
        """
    )
    command = (sys.executable, "-m", "dueto", "serve", "--config", str(config), "--workers", str(workers))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    running = Serving(process)
    try:
        await running.says("ready", workers=workers)
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await running.ended()
            finally:
                if process.returncode is None:
                    process.kill()
        await running._reading
    assert not running.found("task_failed"), running.found("task_failed")


async def hears_himself(line: Line) -> None:
    """Speak until the echo is heard: there is none of what is said before the stream is there."""
    async with asyncio.TaskGroup() as tasks:
        heard = tasks.create_task(line.hears_speech(PATIENCE_S))
        while not heard.done():
            await line.say(tone(8000, 0.3, 500.0))
            await asyncio.wait((heard,), timeout=0.1)


class Staying:
    """A caller who stays, and can be asked whether he still hears himself."""

    def __init__(self) -> None:
        self._lines: asyncio.Future[Line] = asyncio.get_running_loop().create_future()

    async def __call__(self, line: Line) -> None:
        await hears_himself(line)
        self._lines.set_result(line)
        await line.until_hangup(200)

    async def hears_himself(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await hears_himself(await self._lines)


async def test_calls_are_spread_and_heard_and_their_metrics_are_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as here, here.switch() as switch:
        callers = [Staying() for _ in range(6)]
        calls = [await switch.place(Caller(script=caller)) for caller in callers]
        for caller in callers:
            await caller.hears_himself()
        workers = Counter(line["worker"] for line in here.found("paired"))
        assert workers == {"w1": 3, "w2": 3}
        for call in calls:
            call.hang_up()
            await call.done()
        await here.says("call_ended", times=6)
        _, text = await get(here.found("ready", workers=2)[0]["metrics"], "/metrics")
        values = {
            (sample.name, sample.labels.get("outcome", sample.labels.get("state"))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert sum(value for (name, _), value in values.items() if name == "dueto_calls_total") == 6
        assert values["dueto_workers", "serving"] == 2
        assert (await get(here.found("ready", workers=2)[0]["metrics"], "/readyz"))[0] == 200


async def test_all_workers_are_replaced_and_no_call_is_lost(tmp_path: Path) -> None:
    async with serving(tmp_path) as here, here.switch() as switch:
        before = [Staying() for _ in range(4)]
        calls = [await switch.place(Caller(script=caller)) for caller in before]
        for caller in before:
            await caller.hears_himself()
        here.process.send_signal(signal.SIGHUP)
        await here.says("workers_replaced")
        after = Staying()
        calls.append(await switch.place(Caller(script=after)))
        for caller in (*before, after):
            await caller.hears_himself()
        assert [call.hangup_cause for call in calls] == [""] * 5
        assert here.found("paired")[-1]["worker"] in ("w3", "w4")
        for call in calls:
            call.hang_up()
            await call.done()
        await here.says("worker_ended", worker="w1")
        await here.says("worker_ended", worker="w2")
        assert not here.found("worker_died")


async def test_a_worker_that_dies_is_replaced_and_its_callers_go_on_in_the_dialplan(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as here,
        here.switch(dialplan=[("set", "dueto_state=fallback"), ("park", "")]) as switch,
    ):
        first, second = Staying(), Staying()
        calls = [await switch.place(Caller(script=caller)) for caller in (first, second)]
        await first.hears_himself()
        await second.hears_himself()
        lost = here.found("paired", worker="w1")[0]["call"]
        os.kill(here.found("worker_ready", worker="w1")[0]["pid"], signal.SIGKILL)
        await here.says("worker_died", worker="w1")
        await here.says("worker_ready", worker="w3")
        (survivor,) = [caller for call, caller in zip(calls, (first, second), strict=True) if call.unique_id != lost]
        await survivor.hears_himself()
        (fallen,) = [call for call in calls if call.unique_id == lost]
        third = Staying()
        calls.append(await switch.place(Caller(script=third)))
        await third.hears_himself()
        assert fallen.ended_in == "park"
        for call in calls:
            call.hang_up()
            await call.done()


async def test_a_channel_that_dials_again_meets_the_worker_that_has_its_call(tmp_path: Path) -> None:
    async with serving(tmp_path) as here, here.switch(faults=Faults(control_twice_after_s=0.5)) as switch:
        callers = [Staying() for _ in range(3)]
        calls = [await switch.place(Caller(script=caller)) for caller in callers]
        for caller, call in zip(callers, calls, strict=True):
            again = await here.says("control_connected", call=call.unique_id, times=2)
            assert again["worker"] == here.found("control_connected", call=call.unique_id)[0]["worker"]
            await caller.hears_himself()
            call.hang_up()
            await call.done()
        assert len(here.found("agent_started")) == 3


async def test_a_call_with_no_module_comes_back_to_its_worker(tmp_path: Path) -> None:
    async with serving(tmp_path, dialect="unicast") as here, here.switch() as switch:
        callers = [Staying() for _ in range(3)]
        calls = [await switch.place(Caller(script=caller)) for caller in callers]
        for caller, call in zip(callers, calls, strict=True):
            await caller.hears_himself()
            socket_again = f"uuid_transfer {call.unique_id} 'socket:{here.control} async full' inline"
            call.channel.core.run_api(call.channel, socket_again)
        for caller, call in zip(callers, calls, strict=True):
            first = here.found("media_connected", call=call.unique_id)[0]
            again = await here.says("media_connected", call=call.unique_id, times=2)
            assert again["worker"] == first["worker"]
            await caller.hears_himself()
            call.hang_up()
            await call.done()
        assert len(here.found("agent_started")) == 3
        assert {line["worker"] for line in here.found("agent_started")} == {"w1", "w2"}


async def test_a_bot_ends_its_calls_at_one_address_whichever_worker_has_them(tmp_path: Path) -> None:
    sid, token = "AC" + "a1" * 16, "a token of these tests"
    async with bot() as there:
        more = f"""
        [agents.bot]
        use = "media_streams"
        url = "{there.url}"
        [twilio]
        account_sid = "{sid}"
        auth_token = "{token}"
        listen = "127.0.0.1:0"
        """
        async with serving(tmp_path, agent='use = "bot"', more=more) as here, here.switch() as switch:
            calls = [await switch.place(Caller(script=stays)) for _ in range(2)]
            for _ in calls:
                await there.talk()
            await here.says("agent_started", times=2)
            assert {line["worker"] for line in here.found("agent_started")} == {"w1", "w2"}
            rest = f"http://127.0.0.1:{here.found('ready', workers=2)[0]['twilio']}/2010-04-01/Accounts/{sid}/Calls"
            async with httpx.AsyncClient(auth=(sid, token), trust_env=False) as client:
                for call in calls:
                    its = f"{rest}/{call_sid(call.unique_id)}.json"
                    assert (await client.get(its)).json()["status"] == "in-progress"
                    assert (await client.post(its, data={"Status": "completed"})).status_code == 200
                    await call.done()
                    assert call.hangup_cause == "NORMAL_CLEARING"
                assert (await client.get(f"{rest}/CA{'0' * 32}.json")).status_code == 404
                assert (await client.get(its, auth=(sid, "another"))).status_code == 401
                refused = await client.post(f"{rest}.json", data={"To": "+4930", "From": "1", "Twiml": "<Response/>"})
                assert "[switch]" in refused.json()["message"], "one of them has said so"


async def test_sigterm_drains_the_workers_and_gives_the_rest_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as here, here.switch(dialplan=[("park", "")]) as switch:
        caller = Staying()
        call = await switch.place(Caller(script=caller))
        await caller.hears_himself()
        here.process.send_signal(signal.SIGTERM)
        assert await here.ended() == 0
        assert call.ended_in == "park"
        assert call.channel.variables["dueto_result"] == "draining"
        call.hang_up()
        await call.done()


async def test_what_can_not_be_shared_is_said_before_anything_starts(tmp_path: Path) -> None:
    def complaint(toml: str, count: int = 2) -> str:
        path = tmp_path / "dueto.toml"
        path.write_text(toml)
        with pytest.raises(SettingsError) as caught:
            check_for_workers(load_settings(path, {}, {}), count)
        return str(caught.value)

    assert 'start = "gateway"' in complaint("[media]\nstart = 'dialplan'")
    assert "needs a port" in complaint("[media]\nstart = 'gateway'\npublic_url = 'wss://voice.example'")
    assert "native" in complaint("[control]\nengine = 'greenswitch'")
    assert "at least 1" in complaint("", 0)
    assert "need 8000 of them" in complaint("[media]\ndialect = 'unicast'\n[control]\nmax_calls = 2000")


async def test_a_worker_has_its_own_port_and_its_share_of_the_calls(tmp_path: Path) -> None:
    path = tmp_path / "dueto.toml"
    path.write_text(
        "[media]\nlisten = '127.0.0.1:9000'\npublic_url = 'ws://gw.example:80/audio'\n[control]\nmax_calls = 5\n"
        "[agents.a]\nuse = 'echo'\nmax_calls = 3\n[agents.b]\nuse = 'echo'\n[tenants.t]\nmax_calls = 4"
    )
    own = settings_of(load_settings(path, {}, {}), Post("w4", 3, 2, 0, 0, False))
    assert (own.media.listen, own.media.public_url) == ("127.0.0.1:9003", "ws://gw.example:83/audio")
    assert own.control.max_calls == 3
    assert [own.agents[name].max_calls for name in "ab"] == [2, 0]
    assert own.tenants["t"].max_calls == 2
    assert own.metrics.listen_address is None
    assert Post.parse(str(Post("w4", 3, 2, 7, 8, True))) == Post("w4", 3, 2, 7, 8, True)
    with pytest.raises(ValueError, match="no port"):
        with_port("wss://gw.example", 1)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_no_two_workers_share_a_port_of_unicast(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "dueto.toml"
    path.write_text("[media]\ndialect = 'unicast'\n[agent]\nuse = 'echo'")
    whole = load_settings(path, {}, {})
    check_for_workers(whole, workers)
    taken: set[int] = set()
    for slot in range(2 * workers):  # the old ones and the new ones of a rolling restart
        own = settings_of(whole, Post("w", slot, workers, 0, 0, False))
        check_for_serving(own)
        first, last = own.media.unicast_range
        ports = set(range(first, last + 1))
        assert not ports & taken
        taken |= ports
    assert min(taken) == 10000
    assert max(taken) <= 15999


# -- the parts


async def answering(answer: Callable[[socket.socket], None]) -> str:
    """What `mark_of` makes of a switch that behaves like `answer`."""
    ours, switch = socket.socketpair()
    with ours, switch:
        ours.setblocking(False)
        answer(switch)
        mark = await mark_of(ours, "dueto_worker")
        assert ours.recv(1 << 20).startswith(b"Event-Name"), "everything is still there to be read"
    return mark


BLOCK = b"Event-Name: CHANNEL_DATA\nCaller-Caller-ID-Name: x%%0Avariable_dueto_worker: w9\n%sReply-Text: %%2BOK%%0A\n\n"


@pytest.mark.parametrize(("line", "mark"), [(b"variable_dueto_worker: w3\n", "w3"), (b"", "")])
async def test_the_mark_is_read_and_nothing_is_taken_and_a_caller_can_not_forge_it(line: bytes, mark: str) -> None:
    assert await answering(lambda switch: switch.sendall(BLOCK % line)) == mark


async def test_an_answer_that_comes_in_pieces_is_waited_for() -> None:
    whole = BLOCK % b"variable_dueto_worker: w3\n"

    def in_pieces(switch: socket.socket) -> None:
        switch.sendall(whole[:50])
        asyncio.get_running_loop().call_later(0.02, switch.sendall, whole[50:])

    assert await answering(in_pieces) == "w3"


async def test_a_peer_that_leaves_instead_of_answering_is_refused() -> None:
    with pytest.raises(Refused):
        await answering(lambda switch: switch.shutdown(socket.SHUT_RDWR))


def test_a_connection_passes_from_one_process_to_another_whole() -> None:
    parent, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with parent, worker:
        worker.setblocking(False)
        assert take(worker) is None
        ours, theirs = socket.socketpair()
        with theirs:
            with ours:
                pass_on(parent, ours)
            taken = take(worker)
            assert taken is not None
            with taken:
                theirs.sendall(b"hello")
                assert taken.recv(5) == b"hello"
        parent.close()
        with pytest.raises(EOFError):
            take(worker)


def test_counts_are_added_and_outlive_their_worker_and_gauges_do_not() -> None:
    def report(calls: int, now: int) -> str:
        registry = CollectorRegistry()
        Prometheus("dueto_calls", "Calls.", ["outcome"], registry=registry).labels("hungup").inc(calls)
        Gauge("dueto_now", "Now.", registry=registry).set(now)
        Info("dueto_build", "Build.", registry=registry).info({"version": "1"})
        histogram = Histogram("dueto_s", "S.", buckets=(1.0,), registry=registry)
        for took_s in range(calls):
            histogram.observe(took_s)
        return generate_latest(registry).decode()

    merged = Merged()
    registry = CollectorRegistry()
    registry.register(merged)
    merged.report("w1", report(calls=3, now=2))
    merged.report("w2", report(calls=4, now=5))
    merged.report("w2", report(calls=5, now=1))
    merged.ended("w1")
    merged.report("w3", report(calls=1, now=1))
    said = generate_latest(registry).decode()
    assert 'dueto_calls_total{outcome="hungup"} 9.0' in said
    assert "dueto_now 2.0" in said
    assert 'dueto_s_bucket{le="1.0"} 5.0' in said
    assert 'dueto_s_bucket{le="+Inf"} 9.0' in said
    assert "dueto_s_sum 13.0" in said
    assert 'dueto_build_info{version="1"} 1.0' in said
