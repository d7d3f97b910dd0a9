"""TwiML, as far as a bot on a telephone line needs it: read strictly, within limits, into verbs to be carried out.

`<Connect><Stream>`, `<Dial>`, `<Gather>`, `<Say>`, `<Play>`, `<Pause>`, `<Redirect>`, `<Reject>`, `<Hangup>`; anything
else is refused by name, rather than left out in silence. So is a document type, and with it every entity.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urljoin, urlsplit
from xml.parsers import expat

from dueto.agents.media_streams.verbs import (
    ConnectStream,
    Dial,
    Gather,
    Hangup,
    Method,
    Pause,
    Play,
    PlayDigits,
    Redirect,
    Say,
    Verb,
)
from dueto.errors import RemoteProtocolError

MAX_TWIML_BYTES: Final = 65_536
MAX_ELEMENTS: Final = 500
MAX_DEPTH: Final = 8
MAX_URL_CHARS: Final = 4096
_INPUTS: Final[tuple[Literal["dtmf", "speech"], ...]] = ("dtmf", "speech")


def redirect(url: str, method: Method = "POST") -> Redirect:
    """Return what asks `url` what comes next. Raises: RemoteProtocolError: it is no whole URL of HTTP."""
    return Redirect(whole_url(url), method)


def whole_url(url: str) -> str:
    """Return `url`. Raises: RemoteProtocolError: it is no whole URL of HTTP."""
    return _url(url, "", "http")


def read_twiml(document: bytes | str, base_url: str = "") -> tuple[Verb, ...]:
    """Return the verbs of a document, in order. URLs in it may be relative to `base_url`, where it came from.

    Raises: RemoteProtocolError: it is no TwiML, passes a limit, or asks for what there is not; the text says what.
    """
    data = document.encode(errors="replace") if isinstance(document, str) else document
    if len(data) > MAX_TWIML_BYTES:
        raise RemoteProtocolError(f"TwiML of more than {MAX_TWIML_BYTES} bytes")
    root = _tree(data)
    if root.name != "Response":
        raise RemoteProtocolError(f"TwiML begins with <Response>, not with <{_name(root.name)}>")
    return tuple(_verb(element, base_url) for element in root.children)


@dataclass(slots=True)
class _Element:
    name: str
    attributes: dict[str, str]
    children: list["_Element"] = field(default_factory=list)
    text: str = ""


def _tree(data: bytes) -> _Element:
    top = _Element("", {})
    stack = [top]
    count = 0

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > MAX_ELEMENTS or len(stack) > MAX_DEPTH:
            raise RemoteProtocolError("TwiML of too many elements, or too deep")
        element = _Element(name, attributes)
        stack[-1].children.append(element)
        stack.append(element)

    def text(found: str) -> None:
        stack[-1].text += found
        for outer in stack[:-1]:
            if outer.name == "Say":  # what SSML says of its words is left out, and they are not
                outer.text += found

    def doctype(*_: object) -> None:
        raise RemoteProtocolError("TwiML with a document type")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = opened
    parser.EndElementHandler = lambda name: stack.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise RemoteProtocolError(f"no XML: {expat.errors.messages[error.code]} in line {error.lineno}") from None
    except LookupError:
        raise RemoteProtocolError("no XML: it says that it has an encoding that nobody knows") from None
    return top.children[0]


def _verb(element: _Element, base_url: str) -> Verb:
    attributes = element.attributes
    match element.name:
        case "Connect":
            return _connect(element, base_url)
        case "Dial":
            return _dial(element, base_url)
        case "Say" | "Play" | "Pause":
            return _heard(element, base_url)
        case "Gather":
            return _gather(element, base_url)
        case "Redirect":
            return Redirect(_url(_words(element), base_url, "http"), _method(element))
        case "Reject":
            return Hangup("USER_BUSY" if attributes.get("reason") == "busy" else "CALL_REJECTED")
        case "Hangup":
            return Hangup()
    raise RemoteProtocolError(f"TwiML asks for <{_name(element.name)}>, which there is not here")


def _heard(element: _Element, base_url: str) -> Say | Play | PlayDigits | Pause:
    attributes = element.attributes
    loops = _number(attributes, "loop", 1, 0, 1000) or 1000
    match element.name:
        case "Say":
            return Say(_words(element), loops)
        case "Pause":
            return Pause(float(_number(attributes, "length", 1, 0, 3600)))
        case "Play" if "digits" in attributes and not element.text.strip():
            return PlayDigits(attributes["digits"])
    return Play(_url(_words(element), base_url, "http"), loops)


def _gather(element: _Element, base_url: str) -> Gather:
    attributes = element.attributes
    wanted = attributes.get("input", "dtmf").split()
    takes: list[Literal["dtmf", "speech"]] = [kind for kind in _INPUTS if kind in wanted]
    if not takes or len(takes) != len(set(wanted)):
        raise RemoteProtocolError('<Gather>: input is none of "dtmf", "speech" and "dtmf speech"')
    prompt = []
    for child in element.children:
        heard = _heard(child, base_url) if child.name in ("Say", "Play", "Pause") else None
        if heard is None or isinstance(heard, PlayDigits):
            raise RemoteProtocolError(
                f"<{_name(child.name)}> within <Gather>; only <Say>, <Play> and <Pause> are known"
            )
        prompt.append(heard)
    ended_by = attributes.get("finishOnKey", "#")
    if not set(ended_by) <= set("0123456789*#"):
        raise RemoteProtocolError("TwiML: finishOnKey is none of 0-9, * and #")
    return Gather(
        _url(attributes.get("action", base_url), base_url, "http"),
        tuple(prompt),
        _number(attributes, "numDigits", 128, 1, 128),
        ended_by,
        float(_number(attributes, "timeout", 5, 1, 600)),
        attributes.get("actionOnEmptyResult", "false").lower() == "true",
        _method(element),
        frozenset(takes),
    )


def _connect(element: _Element, base_url: str) -> ConnectStream:
    if [child.name for child in element.children] != ["Stream"]:
        raise RemoteProtocolError("<Connect> with other than one <Stream>")
    stream = element.children[0]
    parameters = {}
    for child in stream.children:
        if child.name != "Parameter" or "name" not in child.attributes:
            raise RemoteProtocolError(f"<{_name(child.name)}> within <Stream>; only <Parameter name= value=> is known")
        parameters[child.attributes["name"]] = child.attributes.get("value", "")
    if stream.attributes.get("track", "inbound_track") != "inbound_track":
        raise RemoteProtocolError("<Connect><Stream> has the inbound track only")
    url = _url(stream.attributes.get("url", ""), base_url, "ws")
    return ConnectStream(url, parameters, _action(element, base_url), _method(element))


def _dial(element: _Element, base_url: str) -> Dial:
    timeout_s = float(_number(element.attributes, "timeout", 30, 1, 600))
    after = (timeout_s, _action(element, base_url), _method(element))
    if not element.children:
        return Dial(_target(element), "number", *after)
    if len(element.children) > 1:
        raise RemoteProtocolError("<Dial> of several at once, which there is not here")
    child = element.children[0]
    match child.name:
        case "Number":
            return Dial(_target(child), "number", *after)
        case "Sip":
            return Dial(_target(child), "sip", *after)
        case "Client":
            named = next((inner for inner in child.children if inner.name == "Identity"), child)
            return Dial(_target(named), "client", *after)
    raise RemoteProtocolError(f"<Dial> asks for <{_name(child.name)}>, which there is not here")


def _target(element: _Element) -> str:
    target = _words(element)
    if not target or len(target) > 256 or not target.isprintable():
        raise RemoteProtocolError("<Dial> of nobody")
    return target


def _words(element: _Element) -> str:
    return " ".join(element.text.split())


def _action(element: _Element, base_url: str) -> str:
    action = element.attributes.get("action", "")
    return _url(action, base_url, "http") if action else ""


def _method(element: _Element) -> Method:
    method = element.attributes.get("method", "POST").upper()
    if method not in ("GET", "POST"):
        raise RemoteProtocolError("TwiML: method is neither GET nor POST")
    return "GET" if method == "GET" else "POST"


def _url(text: str, base_url: str, scheme: str) -> str:
    try:
        url = urljoin(base_url, text)
        where = urlsplit(url)
        good = where.scheme in (scheme, f"{scheme}s") and bool(where.hostname) and where.port != 0
    except ValueError:  # half a bracket, a port that is none
        good = False
    if not good or len(url) > MAX_URL_CHARS or not (url.isascii() and url.isprintable()) or " " in url:
        raise RemoteProtocolError(f"TwiML names no {scheme}:// or {scheme}s:// URL where one belongs")
    return url


def _number(attributes: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = attributes.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise RemoteProtocolError(f"TwiML: {name} is not a whole number")
    return min(max(int(text[:9]), least), most)


def _name(name: str) -> str:
    return name[:40] if name.isprintable() else "?"
