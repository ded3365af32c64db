"""The gateway's log on standard error: a readable line per event on a terminal, else a JSON object per line.

Fields of an event are given as `extra`: `log.info("…", extra={"model": "iris", "version": "3"})`. The field
`source` says which process's words these are (what a worker printed); without it they are the gateway's own.
Payloads and secrets are never logged. Loggers have names of their own, which users filter by (docs/operations.md lists
them), not those of the modules that they are in.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from typing import Any, Literal, TextIO

import orjson

_ORDINARY = frozenset(
    {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName", "source"}
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_DIM = "2"


def configure(
    level: str = "info", format: Literal["auto", "text", "json"] = "auto", stream: TextIO | None = None
) -> None:
    """Send everything that is logged in this process to `stream` (default: standard error). May be called again."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    as_text = format == "text" or (format == "auto" and terminal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Text(colours=terminal and not os.environ.get("NO_COLOR")) if as_text else _Json())
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, (_Text, _Json)):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    # asyncio says at debug which selector it uses, and so on: not what somebody asks for with level debug.
    logging.getLogger("asyncio").setLevel(max(logging.INFO, root.level))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _ORDINARY}


def _one_line(text: str) -> str:
    """Control characters shown, not obeyed: a name in a request must not write lines of its own."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class _Text(logging.Formatter):
    """`12:03:04.123 INFO    modelhub.models  message  key=value`; a worker's words stand behind its label alone.

    A model that the message begins with (`wine/3 …`) is not said again.
    """

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        source = getattr(record, "source", None)
        level = self._paint(f"{record.levelname:<7}", _COLOURS.get(record.levelname, "0"))
        where = self._paint(f"[{source}]" if source else record.name, _DIM)
        message = record.getMessage()
        fields = {} if source else _fields(record)
        if "version" in fields and message.startswith(f"{fields.get('model')}/{fields['version']}"):
            fields = {name: value for name, value in fields.items() if name not in ("model", "version")}
        parts = [f"{clock}.{int(record.msecs):03}", level, where, _printable(message)]
        parts += [f"{name}={_one_line(str(value))}" for name, value in fields.items()]
        if record.exc_info:
            parts[-1] += "\n" + self.formatException(record.exc_info)
        return " ".join(parts)

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


def _printable(message: str) -> str:
    """The lines of a message that we wrote over several lines (a traceback) stay lines, indented."""
    first, *more = message.split("\n")
    return "\n    ".join([_one_line(first), *(_one_line(line) for line in more)])


class _Json(logging.Formatter):
    """`{"time", "level", "logger", "message", …fields, "exception"?}`; time in UTC, to the millisecond."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event: dict[str, Any] = {
            "time": f"{clock}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        source = getattr(record, "source", None)
        if source:
            event["source"] = source
        event["message"] = record.getMessage()
        event |= _fields(record)
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except (TypeError, ValueError):  # text that is no Unicode, an integer of more than 64 bits
            return orjson.dumps({key: _safe(value) for key, value in event.items()}).decode()


def _safe(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
