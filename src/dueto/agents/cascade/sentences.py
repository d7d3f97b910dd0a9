"""From a stream of text to pieces that can be spoken: whole sentences, the first of them early. Pure."""

import re
from typing import Final

SHORTEST: Final = 12
"Characters: `No. 5` is no sentence of its own, and neither is `Dr.`"
LONGEST: Final = 300
"A text without an end is cut at a comma, or between two words."
FIRST_COMMA: Final = 40
"The first piece may end at a comma after so many characters: the caller waits for it."
_END: Final = re.compile(r"[.!?…][\"'”’)]*\s+(?=[^\s\da-z])|:\s|\n+|[。！？]")
"What follows decides: `no. 5` and `e.g. this` go on."
_COMMA: Final = re.compile(r"[,;–]\s|\s-\s|[，、；]")


class SentenceCutter:
    """Cuts a text that comes piece by piece."""

    def __init__(self) -> None:
        self._waiting = ""
        self._first = True

    def add(self, text: str) -> list[str]:
        """Take more; return what can be spoken now, in order."""
        self._waiting += text
        ready = []
        while (at := self._cut()) > 0:
            piece, self._waiting = self._waiting[:at].strip(), self._waiting[at:]
            if piece:
                ready.append(piece)
                self._first = False
        return ready

    def rest(self) -> list[str]:
        """The text is over: return what is left."""
        piece, self._waiting = self._waiting.strip(), ""
        return [piece] if piece else []

    def _cut(self) -> int:
        """Where the next piece ends; 0: not yet."""
        text = self._waiting
        for found in _END.finditer(text):
            if found.end() >= SHORTEST:
                return found.end()
        if self._first and (comma := _COMMA.search(text, FIRST_COMMA)):
            return comma.end()
        if len(text) < LONGEST:
            return 0
        commas = [found.end() for found in _COMMA.finditer(text, 0, LONGEST)]
        return commas[-1] if commas else text.rfind(" ", 0, LONGEST) + 1 or LONGEST
