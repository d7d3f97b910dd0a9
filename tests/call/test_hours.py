"""Opening hours: read as people write them, and never a loop."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.call.hours import Hours, open_destination
from dueto.call.ports import Destination
from dueto.errors import LocalProtocolError

MONDAY = datetime(2026, 11, 23)


def at(day: int, clock: str) -> datetime:
    hours, minutes = map(int, clock.split(":"))
    return MONDAY + timedelta(days=day, hours=hours, minutes=minutes)


@pytest.mark.parametrize(
    ("text", "now", "is_open"),
    [
        ("mon-fri 09:00-18:00", at(0, "09:00"), True),
        ("mon-fri 09:00-18:00", at(0, "08:59"), False),
        ("mon-fri 09:00-18:00", at(4, "17:59"), True),
        ("mon-fri 09:00-18:00", at(4, "18:00"), False),
        ("mon-fri 09:00-18:00", at(5, "12:00"), False),
        ("mon-fri 09:00-18:00, sat 10:00-12:00", at(5, "11:00"), True),
        ("sat-mon 00:00-24:00", at(6, "23:59"), True),
        ("sat-mon 00:00-24:00", at(1, "00:00"), False),
        ("fri 22:00-06:00", at(5, "05:59"), True),
        ("fri 22:00-06:00", at(5, "06:00"), False),
        ("fri 22:00-06:00", at(4, "05:00"), False),
        ("sun 22:00-02:00", at(0, "01:00"), True),
    ],
)
def test_a_time_is_open_or_not(text: str, now: datetime, is_open: bool) -> None:
    assert Hours.parse(text).open_at(now) is is_open


@pytest.mark.parametrize(
    "text", ["", "mon", "09:00-18:00", "mon 9-18", "mon 09:00-25:00", "moo 09:00-18:00", "mon 09:00-09:00", "mon-fri"]
)
def test_what_is_no_hours_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="expected"):
        Hours.parse(text)


@given(st.integers(0, 6), st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 7 * 1440 - 1))
def test_a_span_is_open_for_as_long_as_it_says(day: int, opens: int, closes: int, minute: int) -> None:
    if opens == closes:
        return
    name = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[day]
    text = f"{name} {opens // 60:02}:{opens % 60:02}-{closes // 60:02}:{closes % 60:02}"
    begin = day * 1440 + opens
    length = (closes - opens) % 1440
    expected = (minute - begin) % (7 * 1440) < length
    assert Hours.parse(text).open_at(MONDAY + timedelta(minutes=minute)) is expected


def test_the_first_open_one_of_the_fall_backs_takes_the_call() -> None:
    table = {
        "sales": Destination("sales", "user/1", when="mon-fri 09:00-18:00", fallback="night"),
        "night": Destination("night", "user/2", when="mon-fri 18:00-23:00", fallback="voicemail"),
        "voicemail": Destination("voicemail", "user/3"),
        "alone": Destination("alone", "user/4", when="mon 09:00-10:00"),
    }
    named = {clock: open_destination("sales", table, at(0, clock)) for clock in ("10:00", "19:00", "23:30")}
    assert {clock: found and found.name for clock, found in named.items()} == {
        "10:00": "sales",
        "19:00": "night",
        "23:30": "voicemail",
    }
    assert open_destination("alone", table, at(1, "09:30")) is None
