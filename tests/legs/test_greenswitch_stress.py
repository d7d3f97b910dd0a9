"""A small stress of the greenswitch engine; `bench/greenswitch_stress.py` is the large one and says what is done."""

import faulthandler
from collections.abc import Iterator

import pytest
from bench.greenswitch_stress import ENDINGS, stress


@pytest.fixture
def watchdog() -> Iterator[None]:
    """Print every thread's stack before the test's own time-out ends it without one."""
    faulthandler.dump_traceback_later(50)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.usefixtures("watchdog")
async def test_twenty_calls_at_once_lose_nothing_while_both_sides_are_slow() -> None:
    result = await stress(20, 3.0)
    assert result.faults() == []
    assert {call.ending for call in result.calls} == set(ENDINGS)
    assert sum(call.outcomes["answered"] for call in result.calls) > 0
