"""Twilio's own library as the bot's client, and as the judge of our signatures; and the example bot, on FastAPI."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from tests.agents.fakes.media_streams_bot import Talk, bot
from tests.agents.test_media_streams import (
    SECRET,
    SID,
    TOKEN,
    connected,
    heard_ms,
    house,
    sound,
    stays,
    switch_for,
    webhook,
)

from dueto.agents.media_streams import Account, call_sid, twiml
from dueto.agents.media_streams.twiml import read_twiml
from dueto.app.gateway import Gateway
from dueto.app.http import Answer, Request
from dueto.app.settings import load_settings
from dueto.audio.pcm import write_wav
from dueto.sim import Access, Caller, Endpoint, Line, Switch, tone
from dueto.sim.caller import NotHeard

pytestmark = pytest.mark.at_once

twilio_rest = pytest.importorskip("twilio.rest", reason="the vendors group is not installed: ./test does")
validator = pytest.importorskip("twilio.request_validator")

EXAMPLES = Path(__file__).parents[2] / "examples"


def client(port: int, token: str = TOKEN) -> Any:
    """The library, pointed to the gateway; everything else about it is as it comes."""
    found = twilio_rest.Client(SID, token)
    found.api.base_url = f"http://127.0.0.1:{port}"
    return found


async def test_the_library_looks_at_a_call_redirects_and_ends_it() -> None:
    async with bot() as there, house({"url": there.url}) as here:
        call = await here.switch.place(Caller(number="4711", script=connected))
        talk = await there.talk()
        await talk.until(lambda: bool(talk.audio))
        calls = client(here.gateway.twilio_port).calls(call_sid(call.unique_id))
        found = await asyncio.to_thread(calls.fetch)
        assert (found.sid, found.status, found._from) == (call_sid(call.unique_id), "in-progress", "4711")
        updated = await asyncio.to_thread(calls.update, twiml="<Response><Dial>sales</Dial></Response>")
        assert updated.sid == found.sid
        await call.done()
    assert call.bridged_to

    async with bot() as there, house({"url": there.url}) as here:
        call = await here.switch.place(Caller(script=stays))
        talk = await there.talk()
        await talk.until(lambda: bool(talk.audio))
        calls = client(here.gateway.twilio_port).calls(call_sid(call.unique_id))
        assert (await asyncio.to_thread(calls.update, status="completed")).status == "completed"
        await call.done()


async def test_the_library_places_a_call_that_a_bot_talks_on() -> None:
    looked_at = asyncio.Event()
    told: list[tuple[str, str]] = []
    all_told = asyncio.Event()

    async def status(request: Request) -> Answer:
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        told.append((form["CallStatus"], form["SequenceNumber"]))
        if form["CallStatus"] == "completed":
            all_told.set()
        return Answer(200, b"")

    async def talks(talk: Talk) -> None:
        talk.say(sound(0.4))
        await looked_at.wait()
        talk.close()

    endpoints = {"user/+49301": Endpoint(answer_after_s=0.1)}
    async with (
        bot(talks) as there,
        webhook(status) as url,
        Switch("", "", endpoints=endpoints, event_tick_s=0) as switch,
    ):
        port = await switch.listen_inbound(access=Access("not ClueCon"))
        link = {"address": f"127.0.0.1:{port}", "password": "not ClueCon"}
        policy = {"allow": ["+4930*"], "dial": "user/{number}"}
        async with house({"url": "ws://127.0.0.1:1/none"}, switch=link, twilio=policy) as here:
            await here.noted.until("switch_up")
            calls = client(here.gateway.twilio_port).calls
            twiml = f'<Response><Connect><Stream url="{there.url}"/></Connect></Response>'
            wish = {"status_callback": url, "status_callback_event": ["initiated", "answered", "completed"]}
            placed = await asyncio.to_thread(calls.create, to="+49301", from_="+49302", twiml=twiml, timeout=20, **wish)
            assert (placed.status, placed.direction) == ("queued", "outbound-api")
            talk = await there.talk()
            await talk.until(lambda: bool(talk.audio))
            assert talk.start["callSid"] == placed.sid
            found = await asyncio.to_thread(calls(placed.sid).fetch)
            assert (found.to, found._from, found.status) == ("+49301", "+49302", "in-progress")
            looked_at.set()
            await talk.until(lambda: talk.closed is not None)
            await here.noted.until("call_ended")
            async with asyncio.timeout(10):
                await all_told.wait()
    assert told == [("initiated", "0"), ("in-progress", "1"), ("completed", "2")]


async def test_the_library_understands_our_refusals() -> None:
    error = pytest.importorskip("twilio.base.exceptions").TwilioRestException
    async with bot() as there, house({"url": there.url}) as here:
        call = await here.switch.place(Caller(script=stays))
        talk = await there.talk()
        await talk.until(lambda: bool(talk.audio))
        sid, port = call_sid(call.unique_id), here.gateway.twilio_port
        with pytest.raises(error) as refusal:
            await asyncio.to_thread(client(port, "wrong").calls(sid).update, status="completed")
        assert (refusal.value.status, refusal.value.code) == (401, 20003)
        with pytest.raises(error) as refusal:
            await asyncio.to_thread(client(port).calls("CA" + "0" * 32).fetch)
        assert (refusal.value.status, refusal.value.code) == (404, 20404)
        with pytest.raises(error, match="Record"):
            await asyncio.to_thread(client(port).calls(sid).update, twiml="<Response><Record/></Response>")
        assert not talk.stopped
        call.hang_up()
        await call.done()


@pytest.mark.parametrize("form", [{}, {"CallSid": "CA1", "From": "+49 30", "To": "é", "A": ""}])
def test_the_library_finds_our_signatures_right(form: Mapping[str, str]) -> None:
    url = "https://bot.example.com/x?a=1"
    signature = Account(SID, TOKEN).sign(url, form)["X-Twilio-Signature"]
    assert validator.RequestValidator(TOKEN).validate(url, dict(form), signature)
    assert not validator.RequestValidator("another").validate(url, dict(form), signature)


def test_what_the_library_writes_is_read() -> None:
    from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

    response = VoiceResponse()
    connect = Connect(action="/next")
    connect.stream(url="wss://bot.example.com/ws", name="bot").parameter(name="who", value="<Ann & Bob>")
    response.append(connect)
    dial = Dial(timeout=20, caller_id="+4930", action="https://bot.example.com/after")
    dial.number("+49301234")
    response.append(dial)
    response.dial().sip("sip:sales@pbx.local")
    response.dial().client("sales")
    response.say("Please hold.", voice="alice", language="en-GB")
    response.pause(length=3)
    response.play(digits="12w3")
    response.redirect("/more", method="POST")
    response.hangup()
    assert read_twiml(str(response), "https://bot.example.com/incoming") == (
        twiml.ConnectStream("wss://bot.example.com/ws", {"who": "<Ann & Bob>"}, "https://bot.example.com/next"),
        twiml.Dial("+49301234", "number", 20.0, "https://bot.example.com/after"),
        twiml.Dial("sip:sales@pbx.local", "sip"),
        twiml.Dial("sales", "client"),
        twiml.Say("Please hold."),
        twiml.Pause(3.0),
        twiml.PlayDigits("12w3"),
        twiml.Redirect("https://bot.example.com/more"),
        twiml.Hangup(),
    )


@asynccontextmanager
async def uvicorn_serving(app: Any) -> AsyncIterator[int]:
    """Serve an ASGI app on a free port of this loop."""
    uvicorn = pytest.importorskip("uvicorn")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="warning", ws="websockets-sansio", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def test_a_menu_that_the_library_wrote_is_heard_obeyed_and_told_of_with_good_signatures() -> None:
    from fastapi import FastAPI, Response
    from fastapi import Request as Asked
    from twilio.twiml.voice_response import Gather, VoiceResponse

    asked: list[tuple[str, dict[str, str]]] = []
    told = asyncio.Event()
    app = FastAPI()

    @app.api_route("/{path}", methods=["GET", "POST"])
    async def bots(path: str, request: Asked) -> Response:
        form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        signature = request.headers["x-twilio-signature"]
        assert validator.RequestValidator(TOKEN).validate(str(request.url), form, signature)
        asked.append((f"{request.method} /{path}", form | dict(request.query_params)))
        answer = VoiceResponse()
        match path:
            case "incoming":
                menu = Gather(num_digits=2, action="/menu", method="GET", timeout=9)
                menu.play("/sound.wav", loop=30)
                answer.append(menu)
                answer.say("You pressed nothing.")
            case "menu":
                answer.dial("sales", action="/after")
            case "status":
                told.set()
            case "sound.wav":
                return Response(write_wav(tone(8000, 0.5, 440.0), 8000), media_type="audio/wav")
        return Response(str(answer), media_type="text/xml")

    async def caller(line: Line) -> None:
        await line.hears_speech()
        await line.press("4")
        await line.press("2")
        await line.bridged()

    key = {"SK" + "d4" * 16: "the secret of that key"}
    async with uvicorn_serving(app) as port:
        bot = f"http://127.0.0.1:{port}"
        profile = {"webhook": f"{bot}/incoming", "status_callback": f"{bot}/status"}
        async with house(profile, twilio={"api_keys": key}) as here:
            call = await here.switch.place(Caller(script=caller))
            await call.done()
            async with asyncio.timeout(10):
                await told.wait()
            found = twilio_rest.Client(*next(iter(key.items())), SID)
            found.api.base_url = f"http://127.0.0.1:{here.gateway.twilio_port}"
            over = await asyncio.to_thread(found.calls(call_sid(call.unique_id)).fetch)
    assert (over.status, over.duration) == ("completed", asked[-1][1]["CallDuration"])
    assert [name for name, _ in asked] == ["POST /incoming", "GET /sound.wav", "GET /menu", "POST /status"]
    forms = [form for _, form in asked]
    assert (forms[2]["Digits"], forms[3]["CallStatus"], forms[3]["SequenceNumber"]) == ("42", "completed", "0")
    assert heard_ms(call) < 4000, "the first key has cut the menu"


async def test_the_example_bot_answers_a_call() -> None:
    pytest.importorskip("fastapi")
    import examples.media_streams as example

    said = 0

    async def caller(line: Line) -> None:
        nonlocal said
        for _ in range(5):  # what is said before the bot is there is nobody's
            said += 1
            await line.say(tone(8000, 0.5, 440.0))
            with contextlib.suppress(NotHeard):
                await line.hears_speech(timeout=3.0)
                break
        await line.hears_silence(300)
        await line.say(tone(8000, 0.5, 440.0))  # of this, all
        await line.hears_speech()
        await line.hears_silence(300)
        await line.press("#")
        await line.until_hangup()

    async with uvicorn_serving(example.app) as port:
        environment = {
            "DUETO_AGENTS__BOT__WEBHOOK": f"http://127.0.0.1:{port}/incoming",
            "DUETO_CONTROL__LISTEN": "127.0.0.1:0",
            "DUETO_MEDIA__LISTEN": "127.0.0.1:0",
            "DUETO_MEDIA__SECRET": SECRET,
            "DUETO_METRICS__LISTEN": "",
            "DUETO_TWILIO__AUTH_TOKEN": TOKEN,
            "DUETO_TWILIO__LISTEN": "127.0.0.1:0",
        }
        async with Gateway(load_settings(EXAMPLES / "media_streams.toml", {}, environment)) as gateway:
            example.REST, example.TOKEN = f"http://127.0.0.1:{gateway.twilio_port}", TOKEN
            async with switch_for(gateway) as switch:
                call = await switch.place(Caller(script=caller))
                await call.done()
    assert 500 <= heard_ms(call) <= 600 * (said + 1), "what it hears it says back once"
    assert call.hangup_cause == "NORMAL_CLEARING"


async def test_the_example_of_a_menu_connects_who_presses_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    import examples.voice_menu as example

    class Mouth:
        async def speak(self, text: str, rate_hz: int) -> bytes:
            return tone(rate_hz, 1.0, 440.0)

    async def caller(line: Line) -> None:
        await line.hears_speech()
        await line.press("9")
        for _ in range(5):  # a key that comes while the bot is being asked is nobody's
            await line.press("1")
            with contextlib.suppress(NotHeard):
                await line.bridged(timeout=1.0)
                return

    async with uvicorn_serving(example.app) as port:
        environment = {
            "DUETO_AGENTS__MENU__WEBHOOK": f"http://127.0.0.1:{port}/incoming",
            "DUETO_CONTROL__LISTEN": "127.0.0.1:0",
            "DUETO_MEDIA__LISTEN": "127.0.0.1:0",
            "DUETO_MEDIA__SECRET": SECRET,
            "DUETO_METRICS__LISTEN": "",
            "DUETO_TWILIO__LISTEN": "",
            "DUETO_DESTINATIONS__SALES__DIAL": "user/1002",
        }
        settings = load_settings(EXAMPLES / "voice_menu.toml", {}, environment)
        async with Gateway(settings, mouth=Mouth()) as gateway, switch_for(gateway) as switch:
            call = await switch.place(Caller(script=caller))
            await call.done()
    assert call.bridged_to
