"""Where the journal of the calls goes: to the log, and to whoever else listens."""

from collections.abc import Mapping

import structlog

from dueto.app.logs import Level, log_line
from dueto.call.house import Journal

__all__ = ["Fields", "Journal", "LogJournal", "fan_out"]

Fields = Mapping[str, object]


_WARNINGS = frozenset(
    {
        "pairing_late",
        "media_missing",
        "media_lost",
        "control_lost",
        "control_not_async",
        "control_not_full",
        "refused",
        "protocol_error",
        "provider_failed",
        "unicast_failed",
        "unicast_unanswered",
        "agent_full",
        "agent_replaced",
        "tenant_full",
    }
)
_ERRORS = frozenset({"agent_failed", "agent_stuck", "recording_failed", "task_failed"})
_DETAILS = frozenset({"custom", "media_text", "hangup_delivered", "transcript"})
_LEVEL: dict[str, Level] = {
    **dict.fromkeys(_WARNINGS, "warning"),
    **dict.fromkeys(_ERRORS, "error"),
    **dict.fromkeys(_DETAILS, "debug"),
}
_TAKEN = frozenset({"event", "level", "ts", "call", "exc_info"})


class LogJournal:
    """Writes each event as a log line of the call; one that it does not know, too."""

    def __call__(self, unique_id: str, event: str, fields: Fields) -> None:
        """Write one line. A field named like a part of the line itself (`event`, `ts`, ...) gets a `_` behind."""
        if not _TAKEN.isdisjoint(fields):
            fields = {f"{name}_" if name in _TAKEN else name: value for name, value in fields.items()}
        log_line(_LEVEL.get(event, "info"), unique_id, event, fields)


def fan_out(*journals: Journal) -> Journal:
    """Return one journal that tells all of `journals`, in that order.

    One that raises harms neither the call nor the others; its first failure is logged, and it goes on being told.
    """
    complained: set[int] = set()

    def tell(unique_id: str, event: str, fields: Fields) -> None:
        for position, journal in enumerate(journals):
            try:
                journal(unique_id, event, fields)
            except Exception as error:
                if position not in complained:
                    complained.add(position)
                    _complain(journal, event, error)

    return tell


def _complain(journal: Journal, event: str, error: Exception) -> None:
    name = getattr(journal, "__qualname__", type(journal).__name__)
    try:
        structlog.get_logger().error("journal_failed", journal=name, failed_on=event, error=error, exc_info=error)
    except Exception:  # the log itself is what failed: there is nobody left to tell, and the call goes on
        return
