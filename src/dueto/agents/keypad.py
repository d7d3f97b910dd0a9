"""Keys that belong together: what a caller types is one input, not one per key."""

import asyncio
from collections.abc import Callable
from typing import Final

MOST_DIGITS: Final = 64


class Keypad:
    """Gathers keys until a pause, or `#`."""

    def __init__(self, pause_s: float, *, began: Callable[[], None], typed: Callable[[str], None]) -> None:
        """`began`: the first key of an input was pressed. `typed`: the whole of it."""
        self._pause_s = pause_s
        self._began = began
        self._typed = typed
        self._digits = ""
        self._timer: asyncio.TimerHandle | None = None

    def press(self, digit: str) -> None:
        """A key."""
        if not self._digits:
            self._began()
        self._digits = (self._digits + digit)[-MOST_DIGITS:]
        self.stop()
        pause_s = 0.0 if digit == "#" else self._pause_s
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._flush)

    def stop(self) -> None:
        """Nothing more is told."""
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self) -> None:
        digits, self._digits = self._digits, ""
        self._typed(digits)
