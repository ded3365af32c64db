"""Sizes (`64MiB`) and durations (`30s`) as typed quantities.

`Size` and `Duration` are annotated types for the settings; `parse_size` and `parse_duration` serve
whoever reads one elsewhere (a request header, a command line). All of them raise ValueError with a
message that shows how to write it.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)")
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}i": 1024**power for power, prefix in enumerate("kmgt", start=1)},  # as Kubernetes writes them
}
_DURATION_PART = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(us|ms|s|m|h|d)"
_DURATION = re.compile(rf"(?:{_DURATION_PART}\s*)+")
_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")


def parse_size(value: object) -> int:
    """Bytes from `64MiB`, `2GB`, `1.5GiB`, `512` or an int. A fraction of a byte is dropped.

    Two-letter units are decimal (`GB` = 1000³), `GiB` and Kubernetes' `Gi` are binary.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{_shown(value)} is negative; a size is 0 or more bytes")
        return value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        unit = _SIZE_UNITS.get(match[2].lower()) if match else None
        if match and unit is not None:
            return int(Fraction(match[1]) * unit)
    raise ValueError(f"{_shown(value)} is not a size; write 64MiB, 2GB or a number of bytes")


def format_size(size: float) -> str:
    """Bytes as they are written in a configuration, and in tables: `1.5GiB`, `64MiB`, `0B`; at most one decimal."""
    number, unit = _scaled(size)
    return f"{number:.1f}".removesuffix(".0") + unit


def human_size(size: float) -> str:
    """Bytes within a sentence: `1.5 GiB`, `300 MiB`, `341.3 MiB`; at most four digits."""
    number, unit = _scaled(size)
    return f"{number:.4g} {unit}"


def _scaled(size: float) -> tuple[float, str]:
    """The number and its unit, the largest of which there is at least one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return size, unit
        size /= 1024
    return size, "TiB"


def parse_duration(value: object) -> float:
    """Seconds from `30s`, `250ms`, `1m30s`, `15m`, or a number of seconds; never negative, never infinite."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{value} is not a duration; write 0 or more seconds")
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return float(text)
        if _DURATION.fullmatch(text):
            return math.fsum(float(number) * _DURATION_UNITS[unit] for number, unit in re.findall(_DURATION_PART, text))
    raise ValueError(f"{_shown(value)} is not a duration; write 250ms, 30s, 15m or a number of seconds")


def format_duration(seconds: float) -> str:
    """Seconds for people: `250ms`, `4.2s`, `3m20s`, `2h05m`, `3d04h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _shown(value: object) -> str:
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _positive(parse: Any, what: str) -> Any:
    def parse_positive(value: object) -> Any:
        number = parse(value)
        if number == 0:
            raise ValueError(f"{value!r} must be more than zero; leave the key out for no {what}")
        return number

    return parse_positive


_SIZE_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*([KMGTkmgt]?[Bb]|[KMGTkmgt][Ii][Bb]?)?$"},
    ],
    "examples": ["64MiB", "2GB"],
}
_DURATION_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?\s*(us|ms|s|m|h|d)\s*)+$|^[0-9]+(\.[0-9]+)?$"},
    ],
    "examples": ["250ms", "30s", "15m"],
}

Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
"""Bytes, written `64MiB`, `2GB` or as a number."""

PositiveSize = Annotated[int, BeforeValidator(_positive(parse_size, "limit")), WithJsonSchema(_SIZE_SCHEMA)]
"""A `Size` of at least one byte."""

Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds, written `250ms`, `30s`, `15m` or as a number."""

PositiveDuration = Annotated[
    float, BeforeValidator(_positive(parse_duration, "duration of your own")), WithJsonSchema(_DURATION_SCHEMA)
]
"""A `Duration` above zero."""
