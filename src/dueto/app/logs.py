"""Log lines: one JSON object per event, with `ts`, `level`, `event` and `call` in front, and nothing secret in it."""

import logging
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from dueto.app.redact import redact

_FIRST = ("ts", "level", "event", "call")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(
    format: Literal["json", "console"],
    stream: TextIO,
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    worker: str = "",
) -> None:
    """Send every log line of this process to `stream`, from structlog and from `logging` alike.

    `ts` is UTC, ISO 8601, in microseconds; `worker` stands in each where there are several. Of other libraries only
    warnings and worse are taken. May be called again.
    """
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        _redact,
    ]
    if worker:
        shared.insert(0, lambda logger, method, event: {**event, "worker": worker})
    renderer: Processor
    if format == "json":
        renderer = _render_json
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), timestamp_key="ts")
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge(logging.WARNING))


def call_logger(unique_id: str) -> FilteringBoundLogger:
    """Return a logger whose lines carry the call's id. It follows the configuration of the moment it is asked for."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger.bind(call=unique_id) if unique_id else logger.bind()


class _Bridge(logging.Handler):
    """Brings what others log with the standard library, asyncio for one, into the same stream and form."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.get_logger().log(
                record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
            )
        except Exception:
            self.handleError(record)


def _redact(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return redact(line)


def _render_json(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    ordered = {key: line[key] for key in _FIRST if key in line}
    return msgspec.json.encode({**ordered, **line}).decode()
