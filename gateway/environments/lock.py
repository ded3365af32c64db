"""uv.lock of a model that was logged from a uv project: the versions it pins, and the index each package comes from.

Called by `spec.py`. Blocking: it runs `uv export`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from ...protocol.errors import LoadError
from ...protocol.redaction import without_userinfo
from .requirements import RequirementFile, read_lines
from .uv import Uv

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: As uv's help says which index it asks where nobody names one.
_DEFAULT = re.compile(r"default package index \(by default:\s+<(?P<url>[^>\s]+)>")


@dataclass(frozen=True, order=True)
class Source:
    """A package and the index that it is taken from, and no other. `index`: its name, as in UV_INDEX_NAME_PASSWORD."""

    package: str
    index: str
    url: str


def read_lock(model_path: Path, uv: Uv, file: RequirementFile) -> list[Source]:
    """Honour uv.lock: its pins bind everything that requirements.txt does not pin by itself.

    requirements.txt decides WHAT is installed (it holds the extras and groups the model was logged with, and
    mlflow); without one, the lock's own default packages are. What the lock has from another index than the default
    one is required by itself: only so uv keeps to that index. Raises LoadError.
    """
    said, failed = _export(model_path, uv)
    if failed:
        if not file.requirements:
            raise LoadError(
                f"uv.lock of {model_path} cannot be read, and there is no requirements.txt; uv said:\n{said}"
            )
        file.not_covered.append(
            f"uv.lock is not honoured, requirements.txt alone is; uv said: {said.splitlines()[-1:]}"
        )
        return []
    locked = RequirementFile()
    read_lines(said.splitlines(), model_path, "uv.lock", locked)
    file.options.extend(locked.options)
    environment = uv.environment()
    own_default = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL", "")
    sources = _sources(model_path, own_default, _public(uv))
    named = {line.name for line in file.requirements}
    everything = not file.requirements
    for line in locked.requirements:
        if everything or (line.name in sources and line.name not in named):
            file.requirements.append(line)
        elif line.name and line.name not in named:
            file.constraints.append(line)
    asked = {line.name for line in file.requirements}
    return sorted(source for package, source in sources.items() if package in asked)


def _export(model_path: Path, uv: Uv) -> tuple[str, bool]:
    """The lock as a requirements file, or uv's masked words and True where it cannot be read. Raises LoadError."""
    with tempfile.TemporaryDirectory(prefix="modelhub-lock-") as scratch:
        for name in ("uv.lock", "pyproject.toml"):
            shutil.copyfile(model_path / name, Path(scratch, name))
        command = [str(uv.binary), "export", "--directory", scratch, "--frozen", "--no-dev", "--no-emit-project"]
        command += ["--no-hashes", "--no-header", "--no-annotate", "--no-python-downloads", "--python", sys.executable]
        try:
            done = subprocess.run(
                command, env=uv.environment(), capture_output=True, text=True, check=False, timeout=120
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LoadError(f"uv.lock of {model_path} cannot be read: {uv.mask(str(error))}") from None
    return (uv.mask(done.stderr.strip()), True) if done.returncode else (done.stdout, False)


def _public(uv: Uv) -> str:
    """The index that uv asks where nobody names one, by its own word; "": it does not say."""
    command = [str(uv.binary), "pip", "install", "--help"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _DEFAULT.search(said)
    return _plain(found["url"]) if found is not None else ""


def _sources(model_path: Path, own_default: str, public: str) -> dict[str, Source]:
    """Package -> its index, for those that the lock has from another than the default one.

    `own_default`: the gateway's, which then stands in for the project's own; "" if it has none.
    """
    lock = tomllib.loads((model_path / "uv.lock").read_text(encoding="utf-8"))
    names, default = _indexes(tomllib.loads((model_path / "pyproject.toml").read_text(encoding="utf-8")), public)
    usual = {public, *((default, _plain(own_default)) if own_default else ())}
    found: dict[str, set[str]] = {}
    for package in lock.get("package", ()):
        registry = package.get("source", {}).get("registry", "")
        if "://" in registry and _plain(registry) not in usual:
            found.setdefault(canonicalize_name(package["name"]), set()).add(registry)
    sources = {}
    for package, registries in found.items():
        if len(registries) == 1:  # else one for each platform, which only uv's own commands can tell apart
            (registry,) = registries
            name, url = names.setdefault(_plain(registry), (f"index-{len(names)}", registry))
            sources[package] = Source(package, name, url)
    return sources


def _indexes(project: Mapping[str, Any], public: str) -> tuple[dict[str, tuple[str, str]], str]:
    """The project's indexes, plain address -> (name, address), and the plain address of its default one."""
    settings = project.get("tool", {}).get("uv", {})
    names: dict[str, tuple[str, str]] = {}
    default = _plain(str(settings.get("index-url") or public))
    for index in settings.get("index", ()):
        url = str(index.get("url", ""))
        names[_plain(url)] = (str(index.get("name") or f"index-{len(names)}"), url)
        default = _plain(url) if index.get("default") else default
    return names, default


def _plain(url: str) -> str:
    return without_userinfo(url).rstrip("/")


def project_of(sources: Sequence[Source], requirements: Mapping[str, Sequence[str]]) -> str:
    """A pyproject.toml that requires these packages, each of its index alone; "" for none."""
    if not sources:
        return ""
    wanted = [text for source in sources for text in requirements.get(source.package, ())]
    lines = ["[project]", 'name = "environment"', 'version = "0"', f"dependencies = {json.dumps(wanted)}"]
    for name, url in dict.fromkeys((source.index, source.url) for source in sources):
        lines += ["[[tool.uv.index]]", f"name = {json.dumps(name)}", f"url = {json.dumps(url)}", "explicit = true"]
    lines += ["[tool.uv.sources]"]
    lines += [f"{json.dumps(source.package)} = {{ index = {json.dumps(source.index)} }}" for source in sources]
    return "\n".join([*lines, ""])
