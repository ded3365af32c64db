"""Everything that is wrong with a configuration, collected and told in one error.

Turns pydantic's errors into lines of `file:line: key: what is wrong`, with the nearest valid key.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rapidfuzz import fuzz, process

from ..protocol.errors import ConfigError
from ..protocol.redaction import masked
from .fields import Section
from .yaml_lines import Document, KeyPath

_MEANT_IF_ALIKE = 60  # of 100
_PLAIN = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text in quotes",
    "model_type": "must be a section of keys and values",
    "dict_type": "must be a section of keys and values",
    "tuple_type": "must be a list",
    "string_too_short": "must not be empty",
}


def keys_of(section: type[Section]) -> dict[str, Any]:
    """The keys of a section as they are written in YAML, each with its type."""
    return {info.alias or name: info.annotation for name, info in section.model_fields.items()}


def section_in(annotation: Any) -> type[Section] | None:
    """The section that a field holds: itself, as an optional, or as a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (tuple, Union, types.UnionType):
        for part in get_args(annotation):
            found = section_in(part)
            if found is not None:
                return found
    return None


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that was probably meant; None if none is alike."""
    found = process.extractOne(word, list(valid), scorer=fuzz.ratio, processor=str.lower, score_cutoff=_MEANT_IF_ALIKE)
    return found[0] if found else None


def hint(word: str, valid: Iterable[str]) -> str:
    """What to write instead: the nearest valid word, or all of them."""
    words = sorted(valid)
    meant = nearest(word, words)
    if meant is not None:
        return f"did you mean {meant}?"
    shown = ", ".join(words[:30]) + (", …" if len(words) > 30 else "")
    return f"valid here: {shown}" if words else "nothing is valid here"


def dotted(path: KeyPath) -> str:
    """`models[0].limits.memory`"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class Problems:
    """The problems of one configuration; `raise_any()` tells them all."""

    def __init__(self, label: str, document: Document | None) -> None:
        """`label` names the file (or what stands for it), `document` has its lines."""
        self._label = label
        self._document = document
        self._found: list[tuple[int, str]] = []
        #: Keys that a flag or variable set, and its name: it is named instead of the file.
        self.origins: dict[KeyPath, str] = {}
        for problem in document.problems if document else ():
            self._found.append((problem.line, self._line_of_text(problem.path, problem.text, problem.line)))

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: KeyPath, text: str) -> None:
        """Something wrong at a key, or at what stands in the way of it."""
        line = self._document.line(path) if self._document else 0
        self._found.append((line, self.describe(path, text)))

    def add_plain(self, text: str) -> None:
        """Something wrong that has no key in the file."""
        self._found.append((0, text))

    def describe(self, path: KeyPath, text: str) -> str:
        """`file:line: key: text`, or `MODELHUB_SERVER_PORT: text` where a variable set the key."""
        for length in range(len(path), 0, -1):
            origin = self.origins.get(path[:length])
            if origin is not None:
                return f"{origin}: {text}"
        return self._line_of_text(path, text, self._document.line(path) if self._document else 0)

    def place(self, path: KeyPath) -> str:
        """Where a key stands, for a sentence: `line 12`, or its path where there is no file."""
        return f"line {self._document.line(path)}" if self._document else dotted(path)

    def add_errors(self, error: ValidationError, prefix: KeyPath, section: type[Section]) -> None:
        """Every error of one validated section; `prefix` is where the section stands."""
        seen = set()
        for details in error.errors(include_url=False):
            loc = _known_part(details["loc"], section)
            text = _text(details, loc, section)
            if (loc, text) not in seen:
                seen.add((loc, text))
                self.add((*prefix, *loc), text)

    def raise_any(self) -> None:
        """Raise one ConfigError with a line per problem, in the file's order; nothing if there is none."""
        if self._found:
            lines = [text for _, text in sorted(self._found, key=lambda found: found[0])]
            raise ConfigError(masked("\n".join(lines)))  # a value may be a URI with its password

    def _line_of_text(self, path: KeyPath, text: str, line: int) -> str:
        place = f"{self._label}:{line}" if line else self._label
        return f"{place}: {dotted(path)}: {text}" if path else f"{place}: {text}"


def _known_part(loc: KeyPath, section: type[Section]) -> KeyPath:
    """The location without the names that pydantic adds for members of a union, which are no keys of ours."""
    known: list[str | int] = []
    inside: type[Section] | None = section
    for part in loc:
        if isinstance(part, int):
            known.append(part)
        elif inside is not None:
            known.append(part)
            inside = section_in(keys_of(inside).get(part))
    return tuple(known)


def _text(details: ErrorDetails, loc: KeyPath, section: type[Section]) -> str:
    kind = details["type"]
    value = details.get("input")
    if kind == "extra_forbidden":
        return f"unknown key; {hint(str(loc[-1]), _siblings(loc, section))}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(details.get("ctx", {}).get("error", details["msg"]))
    if kind in _PLAIN:
        return f"{_PLAIN[kind]}{_got(value)}"
    if kind in ("too_short", "too_long"):
        return f"needs {details['ctx'].get('min_length', details['ctx'].get('max_length'))} items"
    text = details["msg"].replace("Input should be", "must be").replace("Field required", "is missing")
    return f"{text[:1].lower()}{text[1:]}{_got(value)}"


def _got(value: object) -> str:
    if value is None:
        return ", not empty"
    if isinstance(value, (str, int, float)):
        text = (
            str(value).lower()
            if isinstance(value, bool)
            else repr(str(value))
            if isinstance(value, str)
            else str(value)
        )
        return f", not {text if len(text) <= 60 else text[:57] + '…'}"
    return f", not a {'list' if isinstance(value, (list, tuple)) else 'section'}"


def _siblings(loc: KeyPath, section: type[Section]) -> Iterable[str]:
    inside: type[Section] | None = section
    for part in loc[:-1]:
        if inside is not None and isinstance(part, str):
            inside = section_in(keys_of(inside).get(part))
    return keys_of(inside) if inside is not None else ()
