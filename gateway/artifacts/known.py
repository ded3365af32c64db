"""What model URIs have meant before, kept beside the cache: a registry that is away stops nobody who has the files.

<state_dir>/artifacts/.known/<hash of the registry's address and the URI>     JSON: uri, version, source
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path

from ...protocol.redaction import masked
from ...protocol.uris import HASH_MARK
from .fetcher import Resolved

_NEVER_MOVES = re.compile(r"models:/{1,3}(m-[^/@]+|[^/@]+/[0-9]+)|runs:/.+")


def never_moves(uri: str) -> bool:
    """Whether it means the same for ever: a numbered version, a logged model, a model of a run."""
    return _NEVER_MOVES.fullmatch(uri) is not None


class KnownUris:
    """Asked and told by the store, in threads."""

    def __init__(self, folder: Path, registry: str) -> None:
        """`registry`: whose URIs these are; another one may mean something else by the same."""
        self._folder = folder
        self._registry = registry

    def recall(self, uri: str) -> Resolved | None:
        """What it meant when it was last asked for; None where nobody has."""
        try:
            found = json.loads(self._file(uri).read_bytes())
            return Resolved(uri=uri, version=str(found["version"]), source=str(found["source"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember(self, found: Resolved) -> None:
        """What it means now, and what that is pinned to. Where that cannot be kept it is asked for the next time."""
        pinned = found.source.rpartition(HASH_MARK)[0]
        for uri in {found.uri, pinned} if never_moves(pinned) else {found.uri}:
            self._keep(uri, found)

    def _keep(self, uri: str, found: Resolved) -> None:
        file = self._file(uri)
        text = json.dumps({"uri": masked(uri), "version": found.version, "source": found.source})
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.name}.{os.getpid()}")
            part.write_text(text)
            part.replace(file)

    def _file(self, uri: str) -> Path:
        return self._folder / hashlib.sha256(f"{self._registry}\n{uri}".encode()).hexdigest()[:32]
