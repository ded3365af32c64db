"""Which models share an environment, which cannot use the shared one and why, and what it costs on disk.

Pure, apart from measuring folders: `modelhub env plan` and `modelhub env list` print it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import Version

from .installed import Installed, unmet
from .spec import EnvironmentSpec, label_of


@dataclass(frozen=True)
class Planned:
    """One model of the configuration as far as its environment is known."""

    model: str
    #: auto | shared | isolated | a path.
    choice: str
    #: None where there is no model directory, or it could not be read.
    spec: EnvironmentSpec | None = None
    error: str = ""
    #: The key of the environment that is built for it, where that is not of its requirements alone.
    built: str = ""


@dataclass
class Row:
    """One environment and the models that would run in it."""

    #: "shared", a content hash, "path:…", or "" for models that could not be read.
    key: str
    label: str
    python: str
    models: list[str] = field(default_factory=list)
    spec: EnvironmentSpec | None = None


@dataclass
class Plan:
    """The answer of `modelhub env plan`."""

    rows: list[Row] = field(default_factory=list)
    #: Model -> why it cannot use the shared environment.
    clashes: dict[str, list[str]] = field(default_factory=dict)
    #: Sentences: two environments that differ only in patch versions.
    nearly_equal: list[str] = field(default_factory=list)
    #: Model -> what of its files is not honoured.
    not_covered: dict[str, list[str]] = field(default_factory=dict)
    #: Model -> why it could not be read.
    errors: dict[str, str] = field(default_factory=dict)


def make_plan(planned: Sequence[Planned], shared: Installed) -> Plan:
    """Group the models by environment and compare the environments."""
    plan = Plan()
    rows: dict[str, Row] = {}
    for item in planned:
        if item.error:
            plan.errors[item.model] = item.error
            continue
        reasons = unmet(item.spec, shared) if item.spec is not None and item.choice in ("auto", "shared") else []
        if reasons:
            plan.clashes[item.model] = reasons
        if item.spec is not None and item.spec.not_covered:
            plan.not_covered[item.model] = list(item.spec.not_covered)
        row = _row_of(item, reasons, shared)
        rows.setdefault(row.key, row).models.append(item.model)
    plan.rows = sorted(rows.values(), key=lambda row: (row.key != "shared", row.python, row.key))
    plan.nearly_equal = _nearly_equal([row for row in plan.rows if row.spec is not None])
    return plan


def _row_of(item: Planned, unmet_here: Sequence[str], shared: Installed) -> Row:
    """The environment that a model would run in."""
    if item.choice not in ("auto", "shared", "isolated"):
        return Row(f"path:{item.choice}", item.choice, "")
    spec = item.spec
    own = item.choice == "isolated" or (item.choice == "auto" and unmet_here and spec and not spec.says_nothing)
    if spec is not None and own:
        key = item.built or spec.key
        return Row(key, label_of(spec.python, key), spec.python, spec=spec)
    return Row("shared", "shared", ".".join(shared.python_version.split(".")[:2]))


def _nearly_equal(rows: Sequence[Row]) -> list[str]:
    """Pairs that one environment could serve if their models were logged with equal patch versions."""
    found: list[str] = []
    for first, second in itertools.combinations(rows, 2):
        differences = _patch_differences(first.spec, second.spec)
        if differences:
            found.append(f"{first.label} and {second.label} differ only in patch versions: {', '.join(differences)}")
    return found


def _patch_differences(first: EnvironmentSpec | None, second: EnvironmentSpec | None) -> list[str]:
    """ "pandas 2.2.1 / 2.2.3" for each; [] where anything else differs too."""
    if first is None or second is None or first.python != second.python:
        return []
    if (first.options, first.flags) != (second.options, second.flags):
        return []
    ours, theirs = _pins(first), _pins(second)
    if ours is None or theirs is None or ours.keys() != theirs.keys():
        return []
    differences: list[str] = []
    for name, version in ours.items():
        other = theirs[name]
        if version == other:
            continue
        if version.release[:2] != other.release[:2]:
            return []
        differences.append(f"{name} {version} / {other}")
    return differences


def _pins(spec: EnvironmentSpec) -> dict[str, Version] | None:
    """Every requirement as name -> pinned version; None where one is no simple pin."""
    pins: dict[str, Version] = {}
    for line in (*spec.requirements, *spec.constraints):
        specifiers = list(line.requirement.specifier) if line.requirement else []
        if line.requirement is None or len(specifiers) != 1 or specifiers[0].operator != "==":
            return None
        if specifiers[0].version.endswith(".*"):
            return None
        mark = f"{sorted(line.requirement.extras)}{line.requirement.marker}"
        pins[line.name if mark == "[]None" else f"{line.name} {mark}"] = Version(specifiers[0].version)
    return pins


def disk_use(folder: Path) -> tuple[int, int]:
    """Bytes of a folder, and those that it shares with nothing (uv links the others from its cache). Blocking."""
    total = own = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            total += status.st_blocks * 512
            own += status.st_blocks * 512 if status.st_nlink == 1 else 0
    return total, own
