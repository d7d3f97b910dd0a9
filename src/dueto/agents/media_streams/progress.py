"""Status callbacks: how a call goes on, told to a bot as Twilio tells it: signed forms, in order, best effort."""

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, Literal

import structlog

from dueto.agents.media_streams.verbs import Method
from dueto.agents.media_streams.webhook import Webhooks
from dueto.errors import ProviderFailed

Event = Literal["initiated", "ringing", "answered", "completed"]
EVENTS: Final[tuple[Event, ...]] = ("initiated", "ringing", "answered", "completed")
MOST_AT_ONCE: Final = 200
"Calls that are being told of; of more nothing is told, and the log says so."
LAST_WORDS_S: Final = 2.0
"At the end of the gateway: how long the last ones may take."


@dataclass(frozen=True, slots=True)
class Wish:
    """What a bot wants to be told of a call."""

    url: str
    events: frozenset[Event] = frozenset(("completed",))
    method: Method = "POST"


class Progress:
    """One call's, told to one bot."""

    def __init__(self, reporter: "Reporter", wish: Wish) -> None:
        self.wish = wish
        self.waiting: deque[dict[str, str]] = deque()
        "Forms that are not sent yet: four at most."
        self._reporter = reporter
        self._told = 0

    def tell(self, event: Event, form: Mapping[str, str], status: str, seconds: float | None = None) -> None:
        """Tell of `event`, if the bot wants to know; `seconds`: how long the call was. Waits for nothing."""
        if event not in self.wish.events:
            return
        more = {
            "CallStatus": status,
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(self._told),
            "Timestamp": format_datetime(datetime.now(UTC)),
        }
        if seconds is not None:
            more |= {"CallDuration": str(round(seconds)), "Duration": str(max(1, math.ceil(seconds / 60)))}
        self._told += 1
        self.waiting.append({**form, **more})
        self._reporter.send(self)


class Reporter:
    """Sends them, those of one call one after the other."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._sending: dict[Progress, asyncio.Task[None]] = {}

    def send(self, progress: Progress) -> None:
        """Send what waits there."""
        if progress in self._sending:
            return
        if len(self._sending) >= MOST_AT_ONCE:
            self._dropped(progress, "too many are being told already")
            progress.waiting.clear()
            return
        self._sending[progress] = asyncio.get_running_loop().create_task(self._send(progress), name="status callback")

    async def aclose(self) -> None:
        """Send what waits, for a moment, and nothing more."""
        tasks = set(self._sending.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=LAST_WORDS_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send(self, progress: Progress) -> None:
        try:
            while progress.waiting:
                form = progress.waiting.popleft()
                try:
                    await self._webhooks.send(progress.wish.url, form, progress.wish.method)
                except ProviderFailed as failure:
                    self._dropped(progress, str(failure), form.get("CallSid", ""))
        finally:
            del self._sending[progress]

    def _dropped(self, progress: Progress, error: str, call_sid: str = "") -> None:
        structlog.get_logger().warning("status_callback_failed", call_sid=call_sid, error=error)
