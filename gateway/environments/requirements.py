"""pip's requirements files, read into lines that can be compared, hashed and handed to uv.

Called by `spec.py` for a model's requirements.txt, constraints.txt, the dependencies of python_env.yaml and the
pip part of conda.yaml. Blocking file reads: call it in a thread.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ...protocol.errors import LoadError

_COMMENT = re.compile(r"(^|\s+)#.*$")
_INCLUDE = re.compile(r"^(?P<flag>-r|-c|--requirement|--constraint)(?:\s*=\s*|\s+|(?<=-[rc]))(?P<path>.+)$")
_OPTION_ON_LINE = re.compile(r"\s+(?=--?[A-Za-z])")
#: Options that uv reads in a requirements file.
_FOR_UV_FILE = {
    "-i",
    "--index-url",
    "--extra-index-url",
    "-f",
    "--find-links",
    "--no-index",
    "--no-binary",
    "--only-binary",
}
#: Options that uv takes on its command line only.
_FOR_UV_COMMAND = {"--pre": ("--prerelease", "allow"), "--trusted-host": ("--allow-insecure-host",)}
_HARMLESS = {"--prefer-binary", "--require-hashes", "--use-feature", "--progress-bar", "--no-cache-dir", "--use-pep517"}


@dataclass(frozen=True, order=True)
class RequirementLine:
    """One requirement: `text` in normal form (part of the environment's key), `install` as uv is given it."""

    text: str
    install: str = field(compare=False)
    #: None for a URL or a path.
    requirement: Requirement | None = field(default=None, compare=False)
    hashed: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """The canonical name, "" for a URL or path without one."""
        return canonicalize_name(self.requirement.name) if self.requirement else ""


@dataclass
class RequirementFile:
    """What a requirements file and everything that it includes say."""

    requirements: list[RequirementLine] = field(default_factory=list)
    constraints: list[RequirementLine] = field(default_factory=list)
    #: pip options for indexes and formats, as lines of a requirements file, in their order.
    options: list[str] = field(default_factory=list)
    #: Flags for uv's command line that come from options.
    flags: list[str] = field(default_factory=list)
    #: What is in the files and not honoured, for people.
    not_covered: list[str] = field(default_factory=list)
    #: The files that were read.
    files: list[Path] = field(default_factory=list, compare=False)


def read_file(path: Path, into: RequirementFile, *, constraint: bool = False) -> None:
    """Read a requirements or constraints file and what it includes. Raises LoadError naming file and line."""
    _read_file(path, into, constraint, frozenset())


def read_lines(lines: Iterable[str], folder: Path, source: str, into: RequirementFile) -> None:
    """Read requirement lines that stand in another file (python_env.yaml, conda.yaml, uv's export)."""
    for number, line in enumerate(lines, 1):
        _read_line(line.strip(), folder, f"{source}, dependency {number}", into, False, frozenset())


def parse_requirement(text: str, folder: Path, where: str) -> tuple[RequirementLine, list[str]]:
    """One requirement without include or option, and the options on its line that are not honoured."""
    body, *extras = _OPTION_ON_LINE.split(text, maxsplit=1)
    hashes: list[str] = []
    ignored: list[str] = []
    for token in shlex.split(extras[0]) if extras else []:
        (hashes if token.startswith("--hash=") else ignored).append(token)
    suffix = "".join(f" {item}" for item in hashes)
    try:
        if body.endswith((".whl", ".tar.gz", ".zip")):
            raise InvalidRequirement("no such file")  # it may well read like a name
        requirement = Requirement(body)
    except InvalidRequirement as error:
        return _url_or_path(body, suffix, folder, where, error), ignored
    requirement.name = canonicalize_name(requirement.name)
    text = str(requirement) + "".join(f" {item}" for item in sorted(hashes))
    line = RequirementLine(text, str(requirement) + suffix, requirement, hashed=bool(hashes))
    return line, ignored


def _read_file(path: Path, into: RequirementFile, constraint: bool, seen: frozenset[Path]) -> None:
    path = path.resolve()
    if path in seen:
        return
    into.files.append(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"cannot read the model's requirements in {path}: {error}") from None
    for number, line in _logical_lines(text):
        _read_line(line, path.parent, f"{path}, line {number}", into, constraint, seen | {path})


def _logical_lines(text: str) -> Iterable[tuple[int, str]]:
    """Lines with continuations joined and comments gone, with the number of their first physical line."""
    pending, first = "", 0
    for number, physical in enumerate(text.splitlines(), 1):
        first = first or number
        is_comment = physical.lstrip().startswith("#")
        if physical.endswith("\\") and not is_comment:
            pending += physical[:-1] + " "
            continue
        line = _COMMENT.sub("", pending + ("" if is_comment else physical)).strip()
        if line:
            yield first, line
        pending, first = "", 0
    if pending.strip():
        yield first, _COMMENT.sub("", pending).strip()


def _read_line(
    line: str, folder: Path, where: str, into: RequirementFile, constraint: bool, seen: frozenset[Path]
) -> None:
    line = _COMMENT.sub("", line).strip()
    if not line:
        return
    if include := _INCLUDE.match(line):
        target = include["path"].strip().strip("'\"")
        if "://" in target:
            raise LoadError(f"{where}: {target.split('://')[0]} URLs cannot be included; log the model with the file")
        _read_file(folder / target, into, constraint or include["flag"] in {"-c", "--constraint"}, seen)
    elif line.startswith("-"):
        _read_option(line, folder, where, into)
    else:
        requirement, ignored = parse_requirement(line, folder, where)
        (into.constraints if constraint else into.requirements).append(requirement)
        into.not_covered.extend(f"{where}: {option} is not honoured" for option in ignored)


def _read_option(line: str, folder: Path, where: str, into: RequirementFile) -> None:
    name, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("--") else (line[:2], "", line[2:])
    value = value.strip().strip("'\"")
    if name in {"-e", "--editable"}:
        absolute = value if "://" in value else str((folder / value).resolve())
        into.requirements.append(RequirementLine(f"-e {value}", f"-e {absolute}"))
    elif name in _FOR_UV_FILE:
        if name in {"-f", "--find-links"} and "://" not in value:
            value = str((folder / value).resolve())
        into.options.append(f"{name} {value}".strip())
    elif name in _FOR_UV_COMMAND:
        into.flags.extend((*_FOR_UV_COMMAND[name], *([value] if value else [])))
    elif name not in _HARMLESS:
        into.not_covered.append(f"{where}: the option {name} is not honoured")


def _url_or_path(body: str, suffix: str, folder: Path, where: str, error: InvalidRequirement) -> RequirementLine:
    if "://" in body:
        return RequirementLine(body + suffix, body + suffix)
    bare = re.sub(r"\[[^\]]*\]$", "", body.split(" ;")[0].removeprefix("file:"))
    path = (folder / bare).resolve()
    if path.is_file():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return RequirementLine(f"{body} sha256:{digest}", body.replace(bare, str(path)).removeprefix("file:"))
    if path.is_dir():
        return RequirementLine(body, body.replace(bare, str(path)).removeprefix("file:"))
    raise LoadError(f"{where}: {body!r} is no requirement that can be understood ({str(error).splitlines()[0]})")
