"""The recogniser's process: `python -m dueto.agents.speech.worker`. Utterances come on stdin, answers go to stdout.

Messages are those of `pipe.py`. First comes the vocabulary, answered by an empty
message when the model is loaded, or by one that says why not; then utterances (L16, 8 kHz), each answered by JSON. The
end of stdin ends the process: a gateway that was killed leaves none behind.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Final

from dueto.agents.speech.decoder import Recogniser, Understood
from dueto.agents.speech.model import find_model
from dueto.agents.speech.pipe import read, write
from dueto.agents.speech.vocabulary import Vocabulary

NICENESS: Final = 5
"Audio on its way to a caller comes before a recogniser that has half a second."


def serve(load: Callable[[bytes], Callable[[bytes], Understood]]) -> None:
    """Have `load` make of the first message what understands the others; answer them until the end of stdin."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between two answers
    os.nice(NICENESS)
    requests = sys.stdin.buffer
    first = read(requests)
    if first is None:
        return
    try:
        understand = load(first)
    except Exception as error:
        write(answers, f"{type(error).__name__}: {error}".encode())
        return
    write(answers, b"")
    while (pcm := read(requests)) is not None:
        understood = understand(pcm)
        write(answers, json.dumps([understood.text, understood.confidence]).encode())


if __name__ == "__main__":
    serve(lambda first: Recogniser(Vocabulary.from_json(first), find_model()).understand)
