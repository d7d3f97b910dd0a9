"""Whether an extension could take a call: registrations and channels, as the switch lists them."""

import asyncio

import pytest
from tests.call.test_transfers import virtually
from tests.support.links import linked

from dueto.call.presence import Presence, presence
from dueto.errors import LocalProtocolError
from dueto.sim import Caller, Endpoint, Switch


@virtually
async def test_an_extension_is_idle_ringing_busy_or_held() -> None:
    endpoints = {"user/1001": Endpoint("answers", answer_after_s=2.0), "user/1002": Endpoint("answers")}
    async with Switch(control="", endpoints=endpoints) as switch, linked(switch) as link:
        assert await presence(link, "1001") == Presence("1001", True, "idle")
        assert (await presence(link, "1001")).available
        originating = asyncio.ensure_future(link.job("originate", "{origination_uuid=b}user/1001 &park()"))
        await asyncio.sleep(1.0)
        assert (await presence(link, "1001")).state == "ringing"
        await originating
        assert (await presence(link, "1001")).state == "busy"
        assert not (await presence(link, "1001")).available
        await link.api("uuid_hold", "b")
        await asyncio.sleep(0.2)
        assert (await presence(link, "1001")).state == "held"
        await link.api("uuid_kill", "b")
        assert (await presence(link, "1001")).state == "idle"


@virtually
async def test_who_calls_is_busy_and_who_is_not_registered_is_not_available() -> None:
    async with Switch(control="", answer=True) as switch, linked(switch) as link:
        await switch.place(Caller("1007"))
        await asyncio.sleep(0.2)
        assert await presence(link, "1007") == Presence("1007", False, "busy")
        assert await presence(link, "1008") == Presence("1008", False, "idle")
        assert not (await presence(link, "1008")).available


@virtually
async def test_an_extension_can_not_forge_a_command() -> None:
    async with Switch(control="") as switch, linked(switch) as link:
        for forged in ("1001\n\napi status", "1 2", "", "x" * 65, "1001@evil"):
            with pytest.raises(LocalProtocolError):
                await presence(link, forged)
