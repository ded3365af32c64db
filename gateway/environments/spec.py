"""What a model's directory says about the environment that it was logged with, and the key of that environment.

`read_spec` is called by `Environments.ensure` and by `modelhub env plan`. It reads files and may run
`uv export` for MLflow 3's uv.lock, so call it in a thread.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import platform
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...protocol.errors import LoadError
from ...protocol.signature import MLMODEL
from ...protocol.yaml_files import MAX_SIZE, load_yaml
from ..artifacts.mlmodel import read_mlmodel
from ..system.stamps import Stamp, settled, stamps
from .conda import Conda, read_dependencies
from .lock import Source, read_lock
from .requirements import RequirementFile, RequirementLine, read_file, read_lines
from .uv import Uv

#: Part of every key: raise it when environments built by an older release must not be used any more.
_KEY_FORMAT = 1
#: The same for environments of several indexes, beside `_KEY_FORMAT`.
_INDEX_FORMAT = 1
#: And of those that are known by their packages.
_RESOLVED_FORMAT = "resolved 1"
#: Models whose spec is remembered.
_REMEMBERED = 1024
#: What compiled packages depend on beside Python; a cache may be shared by unlike machines.
MACHINE = f"{sys.platform}-{platform.machine()}-{platform.libc_ver()[0]}"
#: Beside those that MLmodel names.
_OWN_FILES = (MLMODEL, "requirements.txt", "uv.lock", "pyproject.toml")
_MINOR = re.compile(r"^\D*(\d+)\.(\d+)")


@dataclass(frozen=True)
class EnvironmentSpec:
    """The environment that a model was logged with."""

    #: Minor version such as "3.11"; "" where the model says nothing.
    python: str
    #: The version in full, as logged ("3.11.7"); for people.
    python_logged: str
    requirements: tuple[RequirementLine, ...]
    constraints: tuple[RequirementLine, ...]
    #: Lines of pip options for uv's requirements file, in their order.
    options: tuple[str, ...]
    #: Flags for uv's command line that stand for other pip options.
    flags: tuple[str, ...]
    #: What the model asks for and an environment built here will not have, for people.
    not_covered: tuple[str, ...]
    #: When the model was logged, UTC; None where MLmodel does not say.
    logged_at: datetime.datetime | None
    #: The MLflow that logged it; "" where MLmodel does not say.
    mlflow_version: str
    #: Libraries of its flavours ("sklearn", "torch"), tried once after a build.
    libraries: tuple[str, ...]
    #: Packages that uv.lock has from another index than the default one; they are among the requirements.
    sources: tuple[Source, ...] = ()
    #: A hash of the packages that all that was resolved to; "" where that is not known, or does not say everything.
    resolved: str = ""
    #: Files that say all that, those that are not there included.
    files: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def says_nothing(self) -> bool:
        """No requirement, no option: there is nothing to compare and nothing to build."""
        return not (self.requirements or self.options or self.flags)

    @property
    def lines(self) -> list[str]:
        """All that uv is given of it."""
        of_packages = [line.install for line in (*self.requirements, *self.constraints)]
        return [*self.options, *self.flags, *of_packages]

    @property
    def by_packages(self) -> bool:
        """Whether the packages that it is resolved to are all of it: names and versions, taken as uv takes them.

        Not with hashes, URLs, paths, options or indexes of its own.
        """
        lines = (*self.requirements, *self.constraints)
        plain = all(line.requirement is not None and not line.requirement.url and not line.hashed for line in lines)
        return plain and bool(self.requirements) and not (self.options or self.flags or self.sources)

    @property
    def key(self) -> str:
        """Hash of Python's minor version, the machine, and the packages that it was resolved to.

        Where these are not known, of the requirements, constraints and options.
        """
        if self.resolved:
            by_packages = [_RESOLVED_FORMAT, self.python, MACHINE, self.resolved]
            return hashlib.sha256(json.dumps(by_packages).encode()).hexdigest()[:16]
        content = [
            _KEY_FORMAT,
            self.python,
            MACHINE,
            [line.text for line in self.requirements],
            [line.text for line in self.constraints],
            [*self.options, *self.flags],
        ]
        if self.sources or any(option.startswith("--extra-index-url") for option in self.options):
            # Older releases may have taken a namesake from another index.
            content.append([_INDEX_FORMAT, *map(dataclasses.astuple, self.sources)])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """For people: "3.9 a1b2c3d4"."""
        return label_of(self.python, self.key)


def label_of(python: str, key: str) -> str:
    """The short name of an environment in logs and tables."""
    return f"{python} {key[:8]}"


def is_model(path: Path) -> bool:
    """Is that the directory of an MLflow model?"""
    return (path / MLMODEL).is_file()


def read_spec(model_path: Path, uv: Uv) -> EnvironmentSpec:
    """Read MLmodel, python_env.yaml, requirements.txt, conda.yaml and uv.lock of a local model directory.

    Raises LoadError, which names the file, where one of them cannot be understood.
    """
    if not is_model(model_path):
        raise LoadError(f"there is no MLflow model at {model_path}: it has no file MLmodel")
    mlmodel = read_mlmodel(model_path)
    conda_file, virtualenv = own = mlmodel.environment_files
    python_env = _yaml(model_path / virtualenv)

    file = RequirementFile()
    conda = _read_conda(_yaml(model_path / conda_file), model_path / conda_file, file)
    dependencies = python_env.get("dependencies")
    if isinstance(dependencies, list):
        read_lines([str(item) for item in dependencies], model_path, virtualenv, file)
    elif (model_path / "requirements.txt").is_file():
        read_file(model_path / "requirements.txt", file)
    else:
        read_lines(conda.pip, model_path, f"{conda_file} (its pip part)", file)
    named = {line.name for line in file.requirements}
    read_lines([each for name, each in conda.packages.items() if name not in named], model_path, conda_file, file)
    logged = str(python_env.get("python") or conda.python or mlmodel.pyfunc.get("python_version") or "")
    minor = _minor(logged)
    sources: list[Source] = []
    if (model_path / "uv.lock").is_file() and (model_path / "pyproject.toml").is_file():
        sources = read_lock(model_path, uv, file)
    return EnvironmentSpec(
        python=minor or _minor(platform.python_version()),
        python_logged=logged,
        requirements=tuple(sorted(set(file.requirements))),
        constraints=tuple(sorted(set(file.constraints))),
        options=tuple(dict.fromkeys(file.options)),
        flags=tuple(file.flags),
        not_covered=tuple(uv.mask(item) for item in dict.fromkeys(file.not_covered)),
        logged_at=_time(mlmodel.logged_at),
        mlflow_version=mlmodel.mlflow_version,
        libraries=_libraries(mlmodel.flavors),
        sources=tuple(sources),
        files=tuple(str(path) for path in (*(model_path / name for name in (*own, *_OWN_FILES)), *file.files)),
    )


class Specs:
    """Specs of models as they were read, until one of their files has changed: a model is loaded many times."""

    def __init__(self, uv: Uv) -> None:
        self._uv = uv
        self._known: dict[Path, tuple[dict[str, Stamp], EnvironmentSpec]] = {}

    def read(self, model_path: Path) -> EnvironmentSpec:
        """As `read_spec`. Blocking, for a thread."""
        known = self._known.get(model_path)
        if known is not None and stamps(known[0]) == known[0]:
            return known[1]
        began = time.time_ns()
        spec = read_spec(model_path, self._uv)
        as_found = stamps(spec.files)
        self._known.pop(model_path, None)
        paths = any(line.requirement is None for line in (*spec.requirements, *spec.constraints))
        if settled(as_found, began) and not paths:  # what a path leads to may change too
            self._known[model_path] = as_found, spec
            while len(self._known) > _REMEMBERED:
                self._known.pop(next(iter(self._known)), None)
        return spec


def _read_conda(document: dict[str, Any], path: Path, file: RequirementFile) -> Conda:
    """What conda.yaml says; what of it cannot be had is noted as not covered."""
    dependencies = _list(document, "dependencies", path)
    conda = read_dependencies(dependencies)
    for item in dependencies:
        if isinstance(item, dict):
            conda.pip.extend(str(line) for line in _list(item, "pip", path))
    if conda.others:
        file.not_covered.append(conda.not_covered(path.name))
    return conda


def _libraries(flavors: Iterable[str]) -> tuple[str, ...]:
    modules = {
        "pytorch": "torch",
        "h2o": "h2o",
        "langchain": "langchain",
        "sentence_transformers": "sentence_transformers",
    }
    names = (modules.get(str(flavor), str(flavor)) for flavor in flavors if flavor != "python_function")
    return tuple(sorted(name for name in names if name.isidentifier()))


def _yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, its numbers as text; {} where the file is missing or empty."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_SIZE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror or error}") from None
    found = load_yaml(content, str(path), numbers=False)
    if found is not None and not isinstance(found, dict):
        raise LoadError(f"{path} is not a YAML mapping; log or download the model again")
    return found or {}


def _list(mapping: dict[str, Any], key: str, path: Path) -> list[Any]:
    found = mapping.get(key)
    if found is not None and not isinstance(found, list):
        raise LoadError(f"{path}: `{key}` is not a list; log or download the model again")
    return found or []


def _minor(version: str) -> str:
    found = _MINOR.match(version)
    return f"{found[1]}.{found[2]}" if found else ""


def _time(text: str) -> datetime.datetime | None:
    """MLmodel's utc_time_created, "2023-12-01 12:34:56.789"."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)
