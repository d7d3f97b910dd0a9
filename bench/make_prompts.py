"""Record the receptionist's sentences for machines without a synthesiser: `python -m bench.make_prompts` (needs flite).

They are the standard sentences, and those of the usual departments on the keys 1 to 3 and 0.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import dueto.agents.speech.prompts as prompts
from dueto.agents.sentences import Sentences
from dueto.audio.pcm import Wav, read_wav, write_wav
from dueto.call.ports import Destination

VOICE = "slt"
USUAL = (
    Destination("sales", "", ("sales",), "1"),
    Destination("support", "", ("support",), "2"),
    Destination("billing", "", ("billing",), "3"),
    Destination("operator", "", ("operator",), "0"),
)
_QUIET = 150
"A sample this small at either end is silence."
_MARGIN_MS = 30


def main() -> None:
    """Record every sentence into the package, and the list of them beside it."""
    folder = Path(prompts.__file__).parent
    for old in folder.glob("*.wav"):
        old.unlink()
    wanted = dict.fromkeys(sentence for text in Sentences(USUAL).all() for sentence in prompts.sentences(text))
    index = {}
    total_bytes = 0
    for sentence in wanted:
        name = _file_name(sentence)
        wav = _trimmed(_spoken(sentence))
        data = write_wav(wav.pcm, wav.rate_hz)
        (folder / name).write_bytes(data)
        index[sentence] = name
        total_bytes += len(data)
    (folder / "prompts.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    print(f"{len(index)} sentences, {total_bytes} bytes, in {folder}")


def _file_name(sentence: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in sentence.lower()).split()
    return "-".join(words) + ".wav"


def _spoken(text: str) -> Wav:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.wav")
        subprocess.run(["flite", "-voice", VOICE, "-t", text, "-o", str(out)], check=True, timeout=20)
        return read_wav(out.read_bytes())


def _trimmed(wav: Wav) -> Wav:
    loud = np.flatnonzero(np.abs(np.frombuffer(wav.pcm, "<i2").astype(np.int32)) > _QUIET)
    margin = wav.rate_hz * _MARGIN_MS // 1000
    first, last = max(int(loud[0]) - margin, 0), int(loud[-1]) + margin
    return Wav(wav.pcm[2 * first : 2 * last], wav.rate_hz, 1)


if __name__ == "__main__":
    main()
