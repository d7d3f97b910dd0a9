"""`calls.html`: all calls on one page that needs nothing but itself (and the WAV files beside it, for sound)."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np

import dueto
from dueto.app.demo.listening import FRAME_S, peaks
from dueto.app.demo.story import Moment, Story
from dueto.app.redact import clean

_MARK = "{{data}}"


def page(stories: Sequence[Story]) -> str:
    """Return the page. What came from outside (names, causes) stands in it as data, never as markup."""
    data = {"version": dueto.__version__, "calls": [_call(story) for story in stories]}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # "</script>" and "<!--" are all that a script element of data has to fear.
    template = files("dueto.app.demo").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace(_MARK, text.replace("<", "\\u003c"))


def _call(story: Story) -> dict[str, Any]:
    return {
        "key": story.key,
        "title": story.title,
        "about": story.about,
        "caller": clean(story.caller),
        "dialect": story.dialect,
        "started": round(story.started_s, 2),
        "duration": round(story.duration_s, 2),
        "ok": story.as_expected,
        "outcome": str(story.outcome),
        "expected": str(story.expected),
        "error": clean(story.error),
        "recording": story.recording,
        "figures": {name: round(v, 2) if isinstance(v, float) else v for name, v in asdict(story.figures).items()},
        "frame_s": FRAME_S,
        "said": _drawn(story.said, story.rate_hz),
        "heard": _drawn(story.heard, story.rate_hz),
        "legs": {"media": _life(story, "media"), "control": _life(story, "control")},
        "bridges": _bridges(story),
        "moments": [_moment(moment) for moment in story.moments],
    }


def _moment(moment: Moment) -> dict[str, Any]:
    details = ", ".join(
        f"{name} {clean(_short(value))}" for name, value in moment.fields.items() if value not in (None, "")
    )
    return {
        "t": round(moment.at_s, 4),
        "u": None if moment.until_s is None else round(moment.until_s, 4),
        "lane": moment.lane,
        "name": moment.name,
        "text": clean(moment.text),
        "more": details,
    }


def _short(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _drawn(pcm: bytes, rate_hz: int) -> str:
    """Return the peaks of every 20 ms, 0 to 255, as the eye likes them: what is soft is brought out."""
    loudness = (np.minimum(peaks(pcm, rate_hz), 32767) / 32767) ** 0.7
    return base64.b64encode((loudness * 255).astype(np.uint8).tobytes()).decode()


def _life(story: Story, leg: str) -> list[float] | None:
    """Return from when to when a leg lived; None: it never came."""
    opened = next((m.at_s for m in story.moments if m.lane == leg and m.name in ("open", "media_connected")), None)
    if opened is None:
        return None
    closed = [m.at_s for m in story.moments if m.lane == leg and m.name in ("closed", "media_closed")]
    return [round(opened, 4), round(closed[-1] if closed else story.duration_s, 4)]


def _bridges(story: Story) -> list[dict[str, Any]]:
    """Return from when to when the caller was connected, and with whom."""
    found: list[dict[str, Any]] = []
    for moment in story.moments:
        if moment.lane != "control":
            continue
        if moment.name == "CHANNEL_BRIDGE":
            found.append(
                {"from": round(moment.at_s, 3), "to": None, "with": story.outcome.transferred_to or "somebody"}
            )
        elif moment.name in ("CHANNEL_UNBRIDGE", "CHANNEL_HANGUP") and found and found[-1]["to"] is None:
            found[-1]["to"] = round(moment.at_s, 3)
    return found
