"""Reads the MLmodel file of an MLflow model directory: flavours, signature, requirements' whereabouts.

Used for the metadata of models that are not loaded, for choosing an environment, and for priming fork
servers. Parsed files are remembered until they change on disk.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import yaml

from ..protocol.errors import LoadError, NotFound

MLMODEL = "MLmodel"

#: An MLmodel holds a signature at most; larger is something else.
MAX_SIZE = 16 << 20
MAX_DEPTH = 100
_REMEMBERED = 1024

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_lock = threading.Lock()  # reading a file is work for a thread
_parsed: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {}


def read_mlmodel(path: Path) -> dict[str, Any]:
    """The parsed `<path>/MLmodel`; do not change it. Raises NotFound (nothing there) or LoadError (not readable)."""
    file = os.path.join(path, MLMODEL)
    try:
        with open(file, "rb") as stream:
            status = os.fstat(stream.fileno())
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = _parsed.get(file)
            if known is not None and known[0] == stamp:
                return known[1]
            content = stream.read(MAX_SIZE + 1)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise NotFound(_nothing_there(Path(path))) from None
        raise LoadError(f"{file} cannot be read: {error.strerror or error}") from None
    found = parse_mlmodel(content, file)
    with _lock:
        if len(_parsed) >= _REMEMBERED:
            del _parsed[next(iter(_parsed))]
        _parsed[file] = (stamp, found)
    return found


def parse_mlmodel(text: str | bytes, where: str) -> dict[str, Any]:
    """The parsed text of an MLmodel; `where` names it in errors. Raises LoadError."""
    if len(text) > MAX_SIZE:
        raise LoadError(f"{where} is larger than {MAX_SIZE >> 20} MiB: it is no MLmodel file")
    try:
        _refuse_deep(text)
        found = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark is not None else ""
        reason = getattr(error, "problem", None) or type(error).__name__
        raise LoadError(f"{where} is not valid YAML{place}: {reason}; log or download the model again") from None
    if not isinstance(found, dict) or not isinstance(found.get("flavors"), dict):
        raise LoadError(f"{where} is no MLmodel file: it has no `flavors`; log or download the model again")
    return found


def _refuse_deep(text: str | bytes) -> None:
    """The C loader builds nodes recursively without a limit: a hostile file would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise RecursionError
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


def _nothing_there(path: Path) -> str:
    if path.is_dir():
        return f"{path} is no MLflow model: the folder has no file {MLMODEL}"
    if path.exists():
        return f"{path} is a file, not the folder of an MLflow model"
    return f"there is no folder {path}"
