"""What bots ask for over Twilio's REST API: what a call is, what is to become of it, and a new one.

`GET` and `POST /2010-04-01/Accounts/{AccountSid}/Calls/{CallSid}.json`, `POST .../Calls.json`; with the account's
credentials. Source of paths, parameters and codes: Twilio's pages "Call resource" and "Error and warning dictionary".
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl

from dueto.agents.media_streams import Exchange
from dueto.agents.media_streams.account import API_VERSION, LiveCall
from dueto.agents.media_streams.placing import Placing
from dueto.agents.media_streams.progress import EVENTS, Event, Wish
from dueto.agents.media_streams.twiml import MAX_TWIML_BYTES, read_twiml, redirect, whole_url
from dueto.agents.media_streams.verbs import Method, Verb
from dueto.app.addresses import Address
from dueto.app.http import Answer, HttpServer, Request
from dueto.errors import LocalProtocolError, RemoteProtocolError

MAX_BODY_BYTES = 3 * MAX_TWIML_BYTES
"TwiML in a form can take three bytes for one."
METHODS = ("GET", "POST")
MAX_FIELDS = 50
MAX_RING_S = 600
_LISTS = ("StatusCallbackEvent",)
_CALLS = re.compile(rf"/{API_VERSION}/Accounts/(AC[0-9a-f]{{32}})/Calls\.json")
_PATH = re.compile(rf"/{API_VERSION}/Accounts/(AC[0-9a-f]{{32}})/Calls/(CA[0-9a-f]{{32}})\.json")


class TwilioApi:
    """Listens for what bots want done with their calls."""

    def __init__(
        self,
        listen: Address | None,
        exchange: Exchange,
        note: Callable[[str, Mapping[str, object]], None],
        placing: Placing | None = None,
    ) -> None:
        """`listen`: None where somebody else does, and asks `answer`. `note` is told of every request, for the journal;
        without `placing` no calls are placed."""
        self._exchange = exchange
        self._placing = placing
        self._note = note
        self._server: HttpServer | None = None
        if listen is not None:
            self._server = HttpServer(
                listen,
                self._answer,
                section="twilio",
                methods=METHODS,
                max_body_bytes=MAX_BODY_BYTES,
                answered=self._answered,
            )

    @property
    def port(self) -> int:
        """Where it listens, once it is started; 0: nowhere."""
        return self._server.address.port if self._server is not None else 0

    async def start(self) -> None:
        """Open the listener. Raises: SettingsError: the address can't be listened on."""
        if self._server is not None:
            await self._server.start()

    async def aclose(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            await self._server.aclose()

    def answer(self, request: Request) -> Answer:
        """Do what a request asks that reached us by another door; never raises."""
        answer = self._decide(request)
        if answer.status != 404:  # it is another worker's call
            self._answered(request, answer)
        return answer

    def _answered(self, request: Request, answer: Answer) -> None:
        found = _PATH.fullmatch(request.path)
        fields = {"method": request.method, "call_sid": found[2] if found else "", "status": answer.status}
        self._note("twilio_request", fields)

    async def _answer(self, request: Request) -> Answer:
        return self._decide(request)

    def _decide(self, request: Request) -> Answer:
        if not self._admits(request):
            return _error(401, 20003, "Authenticate", {"WWW-Authenticate": 'Basic realm="dueto"'})
        ours = self._exchange.account.sid
        if (new := _CALLS.fullmatch(request.path)) and new[1] == ours and request.method == "POST":
            try:
                return _placed(self._placing, _form(request.body))
            except (LocalProtocolError, RemoteProtocolError) as error:
                return _error(400, 21216, str(error))
        found = _PATH.fullmatch(request.path)
        call = self._exchange.find(found[2]) if found and found[1] == ours else None
        if found is None or call is None:
            return _error(404, 20404, "The requested resource was not found")
        if request.method == "GET":
            return _resource(call)
        try:
            return _update(call, _form(request.body))
        except (LocalProtocolError, RemoteProtocolError) as error:
            return _error(400, 21220, str(error))

    def _admits(self, request: Request) -> bool:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and self._exchange.account.admits(user, password)


def places_a_call(request: Request) -> bool:
    """Whether it is about a new call, and no particular one's business."""
    return _CALLS.fullmatch(request.path) is not None


def answered_by_nobody() -> Answer:
    """Return what a bot is told while nobody can tell."""
    return _error(503, 20503, "Service unavailable: no worker answers")


def _form(body: bytes) -> dict[str, str]:
    try:
        fields = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise RemoteProtocolError("the body is no form") from None
    form: dict[str, str] = {}
    for name, value in fields:  # a list is one name several times: StatusCallbackEvent
        form[name] = f"{form[name]} {value}" if name in _LISTS and name in form else value
    return form


def _update(call: LiveCall, form: Mapping[str, str]) -> Answer:
    """Do what the form says. Raises: RemoteProtocolError, LocalProtocolError: it can't be done; nothing was."""
    if form.get("Status") in ("completed", "canceled"):
        over = call.form()["CallStatus"] not in ("queued", "ringing", "in-progress")
        call.end()
        return _resource(call, status="" if over else "completed")
    if "Status" in form:
        raise RemoteProtocolError("Status: expected completed")
    call.redirect(_program(form))
    return _resource(call)


def _placed(placing: Placing | None, form: Mapping[str, str]) -> Answer:
    """Place a call. Raises: as `_update`."""
    if placing is None:
        raise LocalProtocolError("placing a call needs the switch's own event socket: [switch] address and password")
    timeout = form.get("Timeout", "60")
    if not (timeout.isascii() and timeout.isdigit()):
        raise RemoteProtocolError("Timeout: expected whole seconds")
    ring_s = min(max(int(timeout[:4]), 1), MAX_RING_S)
    to, caller_id = form.get("To", ""), form.get("From", "")
    ringing = placing.place(to, caller_id, _program(form), float(ring_s), _wish(form))
    return _resource(ringing, status="queued", http=201)


def _program(form: Mapping[str, str]) -> tuple[Verb, ...]:
    if ("Twiml" in form) == ("Url" in form):
        raise RemoteProtocolError("expected Status=completed, or one of Twiml and Url")
    if "Twiml" in form:
        return read_twiml(form["Twiml"])
    try:
        return (redirect(form["Url"], _method(form, "Method")),)
    except RemoteProtocolError:
        raise RemoteProtocolError("Url: expected https://...") from None


def _wish(form: Mapping[str, str]) -> Wish | None:
    """What the bot wants to be told of the call. Raises: RemoteProtocolError, LocalProtocolError."""
    if "StatusCallback" not in form:
        return None
    try:
        url = whole_url(form["StatusCallback"])
    except RemoteProtocolError:
        raise RemoteProtocolError("StatusCallback: expected https://...") from None
    wanted = form.get("StatusCallbackEvent", "completed").split()
    events: list[Event] = [event for event in EVENTS if event in wanted]
    if len(events) != len(set(wanted)):
        raise RemoteProtocolError(f"StatusCallbackEvent: expected some of {', '.join(EVENTS)}")
    return Wish(url, frozenset(events), _method(form, "StatusCallbackMethod"))


def _method(form: Mapping[str, str], name: str) -> Method:
    method = form.get(name, "POST").upper()
    if method not in ("GET", "POST"):
        raise RemoteProtocolError(f"{name}: expected GET or POST")
    return "GET" if method == "GET" else "POST"


def _resource(call: LiveCall, status: str = "", http: int = 200) -> Answer:
    """What Twilio tells of a call, as far as there is something to tell."""
    form = call.form()
    uri = f"/{API_VERSION}/Accounts/{form['AccountSid']}/Calls/{form['CallSid']}.json"
    return _json(
        http,
        {
            "sid": form["CallSid"],
            "account_sid": form["AccountSid"],
            "api_version": API_VERSION,
            "date_created": None,
            "date_updated": format_datetime(datetime.now(UTC)),
            "start_time": None,
            "end_time": None,
            "duration": form.get("CallDuration"),
            "status": status or form["CallStatus"],
            "direction": form["Direction"],
            "from": form["From"],
            "from_formatted": form["From"],
            "to": form["To"],
            "to_formatted": form["To"],
            "caller_name": form["CallerName"],
            "answered_by": None,
            "forwarded_from": None,
            "group_sid": None,
            "parent_call_sid": None,
            "phone_number_sid": "",
            "price": None,
            "price_unit": None,
            "queue_time": "0",
            "trunk_sid": "",
            "uri": uri,
            "subresource_uris": {},
        },
    )


def _error(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    return _json(status, {"code": code, "message": message, "more_info": "", "status": status}, headers)


def _json(status: int, value: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), "application/json", headers or {})
