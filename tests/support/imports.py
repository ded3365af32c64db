"""Which file imports which, and what must not be: files in a circle, and files in no room. `make check` runs it.

    python tests/support/imports.py [FOLDER]

Every import counts: at the top, within a function, for a type checker only. import-linter sees the same between
rooms (pyproject.toml); within a room only this does.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("config", "gateway", "protocol", "workers")
PACKAGE = "modelhub.serving."
#: Files beside the rooms: what starts a process, and what the gateway takes from the workers.
BESIDE = {
    "gateway": {"__init__.py", "script.py", "server.py", "ports.py"},
    "workers": {"__init__.py", "bootstrap.py", "linux.py"},
}


def arrows(root: Path) -> dict[str, set[str]]:
    """File -> the files that it imports, as paths below `root`."""
    files = {path.relative_to(root).as_posix() for folder in FOLDERS for path in (root / folder).rglob("*.py")}
    modules = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in files}
    return {
        file: {modules[name] for name in _imported(root / file, file, modules)} - {file, None} for file in sorted(files)
    }


def _imported(path: Path, file: str, modules: dict[str, str]) -> Iterator[str]:
    package = file.split("/")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.removeprefix(PACKAGE) for alias in node.names if alias.name.startswith(PACKAGE)]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            names = [".".join(filter(None, [*base, alias.name])) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(PACKAGE):
            names = [f"{node.module}.{alias.name}".removeprefix(PACKAGE) for alias in node.names]
        else:
            continue
        for name in names:
            yield from [each for each in (name, name.rpartition(".")[0]) if each in modules][:1]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The largest sets of files in which each leads to every other."""
    reached = {file: _reached(graph, file) for file in graph}
    found = {frozenset(other for other in reached[file] if file in reached[other]) for file in graph}
    return sorted(sorted(each) for each in found if each)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen, todo = set[str](), [start]
    while todo:
        new = graph[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def roomless(files: set[str]) -> list[str]:
    """The files of gateway/ and workers/ that lie in no room, and rooms that do not say what they are."""
    outside = []
    for file in files:
        top, _, name = file.partition("/")
        if "/" not in name and name not in BESIDE[top]:
            outside.append(file)
    rooms = {"/".join(file.split("/")[:2]) for file in files if file.count("/") > 1}
    nameless = [f"{room}/__init__.py is missing" for room in rooms if f"{room}/__init__.py" not in files]
    return sorted(outside + nameless)


def main(root: Path) -> int:
    graph = arrows(root)
    for circle in circles(graph):
        print(f"{len(circle)} files import each other in a circle:")
        for file in circle:
            print(f"  {file} -> {', '.join(sorted(graph[file] & set(circle)))}")
    outside = roomless({file for file in graph if file.split("/")[0] in BESIDE})
    for file in outside:
        print(f"in no room: {file}")
    return int(bool(outside or circles(graph)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if sys.argv[1:] else ".")))
