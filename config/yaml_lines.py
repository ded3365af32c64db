"""YAML with the line of every key.

Scalars follow YAML 1.2: only true and false are booleans (so `admin: off` is text), there are no
dates and no base-60 numbers. A key that stands twice in one mapping is an error: the parsers'
habit of silently taking the last one hides mistakes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from ..protocol.errors import ConfigError

try:
    from yaml import CSafeLoader as _BaseLoader
except ImportError:  # PyYAML without libyaml: slower, the same answers
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]

KeyPath = tuple[str | int, ...]

_MAX_NODES = 500_000
_TAG = "tag:yaml.org,2002:"


class _Loader(_BaseLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own way; filled below)


_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+)$"),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"^(?:<<)$"), ["<"])


@dataclass
class Problem:
    """Something wrong at one line."""

    line: int
    path: KeyPath
    text: str


@dataclass
class Document:
    """A file's value, with lines counted from 1."""

    value: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    #: Duplicate keys and the like: the value is usable, but the file is wrong.
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: KeyPath) -> int:
        """The line of the key at the path, or of the nearest one that holds it."""
        for length in range(len(path), 0, -1):
            found = self.lines.get(path[:length])
            if found is not None:
                return found
        return 1


def parse(text: str, label: str) -> Document:
    """The document of a file's text; `label` names the file in a ConfigError for a syntax error."""
    try:
        node = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.problem, error.context) if part)
        if mark and "".join(text.split("\n")[mark.line : mark.line + 1]).lstrip(" ").startswith("\t"):
            what = "a tab: indent with spaces"
        raise ConfigError(f"{label}:{mark.line + 1 if mark else 1}: not valid YAML: {what}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{label}: not valid YAML: {' '.join(str(error).split())}") from None
    document = Document(None)
    if node is not None:
        document.value = _Builder(document).build(node, (), frozenset())
    return document


def _compose(text: str) -> Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _Builder:
    """Turns nodes into values; every alias is expanded, so that each path has its line."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0

    def build(self, node: Node, path: KeyPath, above: frozenset[int]) -> Any:
        self._nodes += 1
        if id(node) in above or self._nodes > _MAX_NODES:
            self._problem(node, path, "an alias that contains itself, or far too many of them")
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, path, above | {id(node)})
        if isinstance(node, SequenceNode):
            return self._sequence(node, path, above | {id(node)})
        assert isinstance(node, ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath, above: frozenset[int]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, (key_node, value_node) in self._pairs(node, path, above).items():
            self._document.lines[(*path, key)] = key_node.start_mark.line + 1
            value[key] = self.build(value_node, (*path, key), above)
        return value

    def _pairs(self, node: MappingNode, path: KeyPath, above: frozenset[int]) -> dict[str, tuple[Node, Node]]:
        """The mapping's own keys, then those that `<<` brings and it does not have."""
        pairs: dict[str, tuple[Node, Node]] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged += value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            elif not isinstance(key_node, ScalarNode) or not key_node.value:
                self._problem(key_node, path, "a key must be text")
            elif key_node.value in pairs:
                first = pairs[key_node.value][0].start_mark.line + 1
                self._problem(key_node, (*path, key_node.value), f"this key stands twice; the first is on line {first}")
            else:
                pairs[key_node.value] = (key_node, value_node)
        for source in merged:
            if isinstance(source, MappingNode) and id(source) not in above:
                for key, pair in self._pairs(source, path, above | {id(source)}).items():
                    pairs.setdefault(key, pair)
            else:
                self._problem(source, path, "<< needs a mapping")
        return pairs

    def _sequence(self, node: SequenceNode, path: KeyPath, above: frozenset[int]) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self._document.lines[(*path, index)] = item.start_mark.line + 1
            items.append(self.build(item, (*path, index), above))
        return items

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        text = node.value
        kind = node.tag.removeprefix(_TAG)
        try:
            if kind == "str":
                return text
            if kind == "int":
                return int(text)
            if kind == "float":
                return float(text)
        except ValueError:
            self._problem(node, path, f"{text[:60]!r} is not of the type {node.tag}")
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "null":
            return None
        self._problem(node, path, f"the tag {node.tag} is not understood")
        return None

    def _problem(self, node: Node, path: KeyPath, text: str) -> None:
        self._document.problems.append(Problem(node.start_mark.line + 1, path, text))
