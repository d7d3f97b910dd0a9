"""Notes in words: what the terminal prints and the picture is labelled with."""

from collections.abc import Callable, Mapping
from typing import Any

from dueto.app.demo.notebook import Note

Fields = Mapping[str, Any]


def in_words(note: Note) -> str:
    """Return a few words for a note; empty for one that only belongs into the complete list."""
    say = _WORDS.get((note.lane, note.name))
    return say(note.fields) if say is not None else ""


def _executes(fields: Fields) -> str:
    application, data = fields.get("Application", ""), fields.get("Application-Data", "")
    return f"{application} {data}" if application == "bridge" else ""


def _custom(fields: Fields) -> str:
    subclass = str(fields.get("subclass", "")).rpartition("::")[2]
    return f"::{subclass}" if subclass in ("connect", "disconnect", "error", "play") else ""


def _understands(fields: Fields) -> str:
    if "text" in fields:
        return f"understands “{fields['text']}”"
    if not fields["words"]:
        return "hears nothing it knows"
    return f"understands “{fields['words']}” ({fields['confidence']:.2f})"


def _transferred(fields: Fields) -> str:
    return (
        f"{fields['target']} answered" if fields["outcome"] == "bridged" else f"{fields['target']}: {fields['outcome']}"
    )


def _hung_up(fields: Fields) -> str:
    return f"call over: {fields.get('cause') or 'no cause'}, told by {fields.get('witness')}"


def _said(words: str) -> str:
    return f"“{words}”" if words else "speaks"


_WORDS: dict[tuple[str, str], Callable[[Fields], str]] = {
    ("caller", "says"): lambda f: _said(f["words"]),
    ("caller", "press"): lambda f: f"presses {f['digit']}",
    ("caller", "hangup"): lambda f: "hangs up",
    ("agent", "says"): lambda f: _said(f["words"]),
    ("agent", "interrupted"): lambda f: f"interrupted after {f['heard_ms'] / 1000:.1f} s",
    ("agent", "understands"): _understands,
    ("agent", "was_heard"): lambda f: f"was heard: “{f['text']}”{', then interrupted' if f.get('interrupted') else ''}",
    ("agent", "takes_digit"): lambda f: f"takes digit {f['digit']}",
    ("agent", "transfers"): lambda f: f"transfers to {f['target']}",
    ("agent", "transfer_result"): _transferred,
    ("agent", "told_of_hangup"): lambda f: "told of the hangup",
    ("gateway", "paired"): lambda f: f"paired, {f['order'].replace('_', ' ')}",
    ("gateway", "pairing_late"): lambda f: "second leg is late",
    ("gateway", "agent_started"): lambda f: f"agent {f['name']} starts",
    ("gateway", "agent_failed"): lambda f: f"agent failed: {f['error']}",
    ("gateway", "turn"): lambda f: f"answered after {f['latency_ms']} ms",
    ("gateway", "barge_in"): lambda f: f"interrupted by {f['by']}: silent after {f['silence_ms']} ms",
    ("gateway", "bridged"): lambda f: "bridged: agent is deaf and silent",
    ("gateway", "announcing"): lambda f: "tells the other side who is coming",
    ("gateway", "transfer_answered"): lambda f: f"other side: {f['answer']}",
    ("gateway", "unbridged"): lambda f: "unbridged",
    ("gateway", "hungup"): _hung_up,
    ("gateway", "call_ended"): lambda f: "both legs let go",
    ("gateway", "returned_to_dialplan"): lambda f: "returned to the dialplan",
    ("media", "open"): lambda f: "stream up",
    ("media", "media_connected"): lambda f: "stream up, over UDP" if f.get("dialect") == "unicast" else "",
    ("media", "media_closed"): lambda f: f"closed, {f['code']}",
    ("media", "media_lost"): lambda f: "lost",
    ("control", "open"): lambda f: "socket",
    ("control", "CHANNEL_ANSWER"): lambda f: "ANSWER",
    ("control", "DTMF"): lambda f: f"DTMF {f.get('DTMF-Digit', '')}",
    ("control", "CHANNEL_EXECUTE"): _executes,
    ("control", "CHANNEL_BRIDGE"): lambda f: "BRIDGE",
    ("control", "CHANNEL_UNBRIDGE"): lambda f: "UNBRIDGE",
    ("control", "CHANNEL_HOLD"): lambda f: "HOLD",
    ("control", "CHANNEL_UNHOLD"): lambda f: "UNHOLD",
    ("control", "CHANNEL_HANGUP"): lambda f: "HANGUP",
    ("control", "CHANNEL_HANGUP_COMPLETE"): lambda f: "HANGUP_COMPLETE",
    ("control", "CUSTOM"): _custom,
    ("control", "closed"): lambda f: "let go",
}
