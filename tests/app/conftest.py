"""What every test of the application starts from."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """No test sees how another one configured the log."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
