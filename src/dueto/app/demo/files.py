"""What the demo leaves behind: a stereo WAV and a JSON time line for each call, and one page for all of them."""

import json
import wave
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dueto.app.demo.page import page
from dueto.app.demo.story import Story
from dueto.app.redact import clean
from dueto.errors import SettingsError

PAGE = "calls.html"


def write_out(stories: Sequence[Story], folder: Path) -> Path:
    """Write everything into `folder`, which is made where it is missing; return the page's path.

    Raises: SettingsError: the folder can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for story in stories:
            write_wav(folder / f"{story.key}.wav", story)
            text = json.dumps(timeline(story), indent=1, ensure_ascii=False)
            (folder / f"{story.key}.json").write_text(text, encoding="utf-8", errors="backslashreplace")
        target = folder / PAGE
        target.write_text(page(stories), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise SettingsError(
            f"{folder}: can't be written to ({error.strerror}); choose another folder with --out"
        ) from None
    return target


def write_wav(path: Path, story: Story) -> None:
    """Write both directions as one stereo WAV: left what the caller said, right what the caller heard."""
    both = np.stack([np.frombuffer(pcm, "<i2") for pcm in (story.said, story.heard)], axis=1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(story.rate_hz)
        file.writeframes(both.tobytes())


def timeline(story: Story) -> dict[str, Any]:
    """Return a call as plain data: all its moments, in order, secrets masked."""
    return {
        "title": story.title,
        "caller": story.caller,
        "unique_id": story.unique_id,
        "dialect": story.dialect,
        "started_s": round(story.started_s, 3),
        "duration_s": round(story.duration_s, 3),
        "outcome": asdict(story.outcome),
        "expected": asdict(story.expected),
        "as_expected": story.as_expected,
        "error": story.error,
        "recording": story.recording,
        "figures": {name: _rounded(value) for name, value in asdict(story.figures).items()},
        "moments": [
            {
                "at_s": round(moment.at_s, 4),
                **({} if moment.until_s is None else {"until_s": round(moment.until_s, 4)}),
                "lane": moment.lane,
                "name": moment.name,
                "fields": {name: plain(value) for name, value in moment.fields.items()},
            }
            for moment in story.moments
        ],
    }


def plain(value: object) -> Any:
    """Return a field's value as JSON has it."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return _rounded(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return clean(str(value))


def _rounded(value: object) -> Any:
    return round(value, 3) if isinstance(value, float) else value
