"""A bot written for Twilio on a call of our own switch: the whole gateway, both legs, real sockets."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np
import pytest
from tests.agents.fakes.media_streams_bot import Talk, bot, listens
from tests.support.noted import Noted

from dueto.agents.media_streams import Account, call_sid
from dueto.app.addresses import Address
from dueto.app.gateway import Gateway
from dueto.app.http import Answer, HttpServer, Request
from dueto.app.settings import load_settings
from dueto.audio import ulaw_encode
from dueto.errors import SettingsError
from dueto.sim import Caller, Endpoint, Line, SimCall, Switch, tone

pytestmark = pytest.mark.at_once

SECRET = "0123456789abcdef0123456789abcdef"
TOKEN = "an auth token of the tests"
SID = "AC" + "c3" * 16
DESTINATIONS = {"sales": {"dial": "user/1002"}, "nobody": {"dial": "user/1003"}}
ENDPOINTS = {
    "user/1002": Endpoint(hangs_up_after_s=0.2),
    "user/1003": Endpoint("busy"),
    "user/+493055": Endpoint(hangs_up_after_s=0.2),
}


@dataclass
class House:
    """A gateway with a bot, and a switch that dials it."""

    gateway: Gateway
    switch: Switch
    noted: Noted

    async def rest(self, call: SimCall, **form: str) -> int:
        """What the bot's REST client would do; its answer's status."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.twilio_port)
        path = f"/2010-04-01/Accounts/{SID}/Calls/{call_sid(call.unique_id)}.json"
        body = urlencode(form)
        basic = base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()
        head = f"POST {path} HTTP/1.1\r\nAuthorization: Basic {basic}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer.split()[1])


def switch_for(gateway: Gateway) -> Switch:
    """A switch that dials it."""
    url = f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=16000&mix=mono&token={{token}}"
    return Switch(f"127.0.0.1:{gateway.control_port}", url, secret=SECRET, endpoints=ENDPOINTS, event_tick_s=0)


@contextlib.asynccontextmanager
async def house(profile: dict[str, Any], **sections: Any) -> AsyncIterator[House]:
    given = {
        "control": {"listen": "127.0.0.1:0"},
        "media": {"listen": "127.0.0.1:0", "secret": SECRET, "dialect": "audio_stream-binary"},
        "metrics": {"listen": ""},
        "agent": {"use": "bot"},
        "agents": {"bot": {"use": "media_streams"} | profile},
        "twilio": {"listen": "127.0.0.1:0", "account_sid": SID, "auth_token": TOKEN},
        "destinations": DESTINATIONS,
    }
    for section, values in sections.items():
        given[section] = given.get(section, {}) | values
    noted = Noted()
    async with Gateway(load_settings(None, given, {}), journal=noted) as gateway:
        async with switch_for(gateway) as switch:
            yield House(gateway, switch, noted)
        assert len(gateway.exchange) == 0
    assert "task_failed" not in [name for name, _ in noted.entries]


async def connected(line: Line) -> None:
    await line.bridged()


async def hears_himself(line: Line) -> None:
    await line.say(tone(8000, 0.3, 700.0))
    await line.say(tone(8000, 0.3, 700.0))
    await line.hears_speech()


async def stays(line: Line) -> None:
    await line.until_hangup()


def sound(seconds: float, hz: float = 440.0) -> bytes:
    return ulaw_encode(tone(8000, seconds, hz))


def heard_ms(call: SimCall) -> int:
    heard = np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50)
    return int((np.abs(heard).max(axis=1) > 500).sum()) * 20


async def test_a_whole_conversation_with_a_bot() -> None:
    async def talks(talk: Talk) -> None:
        talk.say(sound(0.4))
        talk.mark("greeting")
        await talk.until(lambda: talk.names() == ["greeting"])
        await talk.until(lambda: talk.digits == "7")
        talk.say(sound(0.3))
        talk.close()

    async def caller(line: Line) -> None:
        await line.hears_speech()
        await line.hears_silence(100)
        await line.say(tone(8000, 0.4, 700.0))
        await line.press("7")
        await line.until_hangup()

    async with bot(talks) as there:
        profile = {"url": there.url, "parameters": {"from_number": "{caller_number}", "static": "x"}}
        async with house(profile) as here:
            call = await here.switch.place(Caller(number="4711", script=caller))
            await call.done()
            talk = await there.talk()
            await talk.until(lambda: talk.closed is not None)
    assert talk.start["callSid"] == call_sid(call.unique_id)
    assert talk.start["accountSid"] == SID
    assert talk.start["customParameters"] == {"from_number": "4711", "static": "x"}
    assert talk.headers["x-twilio-signature"] == Account(SID, TOKEN).sign(there.url)["X-Twilio-Signature"]
    assert heard_ms(call) == pytest.approx(700, abs=80)
    assert len(talk.audio) > 8000
    assert call.hangup_cause == "NORMAL_CLEARING"


async def test_the_hangup_of_the_caller_reaches_the_bot_at_once() -> None:
    async def caller(line: Line) -> None:
        await line.hears_speech()

    async def talks(talk: Talk) -> None:
        talk.say(sound(30.0))

    async with bot(talks) as there, house({"url": there.url}) as here:
        call = await here.switch.place(Caller(script=caller))
        await call.done()
        talk = await there.talk()
        await talk.until(lambda: talk.closed is not None)
        assert talk.stopped
        assert talk.closed == 1000


@pytest.mark.parametrize("how", ["refuses", "no such port", "breaks off"])
async def test_a_bot_that_fails_leaves_the_caller_to_who_comes_next(how: str) -> None:
    async def breaks_off(talk: Talk) -> None:
        talk.abort()

    async with bot(breaks_off if how == "breaks off" else listens) as there:
        there.refuses = 403 if how == "refuses" else 0
        url = "ws://127.0.0.1:1/ws" if how == "no such port" else there.url
        async with house({"url": url, "fallbacks": ["person"]}, agents={"person": {"use": "echo"}}) as here:
            call = await here.switch.place(Caller(script=hears_himself))
            await call.done()
    told = [
        fields for name, fields in here.noted.entries if "ProviderFailed" in str(fields) or "the bot" in str(fields)
    ]
    assert told
    assert TOKEN not in str(told)


# -- the REST side


async def test_completed_over_rest_ends_the_call() -> None:
    async with bot() as there, house({"url": there.url}) as here:
        call = await here.switch.place(Caller(script=stays))
        talk = await there.talk()
        await talk.until(lambda: bool(talk.audio))
        assert await here.rest(call, Status="completed") == 200
        await call.done()
        await talk.until(lambda: talk.stopped)
        assert await here.rest(call, Status="completed") == 200, "it is over, as was wanted"
        assert await here.rest(call, Twiml="<Response/>") == 400
    assert call.hangup_cause == "NORMAL_CLEARING"


async def test_a_redirect_cuts_the_bot_and_connects_the_caller() -> None:
    async def talks(talk: Talk) -> None:
        talk.say(sound(20.0))

    async with bot(talks) as there, house({"url": there.url}) as here:
        call = await here.switch.place(Caller(script=stays))
        talk = await there.talk()
        await talk.until(lambda: bool(talk.audio))
        assert await here.rest(call, Twiml="<Response><Dial>Sales</Dial></Response>") == 200
        assert (await here.noted.until("transfer"))["outcome"] == "bridged"
        await talk.until(lambda: talk.closed is not None)
        await call.done()  # sales hangs up, and nothing comes after it
    assert talk.stopped
    assert heard_ms(call) < 15_000
    assert call.bridged_to


async def test_only_destinations_and_allowed_numbers_are_dialled() -> None:
    policy = {"allow": ["+4930*"], "dial": "user/{number}"}
    async with bot() as there, house({"url": there.url}, twilio=policy) as here:
        call = await here.switch.place(Caller(script=stays))
        talk = await there.talk()
        await talk.until(lambda: bool(talk.audio))
        for refused in ("+4940123", "user/1002", "sales,user/1", "&amp;"):
            assert await here.rest(call, Twiml=f"<Response><Dial>{refused}</Dial></Response>") == 400
        assert await here.rest(call, Twiml="<Response><Dial><Client>1002</Client></Dial></Response>") == 400
        assert not talk.stopped
        assert await here.rest(call, Twiml="<Response><Dial>+49 30 55</Dial></Response>") == 200
        assert (await here.noted.until("transfer"))["outcome"] == "bridged"
        await call.done()
    assert call.bridged_to


async def test_after_a_dial_that_failed_the_next_verb_is_carried_out() -> None:
    async def talks(talk: Talk) -> None:
        talk.say(sound(0.3))

    async with bot(talks) as there, house({"url": there.url}) as here:
        call = await here.switch.place(Caller(script=stays))
        first = await there.talk()
        await first.until(lambda: bool(first.audio))
        twiml = f'<Response><Dial>nobody</Dial><Connect><Stream url="{there.url}"/></Connect></Response>'
        assert await here.rest(call, Twiml=twiml) == 200
        second = await there.talk(1)
        await second.until(lambda: bool(second.audio))
        assert second.sid != first.sid
        assert second.start["callSid"] == first.start["callSid"]
        assert await here.rest(call, Status="completed") == 200
        await call.done()


# -- the webhook


@contextlib.asynccontextmanager
async def webhook(answer: Callable[[Request], Awaitable[Answer]]) -> AsyncIterator[str]:
    server = HttpServer(Address("127.0.0.1", 0), answer, section="tests", methods=("POST",), max_body_bytes=10_000)
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.address.port}"
    finally:
        await server.aclose()


def twiml(inner: str) -> Answer:
    return Answer(200, f"<Response>{inner}</Response>".encode(), "text/xml")


async def test_a_webhook_names_the_bot_and_is_asked_as_twilio_asks() -> None:
    asked: list[tuple[Request, dict[str, str]]] = []

    async def talks(talk: Talk) -> None:
        await talk.until(lambda: bool(talk.audio))
        talk.close()

    async def answer(request: Request) -> Answer:
        asked.append((request, dict(parse_qsl(request.body.decode(), keep_blank_values=True))))
        if request.path == "/after":
            return twiml("<Hangup/>")
        stream = f'<Stream url="{there.url}"><Parameter name="who" value="x"/></Stream>'
        return twiml(f'<Connect action="/after">{stream}</Connect>')

    async with bot(talks) as there, webhook(answer) as url, house({"webhook": f"{url}/incoming"}) as here:
        call = await here.switch.place(Caller(number="4711", script=stays))
        await call.done()
        talk = await there.talk()
    assert talk.start["customParameters"] == {"who": "x"}
    assert [request.path for request, _ in asked] == ["/incoming", "/after"]
    request, form = asked[0]
    assert (form["From"], form["Caller"], form["CallSid"]) == ("4711", "4711", call_sid(call.unique_id))
    assert (form["CallStatus"], form["Direction"], form["ApiVersion"]) == ("in-progress", "inbound", "2010-04-01")
    signature = Account(SID, TOKEN).sign(f"{url}/incoming", form)["X-Twilio-Signature"]
    assert request.headers["x-twilio-signature"] == signature


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(503, b"<Response/>"), "HTTP 503"),
        (Answer(200, b"hello"), "no XML"),
        (Answer(200, b"x" * 100_000), "more than"),
        (twiml("<Record/>"), "<Record>"),
        (twiml("<Redirect>/incoming</Redirect>"), "more than"),
    ],
)
async def test_a_webhook_that_makes_no_sense_has_failed(
    answer: Answer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dueto.agents.media_streams.line.MAX_VERBS", 5)

    async def always(request: Request) -> Answer:
        return answer

    async with webhook(always) as url, house({"webhook": f"{url}/incoming"}) as here:
        call = await here.switch.place(Caller(script=stays))
        failed = await here.noted.until("agent_failed")
        call.hang_up()
        await call.done()
    assert "webhook" in str(failed["error"]) or "more than" in str(failed["error"])
    assert fault in str(failed["error"])


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ({}, "expected one of url and webhook"),
        ({"url": "wss://x", "webhook": "https://x"}, "expected one of url and webhook"),
        ({"url": "https://x"}, 'expected "wss://HOST/PATH"'),
        ({"webhook": "x"}, 'expected "https://HOST/PATH"'),
        ({"url": "wss://x", "parameters": {"a": "{pin}"}}, "there is no {pin}"),
    ],
)
def test_a_profile_that_can_not_work_says_so(profile: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(None, {"agents": {"bot": {"use": "media_streams"} | profile}}, {})
    assert why in str(refusal.value)
