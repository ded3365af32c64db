"""What a fork server imports because workers of its environment did: kept on disk, by what is installed there.

<state_dir>/learned/<identity>.json    {"modules": [name, …], "refused": {name: why, …}, "spoilt": number}

The identity is the fork server's word: a hash of its Python and of the distributions beside it. A module is refused for
good when its import fails there, or leaves anything that must not be forked. A file that makes no sense is none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...protocol.limits import MAX_MODULE_NAME, MAX_MODULE_NAMES, MAX_MODULES

log = logging.getLogger("modelhub.workers")

#: Environments remembered at most, the one not changed for longest is forgotten; and bytes of a file.
MAX_ENVIRONMENTS, MAX_FILE = 200, 2 << 20
#: Fork servers that one environment's modules may have cost; of those that come next to last each costs all behind it.
MAX_SPOILT = 3
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_MAX_WHY = 300


@dataclass
class Learned:
    """The modules of one environment. In memory; `read` and `write` block."""

    path: Path
    #: In the order in which they were imported.
    modules: list[str] = field(default_factory=list)
    #: Module -> why it is not imported ahead.
    refused: dict[str, str] = field(default_factory=dict)
    spoilt: int = 0

    @classmethod
    def read(cls, folder: Path, identity: str) -> Learned:
        """What is known of that environment; nothing where there is no file, or one that makes no sense."""
        found = cls(folder / f"{identity}.json")
        try:
            with found.path.open("rb") as file:
                content = json.loads(file.read(MAX_FILE))
            found._take(content)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("%s cannot be read and is begun anew: %s", found.path, error)
            return cls(found.path)
        return found

    def _take(self, content: Any) -> None:
        self.refuse({str(name): str(why) for name, why in content["refused"].items()} if "refused" in content else {})
        self.spoilt = int(content.get("spoilt", 0))
        self.add(str(name) for name in content.get("modules", ()))

    @property
    def wanted(self) -> list[str]:
        """What a fork server is to import."""
        return [name for name in self.modules if name not in self.refused]

    def add(self, names: Iterable[str]) -> bool:
        """Note what a worker has imported, as far as there is room. Whether any of it is new and wanted."""
        known = set(self.modules)
        room = MAX_MODULE_NAMES - sum(map(len, known))
        before = len(known)
        for name in names:
            fits = len(name) <= MAX_MODULE_NAME and _NAME.fullmatch(name) and len(known) < MAX_MODULES
            if name in known or name in self.refused or not fits or room < len(name):
                continue
            known.add(name)
            self.modules.append(name)
            room -= len(name)
        return len(known) > before

    def refuse(self, refused: Mapping[str, str]) -> None:
        """These are not imported ahead again."""
        for name, why in refused.items():
            if len(self.refused) < MAX_MODULES * 2 and len(name) <= MAX_MODULE_NAME:
                self.refused.setdefault(name, why[:_MAX_WHY])
        self.modules = [name for name in self.modules if name not in self.refused]

    def spoils(self, name: str, why: str, imported: Collection[str]) -> None:
        """A fork server was lost to this one: refuse it, and, where that happens often, all that came behind it.

        `imported`: what that fork server had imported before.
        """
        self.spoilt += 1
        behind = [each for each in self.wanted if each not in imported] if self.spoilt >= MAX_SPOILT else []
        self.refuse({name: why, **{each: f"came behind {name}, which {why}" for each in behind if each != name}})

    def content(self) -> str:
        """What is written of it."""
        return json.dumps({"modules": self.modules, "refused": self.refused, "spoilt": self.spoilt})


def write(path: Path, content: str) -> None:
    """Write the file whole or not at all; where that fails, what was learned is for this gateway alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=".learned-")
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
        _forget_oldest(path.parent)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)


def _forget_oldest(folder: Path) -> None:
    kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[MAX_ENVIRONMENTS:]:
        path.unlink(missing_ok=True)
