"""Finding a Python of the minor version that a model was logged with.

Looked for in this order: `server.pythons`, the Python that runs the gateway, pyenv's folder of versions, uv's own
search (the PATH, uv's managed Pythons). Nothing is downloaded. Called by the environment builder.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...protocol.errors import LoadError
from ..system.stamps import Stamp, settled, stamps
from .installed import ListedInstalled
from .uv import Uv, UvFailed, run_program

_PROBE = """
import json, platform, sys
said = {"executable": sys.executable, "version": platform.python_version(), "kind": platform.python_implementation()}
if len(sys.argv) > 1 and sys.version_info >= (3, 8):
    import importlib.metadata
    said["path"] = sys.path
    said["versions"], said["requires"] = {}, {}
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"]
        if name and name not in said["versions"]:
            said["versions"][name] = found.version
            said["requires"][name] = list(found.requires or [])
print("PROBE" + json.dumps(said))
"""
_PROBE_SECONDS = 60.0
_REMEMBERED = 100
#: What workers run on.
_OLDEST = (3, 8)


@dataclass(frozen=True)
class Interpreter:
    """A Python that was started once and said what it is."""

    path: Path
    version: str

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])

    def __str__(self) -> str:
        return f"{self.version} ({self.path})"


#: Environments that were given by path: what was found in one, and the stamps of its folders then.
_inspected: dict[Path, tuple[dict[str, Stamp], Interpreter, ListedInstalled]] = {}


async def inspect_python(path: Path) -> Interpreter:
    """Start the Python at `path` (an executable, or a folder such as a venv) and ask what it is.

    Raises LoadError where it does not start, or is no CPython.
    """
    interpreter, _ = await _probe(path, distributions=False)
    return interpreter


async def inspect_installed(path: Path) -> tuple[Interpreter, ListedInstalled]:
    """As `inspect_python`, with the distributions that it has: as they were found, until something has changed."""
    known = _inspected.get(path)
    if known is not None and await asyncio.to_thread(stamps, known[0]) == known[0]:
        return known[1], known[2]
    began = time.time_ns()
    interpreter, said = await _probe(path, distributions=True)
    check_python(interpreter.minor, str(path))
    installed = ListedInstalled(interpreter.version, said["versions"], said["requires"])
    as_found = await asyncio.to_thread(stamps, (str(path), str(interpreter.path), *said["path"]))
    _inspected.pop(path, None)
    if settled(as_found, began):
        _inspected[path] = as_found, interpreter, installed
    while len(_inspected) > _REMEMBERED:
        del _inspected[next(iter(_inspected))]
    return interpreter, installed


def check_python(minor: str, whose: str) -> None:
    """Can workers run on that minor version ("3.8")? Raises LoadError, which begins with `whose`."""
    numbers = tuple(int(part) for part in minor.split(".") if part.isdigit())
    if numbers and numbers < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise LoadError(
            f"{whose} is of Python {minor}, and models are served on Python {oldest} or newer: log the model again "
            f"there, or set its `environment` to the path of a Python {oldest} or newer that has what it needs"
        )


async def find_python(minor: str, *, pythons: Sequence[Path], uv: Uv) -> Interpreter:
    """The first Python of that minor version ("3.9"). Raises LoadError that lists those that there are."""
    seen: list[str] = []
    own = Interpreter(Path(sys.executable), platform.python_version())
    for path in await asyncio.to_thread(_named, pythons):
        try:
            interpreter = await inspect_python(path)
        except LoadError as error:
            seen.append(f"{path}: {error.message}")
            continue
        if interpreter.minor == minor:
            return interpreter
        seen.append(str(interpreter))
    if own.minor == minor:
        return own
    seen.append(str(own))
    for path, version in [*await asyncio.to_thread(_of_pyenv), *await _of_uv(uv)]:
        if ".".join(version.split(".")[:2]) != minor:
            seen.append(f"{version} ({path})")
            continue
        try:
            return await inspect_python(path)
        except LoadError as error:
            seen.append(f"{path}: {error.message}")
    raise LoadError(
        f"the model needs Python {minor} and none was found. Found: {'; '.join(dict.fromkeys(seen))}. Install one "
        f"(`pyenv install {minor}` or `uv python install {minor}`), or name one in the configuration's "
        f"`server.pythons`, or set this model's `environment` to `shared` or to the path of a Python"
    )


def python_in(path: Path) -> Path:
    """The executable that a path names: itself, or `bin/python` in a folder."""
    path = Path(os.path.expanduser(path))  # Path's own fails where there is no home
    return path / "bin" / "python" if path.is_dir() else path


def _named(pythons: Sequence[Path]) -> list[Path]:
    """`server.pythons`, with folders that hold several Pythons (pyenv's, /usr/bin) made into those."""
    paths: list[Path] = []
    for path in pythons:
        several: list[Path] = []
        if path.is_dir() and not (path / "bin" / "python").exists():
            patterns = ("*/bin/python", "python3.[0-9]", "python3.[0-9][0-9]")
            several = [found for pattern in patterns for found in sorted(path.glob(pattern))]
        paths.extend(several or [path])
    return paths


async def _probe(path: Path, *, distributions: bool) -> tuple[Interpreter, dict[str, Any]]:
    executable = await asyncio.to_thread(python_in, path)
    arguments = ["-I", *([] if distributions else ["-S"]), "-c", _PROBE, *(["all"] if distributions else [])]
    env = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "LD_LIBRARY_PATH"}}
    try:
        said = await run_program([str(executable), *arguments], env=env, timeout=_PROBE_SECONDS, whole=True)
        answer = json.loads(said.rpartition("PROBE")[2])
    except (OSError, UvFailed, ValueError) as error:
        reason = error.last_line if isinstance(error, UvFailed) else str(error)
        raise LoadError(f"{executable} does not start as a Python: {reason}") from None
    if answer["kind"] != "CPython":
        raise LoadError(f"{executable} is {answer['kind']}; models are served by CPython only")
    return Interpreter(Path(answer["executable"]), answer["version"]), answer


def _of_pyenv() -> list[tuple[Path, str]]:
    """Pythons in pyenv's folder, the newest patch first."""
    root = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"), "versions")
    try:
        names = [name for name in os.listdir(root) if re.fullmatch(r"3\.\d+\.\d+", name)]
    except OSError:
        return []
    names.sort(key=lambda name: [int(part) for part in name.split(".")], reverse=True)
    found = [(root / name / "bin" / "python", name) for name in names]
    return [(path, name) for path, name in found if path.exists()]


async def _of_uv(uv: Uv) -> list[tuple[Path, str]]:
    """What uv's own search finds. A shim of pyenv that leads nowhere is one of uv's warnings, no failure."""
    try:
        arguments = ("--only-installed", "--no-python-downloads", "--output-format", "json")
        said = await uv.run("python", "list", *arguments, whole=True)
        listed = json.loads(said[said.index("[{") : said.rindex("}]") + 2])
    except (UvFailed, OSError, ValueError):
        return []  # the error that follows lists what was found elsewhere
    return [
        (Path(item["path"]), item["version"])
        for item in listed
        if item.get("implementation") == "cpython" and item.get("version", "").startswith("3.")
    ]
