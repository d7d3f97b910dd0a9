"""`[[route]]` and `[tenants.NAME]`: who gets which call, whom its caller can reach, and how many at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.app.test_gateway import settings as gateway_settings
from tests.app.test_gateway import switch_for
from tests.call.test_transfers import virtually
from tests.support.virtual import Virtual, virtual_desk

from dueto.agents.own_tools import load_tools
from dueto.agents.profiles import Kind, LoadedAgent, Surroundings, VoiceProfile
from dueto.agents.routing import pattern
from dueto.app.gateway import Gateway
from dueto.app.sections import RouteSettings
from dueto.app.settings import Settings, check_for_serving, load_settings
from dueto.app.staff import Equipment, Staff
from dueto.call import Call, CallRules
from dueto.call.events import HungUp
from dueto.errors import NotCapable, SettingsError
from dueto.sim import Caller, Faults, Line, SimCall, Switch

HERE = __name__
TOML = f"""
[agent]
use = "front"

[agents.front]
use = "{HERE}:front"

[agents.night]
use = "{HERE}:night"
max_calls = 1

[[route]]
secretary = "night*"
agent = "night"

[[route]]
caller = ["+49*", "0049*"]
dialled = "[12]000"
agent = "{HERE}:german"

[[route]]
variables = {{ department = "sales*" }}
agent = "{HERE}:sales"

[[route]]
domain = "ACME.example"
tenant = "acme"

[tenants.acme]
destinations = ["acme-sales"]
max_calls = 1
when_failed = "acme-sales"

[destinations.sales]
dial = "user/1"
words = ["sales"]
digit = "1"

[destinations.acme-sales]
dial = "user/2"
words = ["sales"]
digit = "1"
"""
SEEN: dict[str, list[Call]] = {}


def _agent(name: str) -> Any:
    async def agent(call: Call) -> None:
        SEEN.setdefault(name, []).append(call)
        async for event in call.events():
            if isinstance(event, HungUp):
                return

    return agent


front, night, german, sales = (_agent(name) for name in ("front", "night", "german", "sales"))


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    yield
    SEEN.clear()


def read(tmp_path: Path, toml: str = TOML) -> Settings:
    path = tmp_path / "dueto.toml"
    path.write_text(toml, encoding="utf-8")
    return load_settings(path, {}, {})


@asynccontextmanager
async def house(settings: Settings, **switch: Any) -> AsyncIterator[tuple[Virtual, Switch]]:
    """A desk with the whole staff of a configuration."""
    rules = CallRules(secret="a secret of the tests", when_failed=settings.agent.when_failed)
    staff = Staff(settings, rules, Equipment())
    first, router = staff.otherwise, staff.router
    async with virtual_desk(first.agent, rules=rules, destinations=first.destinations, route=router) as virtual:
        if router is not None:
            virtual.desk.house = router.settle(virtual.desk.house)
        async with virtual.switch(**switch) as sim:
            yield virtual, sim
            for session in virtual.desk:
                session.notify_session_ended("the test is over")
        await staff.aclose()


async def placed(virtual: Virtual, switch: Switch, times: int = 1, **caller: Any) -> SimCall:
    call = await switch.place(Caller(**caller))
    await virtual.until_noted("routed", times=times)
    await asyncio.sleep(0)
    return call


def routed(virtual: Virtual) -> dict[str, object]:
    return [dict(fields) for _, name, fields in virtual.journal if name == "routed"][-1]


@pytest.mark.parametrize(
    ("caller", "agent", "route"),
    [
        ({}, "front", 0),
        ({"secretary": "nightshift"}, "night", 1),
        ({"number": "+4930123", "destination": "2000"}, "german", 2),
        ({"number": "+4930123", "destination": "3000"}, "front", 0),
        ({"number": "30123", "destination": "2000"}, "front", 0),
        ({"variables": (("department", "sales-emea"),)}, "sales", 3),
        ({"variables": (("domain_name", "acme.example"),)}, "front", 4),
        ({"variables": (("sip_req_host", "acme.example"),)}, "front", 4),
        ({"variables": (("domain_name", "other"), ("sip_req_host", "acme.example"))}, "front", 0),
    ],
)
def test_the_first_route_that_matches_counts(tmp_path: Path, caller: dict[str, Any], agent: str, route: int) -> None:
    @virtually
    async def run() -> None:
        async with house(read(tmp_path)) as (virtual, switch):
            await placed(virtual, switch, **caller)
            assert list(SEEN) == [agent]
            assert routed(virtual)["route"] == route
            assert virtual.names().index("routed") < virtual.names().index("agent_started")

    run()


@virtually
async def test_each_agent_has_its_own_keys_or_those_of_all(tmp_path: Path) -> None:
    hangs_up = '[agents.night.dtmf]\n"7" = "hangup"\n\n[dtmf]\n"9" = "hangup"\n'

    async def presses(line: Line) -> None:
        await line.wait(1.0)
        await line.press("7")
        await line.wait(1.0)
        await line.press("9")
        await line.until_hangup()

    async with house(read(tmp_path, TOML + hangs_up)) as (virtual, switch):
        for agent, pressed in (("night", ["7"]), ("front", ["7", "9"])):
            call = await switch.place(Caller(secretary=agent, script=presses))
            await call.done()
            assert call.hangup_cause == "NORMAL_CLEARING"
            noted = [(name, fields) for uid, name, fields in virtual.journal if uid == call.unique_id]
            assert [fields["deed"] for name, fields in noted if name == "key"] == ["hangup"]
            assert [fields["digit"] for name, fields in noted if name == "dtmf"] == pressed


@virtually
async def test_media_first_waits_for_what_only_the_switch_knows(tmp_path: Path) -> None:
    late = Faults(control_late_s=1.0)
    async with house(read(tmp_path), faults=late) as (virtual, switch):
        began = asyncio.get_running_loop().time()
        await placed(virtual, switch, number="+4930", destination="1000")
        assert list(SEEN) == ["german"]
        assert 0.5 < asyncio.get_running_loop().time() - began < 2.0


@virtually
async def test_media_first_waits_for_nothing_where_the_stream_says_it_all(tmp_path: Path) -> None:
    late = Faults(control_late_s=1.0)
    async with house(read(tmp_path), faults=late) as (virtual, switch):
        began = asyncio.get_running_loop().time()
        await placed(virtual, switch, secretary="night")
        assert list(SEEN) == ["night"]
        assert asyncio.get_running_loop().time() - began < 0.5


@virtually
async def test_a_tenants_callers_reach_its_destinations_and_no_others(tmp_path: Path) -> None:
    async with house(read(tmp_path)) as (virtual, switch):
        await placed(virtual, switch, variables=(("domain_name", "acme.example"),))
        theirs = SEEN["front"][0]
        assert list(theirs.destinations) == ["acme-sales"]
        with pytest.raises(NotCapable, match="no destination 'sales'"):
            await theirs.transfer("sales")
        await placed(virtual, switch, times=2)
        assert list(SEEN["front"][1].destinations) == ["sales"], "and nobody else reaches theirs"
        assert theirs._session.house.rules.when_failed == "acme-sales"
        assert SEEN["front"][1]._session.house.rules.when_failed == "return_to_dialplan"


@virtually
async def test_a_tenant_has_its_own_number_of_calls(tmp_path: Path) -> None:
    acme = (("domain_name", "acme.example"),)
    async with house(read(tmp_path)) as (virtual, switch):
        one = await placed(virtual, switch, variables=acme)
        two = await placed(virtual, switch, times=2, variables=acme)
        await two.over()
        assert two.channel.variables["dueto_result"] == "full"
        await placed(virtual, switch, times=3)
        assert len(SEEN["front"]) == 2, "the calls of others are not counted"
        one.hang_up()
        await one.over()
        await virtual.until_noted("call_ended", times=2)
        await placed(virtual, switch, times=4, variables=acme)
        assert len(SEEN["front"]) == 3


@virtually
async def test_an_agents_limit_is_for_all_its_routes(tmp_path: Path) -> None:
    toml = TOML.replace('domain = "ACME.example"', 'domain = "ACME.example"\nagent = "night"')
    async with house(read(tmp_path, toml)) as (virtual, switch):
        await placed(virtual, switch, secretary="night")
        two = await placed(virtual, switch, times=2, variables=(("domain_name", "acme.example"),))
        await two.over()
        assert two.channel.variables["dueto_result"] == "full"
        assert len(SEEN["night"]) == 1


class TakerProfile(VoiceProfile):
    """The keys of an agent that takes a message from whoever calls."""


def _build(profile: TakerProfile, around: Surroundings) -> LoadedAgent:
    box = load_tools(["take_message"], agent=around.name, keep=around.keep_message)

    async def heard() -> bool:
        return True

    async def take(call: Call) -> None:
        await box.run(call, "take_message", '{"message": "Call me back."}', heard)

    return LoadedAgent(around.name, take)


TAKER = Kind(TakerProfile, _build)


def tenants_in(path: Path) -> list[str]:
    return [json.loads(line)["tenant"] for line in path.read_text().splitlines()]


async def test_a_tenants_messages_go_to_its_own_file(tmp_path: Path) -> None:
    taker = {"use": f"{HERE}:TAKER", "greeting": ""}
    given = gateway_settings(
        agent={"use": "taker"},
        agents={"taker": taker},
        records={"messages": str(tmp_path / "all.jsonl")},
        tenants={"acme": {"messages": str(tmp_path / "acme.jsonl")}, "bakery": {}},
    )
    routes = [{"secretary": name, "tenant": name} for name in ("acme", "bakery")]
    given = given.model_copy(update={"route": tuple(RouteSettings.model_validate(route) for route in routes)})
    async with Gateway(given) as gateway, switch_for(gateway) as switch:
        for secretary in ("acme", "bakery", "nobody"):
            await (await switch.place(Caller(secretary=secretary))).over()
    assert tenants_in(tmp_path / "acme.jsonl") == ["acme"]
    assert tenants_in(tmp_path / "all.jsonl") == ["bakery", ""]


def test_who_brings_no_voice_speaks_with_the_gateways(tmp_path: Path) -> None:
    class Mouth:
        async def speak(self, text: str, rate_hz: int) -> bytes:
            return b""

    given, spare = Mouth(), Mouth()
    settings = read(tmp_path, "agent.use = 'echo'\n")
    assert Staff(settings, CallRules(), Equipment(spare_mouth=lambda: spare)).otherwise.mouth is spare
    assert Staff(settings, CallRules(), Equipment(mouth=given, spare_mouth=lambda: spare)).otherwise.mouth is given
    assert Staff(settings, CallRules(), Equipment(spare_mouth=lambda: spare), agent=front).otherwise.mouth is spare


async def test_the_gateway_routes_calls_on_real_sockets() -> None:
    routes = [{"dialled": "20??", "agent": f"{HERE}:german"}, {"secretary": "night", "agent": f"{HERE}:night"}]
    noted: list[tuple[str, dict[str, object]]] = []

    def journal(unique_id: str, event: str, fields: Mapping[str, object]) -> None:
        noted.append((event, dict(fields)))

    async def script(line: Line) -> None:
        await line.wait(0.2)

    given = gateway_settings(agent={"use": f"{HERE}:front"})
    given = given.model_copy(update={"route": tuple(RouteSettings.model_validate(route) for route in routes)})
    async with Gateway(given, journal=journal) as gateway, switch_for(gateway) as switch:
        for caller in (Caller(script=script, destination="2001"), Caller(script=script, secretary="night")):
            await (await switch.place(caller)).over()
        await (await switch.place(Caller(script=script))).over()
    assert [fields["route"] for event, fields in noted if event == "routed"] == [1, 2, 0]
    names = [fields["name"] for event, fields in noted if event == "agent_started"]
    assert names == [f"{HERE}:{name}" for name in ("german", "night", "front")]
    assert sorted(SEEN) == ["front", "german", "night"]


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[[route]]\ndialed = '1'\nagent = 'echo'\n", "[[route]] 1, dialed: no such key; did you mean dialled?"),
        ("[[route]]\ndialled = 1\nagent = 'echo'\n", "[[route]] 1, dialled: expected a list ([...]), not 1"),
        ("[[route]]\ndialled = '1'\n", "[[route]] 1: expected an agent, or a tenant, or both"),
        ("[[route]]\nagent = 'ecko'\n", '[[route]] 1, agent: expected "'),
        ("[[route]]\nagent = 'ecko'\n", 'not "ecko"; did you mean "echo"?'),
        (
            "[[route]]\nagent = 'echo'\n[[route]]\ntenant = 'acme'\n",
            '[[route]] 2, tenant: there is no tenant "acme"; write',
        ),
        ("[[route]]\ntenant = 'acne'\n[tenants.acme]\n", 'there is no tenant "acne"; did you mean "acme"?'),
        ("[[route]]\nagent = 'echo'\nvariables = { 'a b' = 'x' }\n", "expected names of channel variables"),
        ("route = 5\n", "[route]: expected [[route]], in two pairs of brackets"),
        ("[tenants.acme]\ndestinations = ['sals']\n[destinations.sales]\ndial = 'x'\n", 'did you mean "sales"?'),
        ("[tenants.acme]\nmax_cals = 3\n", "[tenants.acme] max_cals: no such key; did you mean max_calls?"),
        ("[tenants.acme]\nwhen_failed = 'hang'\n", "[tenants.acme] when_failed: expected"),
        (
            "[tenants.acme]\ndestinations = ['a', 'b']\n[destinations.a]\ndial = 'x'\nwords = ['sales']\n"
            "[destinations.b]\ndial = 'y'\nwords = ['sales']\n",
            '[tenants.acme] [destinations.b] words: "sales" is one of a already',
        ),
        (
            "[tenants.acme]\ndestinations = ['a']\n[destinations.a]\ndial = 'x'\nwhen = 'sat 10:00-12:00'\n"
            "fallback = 'b'\n[destinations.b]\ndial = 'y'\n",
            '[tenants.acme] destinations: "b", the fall-back of a, is missing',
        ),
        (
            "[[route]]\nagent = 'a'\ntenant = 'acme'\n[agents.a]\nuse = 'echo'\nfallbacks = ['op']\n"
            "[tenants.acme]\ndestinations = ['x']\n[destinations.op]\ndial = 'y'\n[destinations.x]\ndial = 'z'\n",
            '[[route]] 1: "op", a fall-back of the agent, is no destination of tenant acme',
        ),
    ],
)
def test_a_mistake_in_a_route_or_tenant_is_named_with_its_place(tmp_path: Path, toml: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, toml)
    assert sentence in str(caught.value)


def test_a_receptionist_without_anybody_to_transfer_a_tenants_callers_to_is_told_at_start(tmp_path: Path) -> None:
    toml = (
        "media.secret = '0123456789abcdef'\nagent.use = 'echo'\n[[route]]\nagent = 'receptionist'\ntenant = 'acme'\n"
        "[tenants.acme]\n[tenants.other]\ndestinations = ['a']\n[destinations.a]\ndial = 'user/1'\n"
    )
    with pytest.raises(SettingsError, match="nobody to transfer the callers of tenant acme to"):
        check_for_serving(read(tmp_path, toml))


def test_a_pattern_is_of_the_whole_text() -> None:
    wanted = pattern(["100?", "+49*", "[ab]x"])
    assert wanted is not None
    assert all(wanted.match(text) for text in ("1001", "+49", "+4930", "AX", "bx"))
    assert not any(wanted.match(text) for text in ("100", "10011", "049", "cx", "", "xx1001", "1001\nx"))
    assert pattern([]) is None
    assert pattern([""]) is not None
