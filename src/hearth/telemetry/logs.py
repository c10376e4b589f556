"""The log of a process: one line per entry, logfmt, fixed field names (operations specification 5).

``log = get_logger(__name__)``; events are short fixed phrases, details are fields. The entry point of a command calls
:func:`configure`; until then, and after :func:`reset`, structlog prints lines its own way.
"""

from __future__ import annotations

import atexit
import functools
import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import msgspec

from hearth.telemetry import sinks
from hearth.telemetry.redaction import redact

# structlog imports Rich, if it is installed, for a renderer that is unused here: a tenth of a start, and 5 MiB.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # makes an import fail
try:
    import structlog
finally:
    if sys.modules["rich"] is None:
        del sys.modules["rich"]

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


_COLOURS: Final = {"debug": 37, "warning": 33, "error": 31, "fatal": 31}
_INFO_COLOUR: Final = 36


class LogLevels:
    """Which levels are written.

    Attributes:
        debug: Debug lines are written. Reading this is cheaper than logging a line that is not written.
        functions: The output of functions is written, at debug.
    """

    __slots__ = ("debug", "functions")

    def __init__(self) -> None:
        self.debug = True
        self.functions = True


log_levels: Final = LogLevels()
#: The last of structlog's processors.
Renderer = Callable[[Any, str, MutableMapping[str, Any]], str]

_writer: sinks.Writer | None = None


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module; cheap when its level is off."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(logger_name=name)
    return logger


def configure(
    level: str = "info",
    destination: str = "stderr",
    prefix: str = "",
    *,
    as_json: bool = False,
    with_functions: bool = True,
) -> None:
    """Set up the log; never fails. An unknown level becomes ``info``, an unavailable destination stderr; it says so.

    Args:
        level: One of ``LEVELS``, in any case; empty: ``info``.
        destination: ``stderr``, ``file:///path``, ``udp://host:port`` or ``tcp://host:port``.
        prefix: The tag of lines for syslog.
        as_json: Each line is a JSON object.
        with_functions: At level debug, write the output of functions, too.
    """
    global _writer
    failure = ""
    try:
        sink, warning = sinks.open_sink(destination, prefix)
    except sinks.Unusable as exc:
        sink, warning, failure = sinks.stderr(), "", str(exc)
    close()
    _writer = sinks.Writer(sink)
    known = level.lower() or "info"
    number = LEVELS.get(known, logging.INFO)
    log_levels.debug = number <= logging.DEBUG
    log_levels.functions = log_levels.debug and with_functions
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    is_coloured = is_terminal and isinstance(sink, sinks.File) and destination in ("", "stderr")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            without_secrets(render_json if as_json else render_for_people if is_coloured else render_logfmt),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *args: _Lines(_writer),
        cache_logger_on_first_use=False,
    )
    logging.getLogger().addHandler(_from_libraries)
    log = get_logger(__name__)
    if failure:
        log.error(failure, destination=destination)
    elif warning:
        log.warning(warning, destination=destination)
    if known not in LEVELS:
        log.warning("Could not parse log level, setting to INFO", level=level)


def close() -> None:
    """Write what is left. Later lines are lost, until :func:`configure`."""
    global _writer
    if _writer is not None:
        _writer.close()
        _writer = None


def reset() -> None:
    """Close the log, and undo :func:`configure`."""
    close()
    log_levels.debug = log_levels.functions = True
    structlog.reset_defaults()
    logging.getLogger().removeHandler(_from_libraries)


def dropped() -> int:
    """Return how many lines the destination did not take."""
    return _writer.dropped if _writer is not None else 0


class _Lines:
    """The end of structlog's chain: one method for each level."""

    def __init__(self, writer: sinks.Writer | None) -> None:
        self._writer = writer

    def __getattr__(self, level: str) -> Callable[[str], None]:
        return functools.partial(self._put, level)

    def _put(self, level: str, text: str) -> None:
        if self._writer is not None:
            self._writer.put(level, text)


class _FromStdlib(logging.Handler):
    """Takes the lines of libraries."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "critical" if record.levelno >= logging.CRITICAL else record.levelname.lower()
        log = getattr(get_logger(record.name), level, None)
        if log is not None:
            log(record.getMessage(), logger=record.name, exc_info=record.exc_info or None)


_from_libraries: Final = _FromStdlib(logging.WARNING)


def without_secrets(render: Renderer) -> Renderer:
    """Return a renderer whose lines show no secrets. Functions may show their own."""

    def rendered(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        by_function = "user_log" in event or "between_log" in event
        return redact(render(logger, method, event), by_function=by_function)

    return rendered


def render_logfmt(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return one line: time, level, msg, then the other fields sorted by name."""
    _name(event)
    return " ".join([f"{key}={_value(event[key])}" for key in (*_FIRST, *_rest(event)) if key in event])


def render_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return one JSON object: time, level, msg, then the other fields sorted by name."""
    _name(event)
    keys = (*_FIRST, *_rest(event))
    return msgspec.json.encode({key: _json_value(event[key]) for key in keys if key in event}).decode()


def render_for_people(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return one line for a terminal: level and time in front, the other fields behind the message."""
    _name(event)
    colour = _COLOURS.get(event["level"], _INFO_COLOUR)
    fields = "".join([f" \x1b[{colour}m{key}\x1b[0m={_value(event[key])}" for key in _rest(event)])
    level = event["level"].upper()[:4]
    return f"\x1b[{colour}m{level}\x1b[0m[{event['time']}] {_escaped(str(event['msg'])):<44}{fields}"


def _name(event: MutableMapping[str, Any]) -> None:
    event["msg"] = event.pop("event", "")
    event["level"] = _NAMES.get(event.get("level", ""), event.get("level", ""))
    event.pop("logger_name", None)


def _rest(event: MutableMapping[str, Any]) -> list[str]:
    return sorted(key for key in event if key not in _FIRST)


def _value(value: Any) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    return '"' + _escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _json_value(value: Any) -> bool | int | float | str:
    if isinstance(value, bool | int | float):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()


def _escaped(text: str) -> str:
    escaped = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return "".join([c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped])


atexit.register(close)
