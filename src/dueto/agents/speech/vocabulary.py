"""What can be understood: the words of the destinations, yes and no, and the small talk around them."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from dueto.call.ports import Destination
from dueto.errors import SettingsError

YES = "yes"
NO = "no"
GOODBYE = "goodbye"
HELLO = "hello"
THANKS = "thanks"

_OPENINGS = (
    "[hello | hi] [this is for] the",
    "[hello | hi] (i want | i need | give me) [the]",
    "[hello | hi] (can | could | may) i (speak | talk) to [the]",
    "[hello | hi] (i'd like | i would like | i want | i need) to (speak | talk) to [the]",
    "[hello | hi] [can you | could you] [please] (connect | transfer | put) me [through] to [the]",
    "hello",
    "hi",
)
_CLOSINGS = ("please", "department", "department please", "thank you", "thanks")
_ANSWERS: Mapping[str, str] = {
    YES: "yes | yes please | yeah | okay | correct | that's right",
    NO: "no | no thank you | no thanks | no no | wrong | that's wrong | stop",
    GOODBYE: "goodbye | bye | bye bye | thank you goodbye | thank you bye | thanks bye",
    THANKS: "thank you | thanks | thank you very much | please",
    HELLO: "hello | hi | hello hello | good morning | good afternoon | hello good morning",
    # What callers say to a machine and mean nobody: known, so that it is not taken for a department.
    "": "hold on | hold on a second | wait | one moment | sorry | pardon | what | excuse me | um | i don't know | help",
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All a recogniser needs to know; plain values, so that it can be sent to another process."""

    worker: ClassVar[str] = "dueto.agents.speech.worker"
    "The process that understands it."

    phrases: tuple[str, ...]
    "What callers may say for the destinations, in lower case."
    pronunciations: tuple[str, ...]
    "Lines of the dictionary: every word of the grammar, no other."

    @property
    def grammar(self) -> str:
        """The JSGF grammar: a phrase with the words people put around it, or an answer."""
        answers = " | ".join(_ANSWERS.values())
        return "\n".join(
            (
                "#JSGF V1.0;",
                "grammar dueto;",
                "public <utterance> = [<opening>] <phrase> [<closing>] | <answer>;",
                f"<opening> = {' | '.join(_OPENINGS)};",
                f"<phrase> = {' | '.join(self.phrases)};",
                f"<closing> = {' | '.join(_CLOSINGS)};",
                f"<answer> = {answers};",
            )
        )

    def meaning(self, words: Sequence[str]) -> tuple[str, int, int]:
        """Return which phrase or answer `words` are, and the first and last word of it: `("sales", 4, 4)`.

        The longest phrase wins. An answer that means nothing here (hold on) is `""`.
        """
        said = list(words)
        for phrase in sorted(self.phrases, key=lambda text: -len(text.split())):
            parts = phrase.split()
            for at in range(len(said) - len(parts), -1, -1):
                if said[at : at + len(parts)] == parts:
                    return phrase, at, at + len(parts) - 1
        text = " ".join(said)
        for meaning, spoken in _ANSWERS.items():
            if text in spoken.split(" | "):
                return meaning, 0, len(said) - 1
        return "", 0, len(said) - 1

    def to_json(self) -> bytes:
        """Return the vocabulary for another process."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Vocabulary":
        """Return what `to_json` wrote."""
        fields = json.loads(data)
        return cls(tuple(fields["phrases"]), tuple(fields["pronunciations"]))


def spoken(destination: Destination) -> tuple[str, ...]:
    """Return what a caller may say for `destination`, in lower case: its words, else its name (`_` is a space)."""
    given = destination.words or (destination.name.replace("_", " ").replace("-", " "),)
    return tuple(dict.fromkeys(" ".join(text.lower().split()) for text in given if text.strip()))


def build_vocabulary(destinations: Iterable[Destination], dictionary: Path) -> Vocabulary:
    """Return the vocabulary for `destinations`, each of its words looked up in `dictionary`.

    Raises: SettingsError: a word has no pronunciation, is no word, or means two things; the text names the nearest.
    """
    owners: dict[str, str] = {}
    reserved = {text.strip() for answers in _ANSWERS.values() for text in answers.split(" | ")}
    for destination in destinations:
        for phrase in spoken(destination):
            where = f'[destinations.{destination.name}] words: "{phrase}"'
            if not re.fullmatch(r"[a-z][a-z' .-]*", phrase):
                raise SettingsError(f"{where}: letters only, please; write numbers out, as they are spoken")
            if phrase in reserved:
                raise SettingsError(f"{where} is an answer that callers give to any question; choose another word")
            if owners.setdefault(phrase, destination.name) != destination.name:
                raise SettingsError(f"{where} is also a word of [destinations.{owners[phrase]}]; one of them must go")
    if not owners:
        raise SettingsError(
            'the receptionist has nobody to transfer to; add [destinations.NAME] with dial = "user/1001"'
        )
    phrases = tuple(owners)
    fixed = re.findall(r"[a-z']+", " ".join((*_OPENINGS, *_CLOSINGS, *_ANSWERS.values())))
    wanted = {word for phrase in phrases for word in phrase.split()}
    lines = _pronunciations(dictionary, wanted | set(fixed))
    missing = sorted(wanted - lines.keys())
    if missing:
        raise SettingsError(_unknown(missing[0], owners, dictionary))
    return Vocabulary(phrases, tuple(line for word in sorted(lines) for line in lines[word]))


def _pronunciations(dictionary: Path, wanted: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with dictionary.open(encoding="utf-8") as lines:
        for line in lines:
            word = line.split(maxsplit=1)[0].partition("(")[0]
            if word in wanted:
                found.setdefault(word, []).append(line.rstrip())
    return found


def _unknown(word: str, owners: Mapping[str, str], dictionary: Path) -> str:
    """Return the sentence that says what to write instead."""
    name = next(owner for phrase, owner in owners.items() if word in phrase.split())
    with dictionary.open(encoding="utf-8") as lines:
        known = {line.split(maxsplit=1)[0].partition("(")[0] for line in lines}
    pieces = _pieces(word, known)
    near = difflib.get_close_matches(word, (other for other in known if other[:1] == word[:1]), n=4, cutoff=0.7)
    hints = ([f'"{pieces}"'] if pieces else []) + [f'"{other}"' for other in near]
    hint = f"near are {', '.join(hints)}" if hints else "nothing is near"
    text = f'[destinations.{name}] words: the dictionary does not know how "{word}" is spoken; {hint}'
    return f"{text}; write it as known words that sound like it"


def _pieces(word: str, known: set[str]) -> str:
    """Return `word` as two known words, longest first half first; empty if it is none."""
    for at in range(len(word) - 3, 2, -1):
        if word[:at] in known and word[at:] in known:
            return f"{word[:at]} {word[at:]}"
    return ""
