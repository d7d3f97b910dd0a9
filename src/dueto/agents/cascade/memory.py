"""What a cascade's model knows of its conversation: as it was heard, in an order that chat models accept. Pure."""

from dataclasses import dataclass, field, replace
from typing import Final

from dueto.agents.cascade.ports import Message, Want
from dueto.agents.ports import Line
from dueto.agents.remembered import heard_words

MOST_MESSAGES: Final = 200
MOST_CHARS: Final = 48_000


@dataclass(slots=True)
class Answer:
    """An answer: its sentences, and how long each of them sounds."""

    sentences: list[tuple[str, int]] = field(default_factory=list)
    "Text and milliseconds."

    def words(self, heard_ms: int) -> str:
        """What was heard of it."""
        said = []
        for text, ms in self.sentences:
            if heard_ms <= 0:
                break
            said.append(heard_words(text, heard_ms / ms if ms else 1.0))
            heard_ms -= ms
        return " ".join(part for part in said if part)


class Memory:
    """The conversation so far. While tools run, what else is said stands behind their outcomes."""

    def __init__(self, instructions: str, lines: tuple[Line, ...] = ()) -> None:
        self._first = [Message("system", instructions)] if instructions else []
        self._messages: dict[str, Message] = {}
        self._later: list[Message] = []
        self._open: set[str] = set()
        "Wants whose outcome is not there yet."
        self._names = 0
        for line in lines:
            self.add(Message("user" if line.who == "caller" else "assistant", line.text))

    def add(self, message: Message) -> None:
        """Something was said, or happened."""
        if self._open:
            self._later.append(message)
        else:
            self._put(f"#{self._next()}", message)

    def said(self, item_id: str, text: str) -> None:
        """What an answer says so far, or what of it was heard after all."""
        known = self._messages.get(item_id)
        self._put(item_id, Message("assistant", text) if known is None else replace(known, text=text))

    def wants(self, item_id: str, wants: tuple[Want, ...]) -> None:
        """An answer wants tools: their outcomes follow it."""
        known = self._messages.get(item_id, Message("assistant", ""))
        self._put(item_id, replace(known, wants=wants))
        self._open.update(want.ask_id for want in wants)

    def outcome(self, ask_id: str, text: str) -> None:
        """What a tool brought. Once all have, what was said meanwhile takes its place."""
        self._open.discard(ask_id)
        self._put(f"#{self._next()}", Message("tool", text, ask_id=ask_id))
        if not self._open:
            later, self._later = self._later, []
            for message in later:
                self.add(message)

    def messages(self) -> list[Message]:
        """What the model reads; the oldest are left out where it would be too much."""
        kept: list[Message] = []
        chars = 0
        for message in reversed([m for m in self._messages.values() if m.text or m.wants]):
            chars += len(message.text)
            if chars > MOST_CHARS and kept:
                break
            kept.append(message)
        while kept and kept[-1].role == "tool":  # its question was left out
            kept.pop()
        return [*self._first, *reversed(kept)]

    def _next(self) -> int:
        self._names += 1
        return self._names

    def _put(self, name: str, message: Message) -> None:
        self._messages[name] = message
        while len(self._messages) > MOST_MESSAGES:
            del self._messages[next(iter(self._messages))]
