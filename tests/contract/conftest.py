"""Every contract test runs over every engine."""

from collections.abc import AsyncIterator

import pytest
from tests.contract.bench import Bench, Line
from tests.contract.engines import ENGINES


@pytest.fixture(params=list(ENGINES))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = Bench(str(request.param))
    try:
        yield bench
    finally:
        await bench.aclose()


@pytest.fixture
async def line(bench: Bench) -> Line:
    return await bench.line()
