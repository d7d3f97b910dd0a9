"""Events in the switch's other two formats. The gateway asks for plain ones; these serve those who listen along."""

import json
import xml.etree.ElementTree as ElementTree

from dueto.errors import RemoteProtocolError
from dueto.wire.esl.messages import Event
from dueto.wire.esl.quoting import unquote, utf8


def event_from_json(content: bytes) -> Event:
    """Read a `text/event-json` body: values are raw strings or lists of them, the event's body is member `_body`.

    Members that occur twice (`Hangup-Cause` does) are all kept, in order, as in a plain event.
    Raises: RemoteProtocolError: it is no JSON object of strings.
    """
    try:
        members = json.loads(content.decode("utf-8", "replace"), object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"event is no JSON: {error}") from None
    if not isinstance(members, tuple):  # objects are tuples of pairs here, arrays are lists
        raise RemoteProtocolError("event is no JSON object")
    items: list[tuple[str, str]] = []
    body = b""
    for name, value in members:
        match value:
            case str() if name == "_body":
                body = utf8(value)
            case str():
                items.append((name, value))
            case list() if all(isinstance(entry, str) for entry in value):
                items.append((name, "ARRAY::" + "|:".join(value)))
            case _:
                raise RemoteProtocolError(f"JSON event's {name[:60]!r} is no string")
    return Event.from_items(items, body)


def event_from_xml(content: bytes) -> Event:
    """Read a `text/event-xml` body: values are URL-encoded inside the elements.

    A header with several entries comes as several elements, of which `get` returns the first.
    Raises: RemoteProtocolError: it is no XML, or declares entities (the switch never does).
    """
    text = content.decode("utf-8", "replace")  # whatever encoding it claims: no document type hides in another one
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise RemoteProtocolError("XML event with a document type")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise RemoteProtocolError(f"event is no XML: {error}") from None
    elements = [*root.iterfind("headers/*"), *root.iterfind("Content-Length")]
    items = [(element.tag, unquote((element.text or "").encode())) for element in elements]
    return Event.from_items(items, (root.findtext("body") or "").encode())
