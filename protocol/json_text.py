"""JSON as programs write it, to what it says.

Beside what the standard knows: a byte order mark, and what is written for floats that it does not know - NaN,
Infinity and -Infinity (Python, JavaScript libraries), nan, inf and -inf (C and C++), NAN and INF (PHP). What is
standard is read by orjson alone, and costs nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any, Union

import orjson

from .errors import InvalidRequest

Body = Union[bytes, bytearray, memoryview]

_MARK = b"\xef\xbb\xbf"
_FLOATS = re.compile(rb"nan|inf", re.IGNORECASE)
#: Texts, which stay as they are, and words for floats outside of them.
_WORDS = re.compile(r'"(?:[^"\\]|\\.)*"|[-+]?\b(?:nan|inf(?:inity)?)\b', re.IGNORECASE | re.DOTALL)


def load(text: Body, what: str = "the body") -> Any:
    """The value of a JSON text. Raises InvalidRequest, which begins with `what`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raw = bytes(text)
        try:
            return _loosely(raw)
        except (ValueError, RecursionError):
            raise InvalidRequest(f"{what} is not valid JSON: {error}") from None


def _loosely(raw: bytes) -> Any:
    if raw.startswith(_MARK):
        raw = raw[len(_MARK) :]
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    if not _FLOATS.search(raw):
        raise ValueError
    found = json.loads(_WORDS.sub(_standard, raw.decode("utf-8")))
    if b"\\u" in raw:
        json.dumps(found, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
    return found


def _standard(found: re.Match[str]) -> str:
    """A word for a float as Python's own parser knows it."""
    word = found[0]
    if word[0] == '"':
        return word
    if word.lower().endswith("nan"):
        return "NaN"
    return "-Infinity" if word[0] == "-" else "Infinity"
