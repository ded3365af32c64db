"""What a model URI means on this machine: a folder that is used in place, or something that must be fetched.

A *source* names one content: a URI that cannot move, and the hash of the model's MLmodel behind a mark
(workers/model_source.py makes those of remote models).
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote

from ..config.fields import has_scheme
from ..protocol.errors import ConfigError
from .mlmodel import MLMODEL, read_mlmodel

#: Between a source's URI and its hash.
HASH_MARK = "#sha256="


def local_path(uri: str) -> Path | None:
    """The folder that a plain path or a `file:` URI means; None for everything that must be fetched.

    Percent-encoding is undone in `file:` URIs only. A relative path stays one: nothing here looks at the
    disk. Raises ConfigError for a file on another host.
    """
    if uri[:5].lower() == "file:":
        rest = uri[5:]
        if rest.startswith("//"):
            host, slash, path = rest[2:].partition("/")
            if host not in ("", "localhost"):
                raise ConfigError(f"{uri} is on the host {host}: only files of this machine can be served")
            rest = slash + path
        return Path(os.path.normpath(unquote(rest)))
    if has_scheme(uri):
        return None
    return Path(os.path.normpath(os.path.expanduser(uri)))


def local_source(path: Path) -> str:
    """The source of a local model, after a look whether it is one. Raises NotFound or LoadError."""
    path = path.absolute()
    read_mlmodel(path)
    digest = hashlib.sha256((path / MLMODEL).read_bytes()).hexdigest()[:32]
    return f"{path.as_uri()}{HASH_MARK}{digest}"
