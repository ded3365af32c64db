"""Every file that a page, a docstring or a comment names is there."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("config", "gateway", "protocol", "workers")
PAGES = [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "deploy/README.md"]
SOURCES = sorted(path for folder in (*FOLDERS, "src/modelhub/serving") for path in (ROOT / folder).rglob("*.py"))

#: `gateway/models/catalog.py`, `deploy/helm/modelhub-serving`, `tests/clients/*.in`
PATHS = re.compile(r"(?<![\w./-])(?:bench|config|deploy|docs|examples|gateway|protocol|src|tests|workers)/[\w./*-]*\w")
#: `catalog.py`, or `models/catalog.py`, as files say it of their neighbours.
NEIGHBOURS = re.compile(r"(?<![\w./-])(?:\w+/)*\w+\.py\b")
#: Pictures, trees, commands.
DRAWN = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
#: What only looks like a path: a Kubernetes deployment.
NO_FILES = {"deploy/models"}


def prose(path: Path) -> Iterator[str]:
    """A page's text without what it draws, a source's docstrings and comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield DRAWN.sub("", text)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def missing(path: Path, pattern: re.Pattern[str], places: list[Path]) -> list[str]:
    found = {match[0] for text in prose(path) for match in pattern.finditer(text)} - NO_FILES
    absent = sorted(name for name in found if not any(any(place.glob(name)) for place in places))
    return [f"{path.relative_to(ROOT)}: {name}" for name in absent]


def test_paths_that_are_named_are_there() -> None:
    found = [line for path in PAGES + SOURCES for line in missing(path, PATHS, [ROOT])]
    assert not found, "\n".join(found)


def test_files_that_are_named_without_their_folder_are_there() -> None:
    """In the own folder, or one above it."""
    found = []
    for path in PAGES + SOURCES:
        folders = [folder for folder in path.parents if folder.is_relative_to(ROOT)]
        found += missing(path, NEIGHBOURS, folders)
    assert not found, "\n".join(found)
