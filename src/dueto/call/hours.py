"""Opening hours: `mon-fri 09:00-18:00, sat 10:00-12:00`. Pure; `now` is passed in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time

from dueto.call.ports import Destination
from dueto.errors import LocalProtocolError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(r"([a-z]{3})(?:-([a-z]{3}))?\s+(\d\d):(\d\d)-(\d\d):(\d\d)")
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """When somebody is there. A span that ends before it begins goes on past midnight."""

    spans: tuple[tuple[frozenset[int], int, int], ...]
    "Weekdays (0: Monday), and the minutes of the day at which it opens and closes."

    @classmethod
    def parse(cls, text: str) -> "Hours":
        """Raises: LocalProtocolError: a sentence that says what was expected."""
        spans = []
        for part in text.lower().split(","):
            found = _SPAN.fullmatch(part.strip())
            if found is None:
                raise LocalProtocolError(f'expected hours such as "mon-fri 09:00-18:00, sat 10:00-12:00", not "{part}"')
            first, last = found[1], found[2] or found[1]
            if first not in DAYS or last not in DAYS:
                raise LocalProtocolError(f'expected days such as "mon" or "mon-fri", not "{part.strip()}"')
            begin, end = DAYS.index(first), DAYS.index(last)
            days = frozenset(day % 7 for day in range(begin, end + 1 if end >= begin else end + 8))
            opens, closes = (_minutes(found[at], found[at + 1], part) for at in (3, 5))
            if opens == closes:
                raise LocalProtocolError(f'expected an end after the beginning, not "{part.strip()}"')
            spans.append((days, opens, closes))
        return cls(tuple(spans))

    def open_at(self, now: datetime) -> bool:
        """Whether `now` (local time there) falls into one of the spans; the closing minute is not in it."""
        minute = now.hour * 60 + now.minute
        today, yesterday = now.weekday(), (now.weekday() - 1) % 7
        for days, opens, closes in self.spans:
            if opens < closes:
                if today in days and opens <= minute < closes:
                    return True
            elif (today in days and minute >= opens) or (yesterday in days and minute < closes):
                return True
        return False


def _minutes(hours: str, minutes: str, part: str) -> int:
    if hours == "24" and minutes == "00":
        return _DAY_MINUTES
    try:
        at = time(int(hours), int(minutes))
    except ValueError:
        raise LocalProtocolError(f'expected times from 00:00 to 24:00, not "{part.strip()}"') from None
    return at.hour * 60 + at.minute


def open_destination(name: str, destinations: Mapping[str, Destination], now: datetime) -> Destination | None:
    """Return who takes a call for `name` at `now`: that destination, the first open one of its fall-backs, or nobody.

    Raises: KeyError: there is no such destination.
    """
    seen: set[str] = set()
    destination = destinations[name]
    while destination.when and not Hours.parse(destination.when).open_at(now):
        seen.add(destination.name)
        if not destination.fallback or destination.fallback in seen:
            return None
        destination = destinations[destination.fallback]
    return destination
