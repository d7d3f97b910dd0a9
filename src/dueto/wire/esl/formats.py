"""Events in the switch's other two formats. The gateway asks for plain ones; these serve those who listen along."""

import xml.etree.ElementTree as ElementTree

import msgspec

from dueto.errors import RemoteProtocolError
from dueto.wire.esl.messages import Event
from dueto.wire.esl.quoting import unquote


def event_from_json(content: bytes) -> Event:
    """Read a `text/event-json` body: values are raw strings or lists of them, the event's body is member `_body`.

    A member that occurs twice (`Hangup-Cause` does) keeps its last value; in plain events it is the first.
    Raises: RemoteProtocolError: it is no JSON object.
    """
    try:
        members = msgspec.json.decode(content.decode("utf-8", "replace"), type=dict[str, str | list[str]])
    except msgspec.DecodeError as error:
        raise RemoteProtocolError(f"event is no JSON object of strings: {error}") from None
    body = members.pop("_body", "")
    items = [(name, v if isinstance(v, str) else "ARRAY::" + "|:".join(v)) for name, v in members.items()]
    return Event.from_items(items, body.encode() if isinstance(body, str) else b"")


def event_from_xml(content: bytes) -> Event:
    """Read a `text/event-xml` body: values are URL-encoded inside the elements.

    Raises: RemoteProtocolError: it is no XML, or declares entities (the switch never does).
    """
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise RemoteProtocolError("XML event with a document type")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise RemoteProtocolError(f"event is no XML: {error}") from None
    items = [(element.tag, unquote((element.text or "").encode())) for element in root.iterfind("headers/*")]
    body = root.findtext("body") or ""
    return Event.from_items(items, body.encode())
