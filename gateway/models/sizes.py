"""How much memory each artifact needed last time: kept on disk, asked before the next load.

<state_dir>/memory.json    {"<hash of the artifact's source>": bytes, …}, the most recently seen last
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path

log = logging.getLogger("modelhub.models")

#: Artifacts remembered at most; the one not seen for longest is forgotten.
MAX_ENTRIES = 20_000


class Sizes:
    """Private bytes by content. `save` writes what has changed; call it in a thread."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "memory.json"
        self._sizes = self._read()
        #: Learnt since the last `save`.
        self._new: dict[str, int] = {}

    def size(self, source: str) -> int | None:
        """Bytes that this content needed last time; None if it was never seen."""
        return self._sizes.get(_key(source))

    def typical(self) -> int:
        """Mean of what is remembered, 0 if nothing is: a guess for a content that was never seen."""
        return sum(self._sizes.values()) // len(self._sizes) if self._sizes else 0

    def remember(self, source: str, size: int) -> None:
        _put(self._sizes, _key(source), size)
        _put(self._new, _key(source), size)

    def save(self) -> None:
        """Write the file whole or not at all; a full disk costs the memory of sizes, nothing else."""
        if not self._new:
            return
        new, self._new = self._new, {}
        sizes = self._read()  # with what other gateways have learnt, who share the folder
        for key, size in list(new.items()):  # the event loop may add to it
            _put(sizes, key, size)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(dir=self._path.parent, prefix=".memory-")
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    json.dump(sizes, file)
                os.replace(part, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(part)
                raise
        except OSError as error:
            self._new = {**new, **self._new}
            log.warning("%s cannot be written: %s", self._path, error)

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(key): int(size) for key, size in found.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("%s cannot be read and is begun anew: %s", self._path, error)
        return {}


def _put(sizes: dict[str, int], key: str, size: int) -> None:
    """As the last; the first ones go where there are too many."""
    sizes.pop(key, None)
    sizes[key] = size
    while len(sizes) > MAX_ENTRIES:
        del sizes[next(iter(sizes))]


def _key(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:24]
