"""Sets up logging for a program: structlog and the ``supervisors`` logger, rendered alike, on stderr.

A library never configures logging by itself: Paddock's command line calls :func:`configure_logging`, and a service
may. Nothing here, or in any event that Paddock logs, holds the text of a prompt or a reply.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import structlog

from paddock.telemetry.outline import OutlinedError

__all__ = ["LEVELS", "LOGGERS", "Renderer", "configure_logging"]

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

LOGGERS = ("paddock", "supervisors")
"""The loggers, with all below them, that are set up; those of a host program are left alone."""

Renderer = Literal["console", "json"]

_REASON_LENGTH = 200


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at that moment, so that a live display can put lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass  # there is no stderr, or whoever read stderr has gone away, which is no reason to fail


def configure_logging(level: str = "warning", *, renderer: Renderer = "console") -> None:
    """Sends the log of Paddock and its supervisors to stderr, from ``level`` upwards; may be called again.

    ``level`` is one of :data:`LEVELS`. ``renderer`` is ``"console"`` for people (coloured on a terminal, unless
    ``NO_COLOR`` is set) or ``"json"``, one object a line. Raises KeyError for an unknown level.
    """
    threshold = LEVELS[level]
    stamped: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *stamped,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*stamped, _report_fields],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(renderer)],
        )
    )
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for old in [present for present in logger.handlers if isinstance(present, _StderrHandler)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(threshold)
        logger.propagate = False


def _rendering(renderer: Renderer) -> list[structlog.typing.Processor]:
    if renderer == "json":
        return [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(default=repr)]
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return [
        structlog.dev.ConsoleRenderer(
            colors=coloured, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    ]


def _report_fields(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A report of ``supervisors`` by its harmless fields: a process's last message and state may hold a prompt."""
    record: logging.LogRecord | None = event.get("_record")
    report = getattr(record, "report", None)
    if report is None:
        return event
    event.pop("exc_info", None)
    reason = report.reason
    exception = getattr(reason, "exception", None)
    if hasattr(report, "supervisor"):
        event["event"] = f"supervisor report: {report.context}"
        event["supervisor"] = repr(report.supervisor)
        event["child"] = str(getattr(report.offender, "id", None))
    else:
        event["event"] = "process crashed"
    event["pid"] = repr(report.pid)
    if isinstance(exception, OutlinedError):
        event["exception_type"] = exception.kind
        event["raised_at"] = exception.frames[-1] if exception.frames else None
    elif isinstance(exception, BaseException):
        event["exception_type"] = type(exception).__name__
        event["raised_at"] = _innermost_frame(exception)
    else:
        event["reason"] = repr(reason)[:_REASON_LENGTH]
    return event


def _innermost_frame(exception: BaseException) -> str | None:
    trace = exception.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} in {code.co_qualname}"
