"""Logging: one line per entry, logfmt, fixed field names (operations specification 5).

``log = get_logger(__name__)``; events are short fixed phrases, details are fields.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
_NAMES: Final = {"warn": "warning", "critical": "fatal", "exception": "error"}
_PLAIN: Final = re.compile(r"[A-Za-z0-9\-._/@^+]+", re.ASCII)
_FIRST: Final = ("time", "level", "msg")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; cheap when its level is off."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(logger_name=name)
    return logger


def configure(level: str) -> None:
    """Set up logging to stderr. An unknown level becomes ``info``, with a warning."""
    known = level.lower() or "info"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            render_logfmt,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(known, logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    if known not in LEVELS:
        get_logger(__name__).warning("Could not parse log level, setting to INFO", level=level)


def render_logfmt(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """One line: time, level, msg, then the other fields sorted by name."""
    event["msg"] = event.pop("event", "")
    event["level"] = _NAMES.get(event.get("level", ""), event.get("level", ""))
    event.pop("logger_name", None)
    rest = sorted(key for key in event if key not in _FIRST)
    return " ".join([f"{key}={_value(event[key])}" for key in (*_FIRST, *rest) if key in event])


def _value(value: Any) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return '"' + "".join([c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped]) + '"'
