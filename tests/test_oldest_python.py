"""protocol and workers run on Python 3.8 in other people's environments: `make test-pythons` serves models there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("protocol", "workers") for path in (ROOT / folder).rglob("*.py"))

#: What came with Python 3.9 to 3.13 and is easily written; attributes and functions by their last name.
NEWER = frozenset(
    [
        "ExceptionGroup",
        "TaskGroup",
        "UTC",
        "aclosing",
        "add_note",
        "aiter",
        "anext",
        "batched",
        "bit_count",
        "cancel_futures",
        "get_annotations",
        "graphlib",
        "ignore_cleanup_errors",
        "lcm",
        "nextafter",
        "packages_distributions",
        "pairwise",
        "pidfd_open",
        "process_group",
        "randbytes",
        "recv_fds",
        "removeprefix",
        "removesuffix",
        "send_fds",
        "shutdown_default_executor",
        "to_thread",
        "tomllib",
        "ulp",
        "unparse",
        "usedforsecurity",
        "waitstatus_to_exitcode",
        "zoneinfo",
    ]
)
#: Keyword arguments likewise.
NEWER_ARGUMENTS = {"zip": {"strict"}, "dataclass": {"slots", "kw_only"}, "TemporaryDirectory": {"delete"}}


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_newer_syntax_and_no_newer_functions(file: Path) -> None:
    text = file.read_text()
    tree = ast.parse(text, feature_version=(3, 8))
    assert "from __future__ import annotations" in text or not any(
        isinstance(node, ast.FunctionDef) for node in ast.walk(tree)
    )
    found = []
    for node in ast.walk(tree):
        names = {getattr(node, "attr", ""), getattr(node, "id", ""), getattr(node, "module", "") or ""}
        if isinstance(node, ast.Call):
            arguments = {each.arg or "" for each in node.keywords}
            names |= arguments & NEWER_ARGUMENTS.get(getattr(node.func, "id", getattr(node.func, "attr", "")), set())
            names |= arguments & NEWER
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {each.name for each in node.names}
        found += [f"line {node.lineno}: {name}" for name in names & NEWER]  # type: ignore[attr-defined]
    assert not found
