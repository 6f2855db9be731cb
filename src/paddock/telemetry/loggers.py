"""Loggers that suit a library: structlog's where the application has configured structlog, else the standard library's.

structlog without configuration prints every level to stdout, which a program that only embeds Paddock must not find
there. The standard library's default is what such a program expects: warnings and errors, on stderr.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog

__all__ = ["Logger", "get_logger"]


_RESERVED = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})


def _rename_reserved(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A log record has attributes of its own; a field of the same name gets an underscore behind it."""
    for name in _RESERVED.intersection(event) - {"exc_info", "stack_info", "stacklevel"}:
        event[f"{name}_"] = event.pop(name)
    return event


class Logger:
    """``debug``, ``info``, ``warning``, ``error``, ``exception`` and ``bind``, as structlog's loggers have them.

    Which logger stands behind it is decided at each call, so an application may configure logging at any time.
    """

    __slots__ = ("_name", "_standard")

    def __init__(self, name: str) -> None:
        self._name = name
        self._standard = structlog.wrap_logger(
            logging.getLogger(name),
            processors=[structlog.stdlib.filter_by_level, _rename_reserved, structlog.stdlib.render_to_log_kwargs],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    def __getattr__(self, method: str) -> Any:
        logger = structlog.get_logger(self._name) if structlog.is_configured() else self._standard
        return getattr(logger, method)


def get_logger(name: str) -> Logger:
    """A logger under the name of a standard library logger, ``paddock.something``."""
    return Logger(name)
