"""What a model URI means on this machine: a folder that is used in place, or something that must be fetched.

A *source* names one content: a URI that cannot move, and the hash of the model's MLmodel behind a mark
(workers/fetch/mlflow.py makes those of remote models).
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ...protocol.signature import MLMODEL
from ...protocol.uris import HASH_MARK, path_of
from .mlmodel import read_mlmodel


def local_path(uri: str) -> Path | None:
    """The folder that a plain path or a `file:` URI means; None for everything that must be fetched.

    A relative path stays one: nothing here looks at the disk. Raises ConfigError for a file on another host.
    """
    path = path_of(uri)
    return None if path is None else Path(os.path.normpath(path))


def local_source(path: Path) -> str:
    """The source of a local model, after a look whether it is one. Raises NotFound or LoadError."""
    path = path.absolute()
    read_mlmodel(path)
    digest = hashlib.sha256((path / MLMODEL).read_bytes()).hexdigest()[:32]
    return f"{path.as_uri()}{HASH_MARK}{digest}"
