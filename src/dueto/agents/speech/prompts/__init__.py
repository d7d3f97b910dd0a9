"""The recordings that come with dueto: the receptionist's sentences, for a machine without a synthesiser."""

import json
import re
from functools import lru_cache
from importlib.resources import files
from typing import Final

from dueto.audio.pcm import Wav, read_wav, silence

_GAP_MS: Final = 150
"Between two recorded sentences."


def recorded(text: str) -> Wav | None:
    """Return `text` from recordings, sentence by sentence; None if one of its sentences was never recorded."""
    index = recordings()
    names = [index.get(sentence) for sentence in sentences(text)]
    if not names or None in names:
        return None
    wavs = [_wav(name) for name in names if name is not None]
    gap = silence(wavs[0].rate_hz, _GAP_MS)
    return Wav(gap.join(wav.pcm for wav in wavs), wavs[0].rate_hz, 1)


def sentences(text: str) -> list[str]:
    """Return the sentences of `text`: each ends with `.`, `?` or `!` before a space."""
    return [sentence for sentence in re.split(r"(?<=[.?!])\s+", text.strip()) if sentence]


@lru_cache(maxsize=1)
def recordings() -> dict[str, str]:
    """Return which file holds which sentence: `prompts.json`, written by `bench/make_prompts.py`."""
    found: dict[str, str] = json.loads(files(__package__).joinpath("prompts.json").read_text(encoding="utf-8"))
    return found


def _wav(name: str) -> Wav:
    return read_wav(files(__package__).joinpath(name).read_bytes())
