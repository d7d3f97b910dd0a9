"""What bots ask of the gateway over Twilio's REST API, byte for byte."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote_plus

import pytest

from dueto.agents.media_streams import Account, Exchange, NumberPolicy
from dueto.agents.media_streams.placing import Placing
from dueto.agents.media_streams.twiml import Dial, Hangup, Redirect, Verb
from dueto.app.addresses import Address
from dueto.app.settings import load_settings
from dueto.app.twilio_api import MAX_BODY_BYTES, TwilioApi
from dueto.call import Agent, Dialled
from dueto.errors import LocalProtocolError, SettingsError

SID = "AC" + "a1" * 16
CALL = "CA" + "b2" * 16
TOKEN = "a token of these tests"
PATH = f"/2010-04-01/Accounts/{SID}/Calls/{CALL}.json"


class Call:
    """A call that remembers what was wanted."""

    def __init__(self) -> None:
        self.wanted: list[tuple[Verb, ...]] = []
        self.refuses = ""

    def form(self) -> dict[str, str]:
        words = {"Direction": "inbound", "From": "1001", "To": "500", "CallerName": "", "CallStatus": "in-progress"}
        return {"AccountSid": SID, "CallSid": CALL} | words

    def end(self) -> None:
        self.wanted.append((Hangup(),))

    def redirect(self, program: tuple[Verb, ...]) -> None:
        if self.refuses:
            raise LocalProtocolError(self.refuses)
        self.wanted.append(program)


class Here:
    """The listener, and one call."""

    def __init__(self) -> None:
        self.exchange = Exchange(Account(SID, TOKEN))
        self.call = Call()
        self.exchange.enter(CALL, self.call)
        self.noted: list[Mapping[str, object]] = []
        self.api = TwilioApi(Address("127.0.0.1", 0), self.exchange, lambda event, fields: self.noted.append(fields))

    async def send(self, request: bytes) -> tuple[int, dict[str, Any]]:
        port = self.api.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), json.loads(body) if b"application/json" in head else {}

    async def ask(
        self, method: str = "GET", path: str = PATH, body: str = "", auth: str | None = f"{SID}:{TOKEN}"
    ) -> tuple[int, dict[str, Any]]:
        credentials = "" if auth is None else f"Authorization: Basic {base64.b64encode(auth.encode()).decode()}\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{credentials}Content-Length: {len(body)}\r\n\r\n"
        return await self.send((head + body).encode())

    async def post(self, **form: str) -> tuple[int, dict[str, Any]]:
        return await self.ask("POST", body="&".join(f"{name}={quote_plus(value)}" for name, value in form.items()))


@pytest.fixture
async def here() -> AsyncIterator[Here]:
    here = Here()
    await here.api.start()
    yield here
    await here.api.aclose()


async def test_a_call_can_be_looked_at(here: Here) -> None:
    status, call = await here.ask()
    assert status == 200
    assert (call["sid"], call["account_sid"], call["status"]) == (CALL, SID, "in-progress")
    assert (call["from"], call["to"], call["direction"]) == ("1001", "500", "inbound")
    assert here.noted == [{"method": "GET", "call_sid": CALL, "status": 200}]


async def test_completed_hangs_up(here: Here) -> None:
    status, call = await here.post(Status="completed")
    assert (status, call["status"]) == (200, "completed")
    assert here.call.wanted == [(Hangup(),)]


async def test_twiml_and_a_url_take_the_call_from_the_bot(here: Here) -> None:
    assert (await here.post(Twiml="<Response><Dial>sales</Dial><Hangup/></Response>"))[0] == 200
    url = "https://bot.example.com/next?x=1&y=2"
    assert (await here.post(Url=url, Method="POST"))[0] == 200
    assert (await here.post(Url=url, Method="GET"))[0] == 200
    assert here.call.wanted == [(Dial("sales"), Hangup()), (Redirect(url),), (Redirect(url, "GET"),)]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"Status": "ringing"},
        {"Twiml": "<Response/>", "Url": "https://x"},
        {"Twiml": "<Response><Gather/></Response>"},
        {"Twiml": "no xml"},
        {"Url": "file:///etc/passwd"},
        {"Url": "https://["},
        {"Url": "https://x:99999/"},
        {"Url": "https://x\r\nX: y"},
        {"Url": "https://x", "Method": "PUT"},
    ],
)
async def test_what_can_not_be_done_is_refused_and_nothing_happens(here: Here, form: dict[str, str]) -> None:
    status, error = await here.post(**form)
    assert (status, error["status"]) == (400, 400)
    assert error["message"]
    assert here.call.wanted == []


async def test_an_api_key_is_as_good_as_the_token(here: Here) -> None:
    key, secret = "SK" + "d4" * 16, "the secret of that key"
    here.exchange.account = replace(here.exchange.account, keys={key: secret})
    assert (await here.ask(auth=f"{key}:{secret}"))[0] == 200
    for wrong in (f"{key}:{TOKEN}", f"{SID}:{secret}", f"{key}:", "SK:"):
        assert (await here.ask(auth=wrong))[0] == 401


async def test_a_call_that_can_not_be_redirected_says_why(here: Here) -> None:
    here.call.refuses = "no destination of the configuration has that name"
    status, error = await here.post(Twiml="<Response><Dial><Client>x</Client></Dial></Response>")
    assert (status, error["message"]) == (400, here.call.refuses)


@pytest.mark.parametrize("auth", [None, "", ":", f"{SID}:", f"{SID}:wrong", f":{TOKEN}", f"{SID}x:{TOKEN}", "\xff"])
async def test_nobody_gets_in_without_the_token(here: Here, auth: str | None) -> None:
    status, error = await here.ask("POST", body="Status=completed", auth=auth)
    assert (status, error["code"]) == (401, 20003)
    assert here.call.wanted == []


@pytest.mark.parametrize(
    "authorization", [b"Bearer x", b"Basic", b"Basic !!!!", b"Basic w7w", b"Basic /w==", b"Digest " + b"x" * 500]
)
async def test_credentials_that_are_none_are_refused(here: Here, authorization: bytes) -> None:
    request = b"GET " + PATH.encode() + b" HTTP/1.1\r\nAuthorization: " + authorization + b"\r\n\r\n"
    assert (await here.send(request))[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        "/",
        PATH.replace(CALL, "CA" + "0" * 32),
        PATH.replace(SID, "AC" + "0" * 32),
        PATH + "x",
        PATH.replace(".json", ""),
    ],
)
async def test_another_call_or_account_is_not_found(here: Here, path: str) -> None:
    status, error = await here.ask(path=path)
    assert (status, error["code"]) == (404, 20404)


async def test_bodies_have_a_bound_and_a_length(here: Here) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode()
    assert (await here.send(head))[0] == 413
    assert (await here.send(f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()))[0] == 411
    assert (await here.send(f"POST {PATH} HTTP/1.1\r\nContent-Length: -1\r\n\r\n".encode()))[0] == 400
    assert (await here.send(f"DELETE {PATH} HTTP/1.1\r\n\r\n".encode()))[0] == 405


class Dialler:
    """Rings people up, and remembers whom."""

    def __init__(self) -> None:
        self.dialled: list[tuple[str, str, float]] = []
        self.answers = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self, dial: str, *, agent: Agent, caller_id: str, timeout_s: float, unique_id: str) -> Dialled:
        self.dialled.append((dial, caller_id, timeout_s))
        try:
            await self.answers.wait()
            return Dialled(unique_id, "busy", "USER_BUSY")
        finally:
            self.over.set()


@pytest.fixture
async def placing(here: Here) -> AsyncIterator[Dialler]:
    dialler = Dialler()
    here.exchange.numbers = NumberPolicy(("+4930*",), "sofia/gateway/trunk/{number}")
    placing = here.api._placing = Placing(here.exchange, dialler)
    yield dialler
    await placing.aclose()


CALLS = f"/2010-04-01/Accounts/{SID}/Calls.json"
ORDER = "To=%2B49301&From=%2B49302&Twiml=%3CResponse%2F%3E&Timeout=20"


async def test_a_call_is_placed_rings_and_is_gone_when_nobody_takes_it(here: Here, placing: Dialler) -> None:
    status, call = await here.ask("POST", CALLS, ORDER)
    assert (status, call["status"], call["direction"], call["to"]) == (201, "queued", "outbound-api", "+49301")
    path = f"/2010-04-01/Accounts/{SID}/Calls/{call['sid']}.json"
    assert (await here.ask(path=path))[1]["status"] == "ringing"
    assert (await here.ask("POST", path, "Twiml=%3CResponse%2F%3E"))[0] == 400
    assert placing.dialled == [("sofia/gateway/trunk/+49301", "+49302", 20.0)]
    placing.answers.set()
    await placing.over.wait()
    await asyncio.sleep(0)
    assert (await here.ask(path=path))[1]["status"] == "busy", "what became of it is remembered"
    assert (await here.ask("POST", path, "Status=completed"))[1]["status"] == "busy"
    assert (await here.ask("POST", path, "Twiml=%3CResponse%2F%3E"))[0] == 400


async def test_a_call_that_rings_can_be_ended(here: Here, placing: Dialler) -> None:
    _, call = await here.ask("POST", CALLS, ORDER)
    assert (await here.ask("POST", f"/2010-04-01/Accounts/{SID}/Calls/{call['sid']}.json", "Status=completed"))[
        0
    ] == 200
    await placing.over.wait()


@pytest.mark.parametrize(
    "order",
    [
        ORDER.replace("To=%2B49301", "To=%2B33"),
        ORDER.replace("To=%2B49301", "To=user%2F1"),
        ORDER.replace("From=%2B49302", "From=%2B49%2C302"),
        ORDER.replace("From=%2B49302", "From="),
        ORDER.replace("Twiml", "Tweet"),
        ORDER.replace("Timeout=20", "Timeout=soon"),
        f"{ORDER}&StatusCallback=ftp%3A%2F%2Fx",
        f"{ORDER}&StatusCallback=https%3A%2F%2Fx&StatusCallbackEvent=answered&StatusCallbackEvent=ended",
        f"{ORDER}&StatusCallback=https%3A%2F%2Fx&StatusCallbackMethod=PUT",
    ],
)
async def test_a_call_that_can_not_be_placed_is_refused(here: Here, placing: Dialler, order: str) -> None:
    status, error = await here.ask("POST", CALLS, order)
    assert (status, error["code"]) == (400, 21216)
    assert placing.dialled == []
    assert len(here.exchange) == 1


async def test_more_ringing_calls_than_there_may_be_are_refused(
    here: Here, placing: Dialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dueto.agents.media_streams.placing.MAX_RINGING", 1)
    assert [(await here.ask("POST", CALLS, ORDER))[0] for _ in range(2)] == [201, 400]


async def test_without_the_switchs_own_socket_no_call_is_placed(here: Here) -> None:
    status, error = await here.ask("POST", CALLS, ORDER)
    assert (status, "[switch]" in error["message"]) == (400, True)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"account_sid": "AC1"}, '[twilio] account_sid: expected "AC" and 32 of 0-9 a-f'),
        ({"allow": ["+49x"]}, "[twilio] allow"),
        ({"dial": "sofia/gateway/trunk/1"}, "[twilio] dial"),
        ({"dial": "$x/{number}"}, "[twilio] dial"),
        ({"listen": "here"}, "[twilio] listen"),
    ],
)
def test_wrong_keys_are_named(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(None, {"twilio": keys}, {})
    assert why in str(refusal.value)


def test_without_a_token_nobody_is_listened_to() -> None:
    assert load_settings(None, {}, {}).twilio.listen_address is None
    assert load_settings(None, {"twilio": {"auth_token": TOKEN}}, {}).twilio.listen_address == Address(
        "127.0.0.1", 8090
    )
    assert load_settings(None, {"twilio": {"auth_token": TOKEN, "listen": ""}}, {}).twilio.listen_address is None
