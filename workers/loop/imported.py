"""Which modules of its environment a forked worker has imported by itself: its fork server could have, once for all.

The loop tells the gateway with its statistics, the first time right after the warm-up. Never named: the model's own
code and what is on its `pythonpath`, the standard library, and what this package brings.
"""

from __future__ import annotations

import itertools
import os
import site
import sys
import sysconfig
import types
from typing import List, Optional, Set, Tuple

from ...protocol.limits import MAX_MODULE_NAME, MAX_MODULES
from ...protocol.worker_spec import WorkerSpec

_OURS = "modelhub"
#: How many modules this process was born with; None: it is no fork.
_inherited: Optional[int] = None


def born() -> None:
    """In the child, right after the fork. A number, and no copy: that would touch the memory that is shared."""
    global _inherited
    _inherited = len(sys.modules)


def site_folders() -> Tuple[str, ...]:
    """The folders that this environment's packages are installed in, each with a separator at its end."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    return tuple(os.path.join(os.path.abspath(folder), "") for folder in dict.fromkeys(folders))


class Imported:
    """What this worker has imported since it was born, as far as it lies in its environment."""

    def __init__(self, spec: WorkerSpec) -> None:
        own = [*spec.pythonpath, spec.model_path]
        self._own = tuple(os.path.join(os.path.abspath(folder), "") for folder in own if folder)
        self._folders = site_folders()
        self._seen = _inherited

    def news(self) -> List[str]:
        """Names of modules that were not told yet, in the order of their import; a package of one is not named."""
        if self._seen is None or len(sys.modules) <= self._seen:
            return []
        count, self._seen = len(sys.modules) - self._seen, len(sys.modules)
        new = list(itertools.islice(reversed(sys.modules), count))[::-1]
        names = [name for name in new if self._counts(name)]
        packages: Set[str] = set()
        for name in names:
            while "." in name:
                name = name.rpartition(".")[0]
                packages.add(name)
        return [name for name in names if name not in packages][:MAX_MODULES]

    def _counts(self, name: str) -> bool:
        module = sys.modules.get(name)
        if not isinstance(module, types.ModuleType) or name.partition(".")[0] == _OURS or len(name) > MAX_MODULE_NAME:
            return False
        # not by attribute: a lazy module would import something for that
        spec = vars(module).get("__spec__")
        if getattr(spec, "name", "") != name:
            return False  # another module's second name
        origin = getattr(spec, "origin", None)
        return isinstance(origin, str) and origin.startswith(self._folders) and not origin.startswith(self._own or "\0")
