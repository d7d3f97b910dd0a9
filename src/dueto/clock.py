"""The one clock. Everything that measures or plans takes a `Clock`; tests pass a virtual event loop's own `time`."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"Seconds on a monotonic scale; only differences mean anything."

monotonic: Clock = time.monotonic
