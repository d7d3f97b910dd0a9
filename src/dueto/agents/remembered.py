"""What a provider's next session is told of the one before: a conversation as text, no longer than is useful."""

from dataclasses import dataclass
from typing import Final, Literal

from dueto.agents.ports import Line

Role = Literal["user", "assistant", "system"]
MOST_ENTRIES: Final = 200
MOST_CHARS: Final = 24_000


@dataclass(slots=True)
class _Entry:
    role: Role
    text: str = ""
    share: float = 1.0


class Remembered:
    """Lines by the item they belong to: their words often come after their turn, and may be cut afterwards."""

    def __init__(self, lines: tuple[Line, ...] = ()) -> None:
        self._entries: dict[str, _Entry] = {}
        self._names = 0
        for line in lines:
            self.add("user" if line.who == "caller" else "assistant", line.text)

    def add(self, role: Role, text: str) -> None:
        """Something was said, or happened."""
        self._names += 1
        self._entry(f"#{self._names}", role).text = text

    def reserve(self, item_id: str, role: Role) -> None:
        """An item takes its place; its words come later."""
        self._entry(item_id, role)

    def words(self, item_id: str, role: Role, text: str) -> None:
        """The words of an item."""
        self._entry(item_id, role).text = text

    def cut(self, item_id: str, share: float) -> None:
        """Only so much of the item was heard: 0.0 to 1.0."""
        if item_id in self._entries:
            self._entries[item_id].share = share

    def lines(self) -> list[tuple[Role, str]]:
        """Return what is worth telling, oldest first."""
        kept: list[tuple[Role, str]] = []
        chars = 0
        for entry in reversed(self._entries.values()):
            text = heard_words(entry.text, entry.share)
            chars += len(text)
            if chars > MOST_CHARS:
                break
            if text:
                kept.append((entry.role, text))
        return kept[::-1]

    def _entry(self, name: str, role: Role) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(role)
            while len(self._entries) > MOST_ENTRIES:
                del self._entries[next(iter(self._entries))]
        return entry


def heard_words(text: str, share: float) -> str:
    """Return the words that were heard of `text` if `share` (0.0 to 1.0) of its sound was; a cut is shown by dots."""
    if share >= 1.0:
        return text
    words = text.split()
    heard = words[: round(len(words) * max(share, 0.0))]
    return " ".join(heard) + (" ..." if heard and len(heard) < len(words) else "")
