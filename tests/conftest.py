"""What every test starts from."""

import logging
import sys
from collections.abc import Iterator

import hypothesis
import pytest
import structlog
from tests.support.at_once import pytest_pyfunc_call  # noqa: F401

hypothesis.settings.register_profile("any machine", deadline=None)  # how long an example takes, others have a say in
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """No test sees how another one configured the log, nor pays for it: rich draws a traceback in 100 ms."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if logs := sys.modules.get("dueto.app.logs"):
        root = logging.getLogger()
        for bridge in [handler for handler in root.handlers if isinstance(handler, logs._Bridge)]:
            root.removeHandler(bridge)


@pytest.fixture(scope="module")
def patient_switch() -> Iterator[None]:
    """The simulated audio module waits for its upgrade while the machine is busy; the real one gives up after 1 s."""
    from dueto.sim.audio_module import AudioModule

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AudioModule, "connect_limit_s", 30.0)
        yield
