"""Reads the MLmodel file of an MLflow model directory: flavours, signature, requirements' whereabouts.

Used for the metadata of models that are not loaded, for choosing an environment, and for priming fork
servers. Read files are remembered until they change on disk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...protocol.errors import LoadError, NotFound
from ...protocol.signature import MLMODEL, metadata_from_mlmodel, parse_mlmodel
from ...protocol.yaml_files import MAX_SIZE

_REMEMBERED = 1024

_lock = threading.Lock()  # reading a file is work for a thread
_read: dict[str, tuple[tuple[int, int, int], MlModel]] = {}


@dataclass(frozen=True)
class MlModel:
    """What an MLmodel file says. Everybody who asks for the same file has the same one, which cannot be changed."""

    #: The whole file; numbers in it are text, as they are written.
    document: Mapping[str, Any]

    @property
    def flavors(self) -> Mapping[str, Any]:
        """Flavour -> what it says of itself."""
        return self.document["flavors"]  # type: ignore[no-any-return]

    @property
    def pyfunc(self) -> Mapping[str, Any]:
        """The flavour python_function; empty where the model has none."""
        return self.flavors.get("python_function") or {}

    @property
    def environment_files(self) -> tuple[str, str]:
        """Names of the files for conda and for virtualenv, which may be given as one (old MLflow) or as two."""
        conda, virtualenv = "conda.yaml", "python_env.yaml"
        given = self.pyfunc.get("env")
        if isinstance(given, Mapping):
            return str(given.get("conda") or conda), str(given.get("virtualenv") or virtualenv)
        return (given if isinstance(given, str) else conda), virtualenv

    @property
    def logged_at(self) -> str:
        """UTC, as it is written; "" where that is not said."""
        return str(self.document.get("utc_time_created") or "")

    @property
    def mlflow_version(self) -> str:
        """The MLflow that logged it; "" where that is not said."""
        return str(self.document.get("mlflow_version") or "")

    def metadata(self) -> dict[str, Any]:
        """V2 metadata without name and versions. Raises LoadError where the signature is not readable."""
        return metadata_from_mlmodel(self.document)


def read_mlmodel(path: Path) -> MlModel:
    """What `<path>/MLmodel` says. Raises NotFound (nothing there) or LoadError (not readable)."""
    file = os.path.join(path, MLMODEL)
    try:
        with open(file, "rb") as stream:
            status = os.fstat(stream.fileno())
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = _read.get(file)
            if known is not None and known[0] == stamp:
                return known[1]
            content = stream.read(MAX_SIZE + 1)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise NotFound(_nothing_there(Path(path))) from None
        raise LoadError(f"{file} cannot be read: {error.strerror or error}") from None
    found = mlmodel_of(content, file)
    with _lock:
        if len(_read) >= _REMEMBERED:
            del _read[next(iter(_read))]
        _read[file] = (stamp, found)
    return found


def mlmodel_of(content: str | bytes, where: str) -> MlModel:
    """What the text of an MLmodel says; `where` names it in errors. Raises LoadError."""
    return MlModel(_frozen(parse_mlmodel(content, where, numbers=False)))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(each) for key, each in value.items()})
    if isinstance(value, list):
        return tuple(_frozen(each) for each in value)
    return value


def _nothing_there(path: Path) -> str:
    if path.is_dir():
        return f"{path} is no MLflow model: the folder has no file {MLMODEL}"
    if path.exists():
        return f"{path} is a file, not the folder of an MLflow model"
    return f"there is no folder {path}"
