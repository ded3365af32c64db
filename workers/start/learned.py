"""Modules that workers of this environment have imported, imported by the fork server ahead of them.

One after the other, and each is watched: a process that is to be forked must have one task, no child and no connection
because of it. What a module's import reads of the environment's variables is noted too, for workers whose variables
are others, and whose own code has modules of its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import json
import os
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Set, Tuple

from ...protocol.messages import LearnedReply
from ...protocol.worker_spec import WorkerSpec
from .. import linux
from ..loop.imported import site_folders

#: Seconds that all of it may take; what is left then is left to the workers.
LEARN_SECONDS = 60.0
#: Where MLflow keeps a model's own code.
_CODE = "code"
#: Stands for all variables.
_ALL = "*"


def identity() -> str:
    """Names this Python and the distributions that are installed for it: the same for equal environments."""
    found: List[str] = []
    for folder in site_folders():
        with contextlib.suppress(OSError):
            found.extend(name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
    return hashlib.sha256(json.dumps([sys.version, sorted(found)]).encode()).hexdigest()[:24]


class Learned:
    """What was imported so, and what that means for a worker that is to be forked."""

    def __init__(self) -> None:
        #: Variables that imports have set, for the workers.
        self.variables: Dict[str, str] = {}
        self._reads: Dict[str, Set[str]] = {}  # module -> variables that its import has read
        self._brought: Dict[str, str] = {}  # top-level name -> the module that brought it

    def take(self, modules: List[str], importing: Callable[[str], None]) -> LearnedReply:
        """Import them. `importing` is told of each before: it may end this process, or take for ever."""
        refused: Dict[str, str] = {}
        before = dict(os.environ)
        streams = sys.stdout, sys.stderr
        until = time.monotonic() + LEARN_SECONDS
        spoilt = ""
        for name in modules:
            if name in sys.modules or time.monotonic() > until:
                continue
            importing(name)
            traces, known = _traces(), len(sys.modules)
            try:
                with _noting(self._reads.setdefault(name, set())):
                    importlib.import_module(name)
            except (Exception, SystemExit) as error:
                refused[name] = f"{type(error).__name__}: {error}"[:200]
            for new in itertools.islice(reversed(sys.modules), max(len(sys.modules) - known, 0)):
                self._brought.setdefault(new.partition(".")[0], name)
            left = _traces() - traces
            if left:
                refused[name], spoilt = f"its import leaves {', '.join(sorted(left))} behind"[:200], name
                break
        sys.stdout, sys.stderr = streams  # a wrapper that a module has put round them would be every worker's
        self.variables = {name: value for name, value in os.environ.items() if before.get(name) != value}
        return LearnedReply(refused=refused, spoilt=spoilt)

    def conflicts(self, spec: WorkerSpec) -> Tuple[str, List[str]]:
        """Why a worker must not begin with these modules, and which ones; ("", []) where it may."""
        if not self._brought:
            return "", []
        own = {name for name, value in spec.env.items() if os.environ.get(name) != value and not _of_threads(name)}
        readers = [module for module, names in self._reads.items() if own and (_ALL in names or names & own)]
        if readers:
            return f"the import of {readers[0]} reads variables, and this model has its own", readers
        code = os.path.join(spec.model_path, _CODE) if spec.model_path else ""
        for folder in filter(None, [*spec.pythonpath, code]):
            clashing = sorted(_modules_of(folder) & set(self._brought))
            if clashing:
                why = f"its own module {clashing[0]} has the name of one that the fork server has imported"
                return why, sorted({self._brought[name] for name in clashing})
        return "", []


def _modules_of(folder: str) -> Set[str]:
    """Top-level names that are imported from there before anything installed."""
    try:
        entries = os.listdir(folder)
    except OSError:
        return set()
    found = set()
    for entry in entries:
        name, dot, _ = entry.partition(".")
        if entry.endswith((".py", ".so")) if dot else os.path.isfile(os.path.join(folder, entry, "__init__.py")):
            found.add(name)
    return found


def _of_threads(name: str) -> bool:
    """A worker sets these libraries' threads by itself (`child.set_threads`)."""
    return name.endswith(("_NUM_THREADS", "_MAXIMUM_THREADS"))


def _traces() -> Set[str]:
    """What a fork would share or lose, in words."""
    found = {f"thread {number}" for number in os.listdir("/proc/self/task")}
    found.update(f"process {pid}" for pid in linux.own_children())
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith(("socket:", "pipe:", "anon_inode:", "/dev/nvidia")):
                found.add(f"{target} ({descriptor})")
    return found


class _Noting(Dict[Any, Any]):
    """The variables of `os.environ`, in a dict that notes what is looked up."""

    names: Set[str]

    def __getitem__(self, key: Any) -> Any:
        self.names.add(os.fsdecode(key))
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.names.add(os.fsdecode(key) if isinstance(key, (str, bytes)) else _ALL)
        return super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        self.names.add(_ALL)
        return super().__iter__()


@contextlib.contextmanager
def _noting(names: Set[str]) -> Iterator[None]:
    """Note the variables that are read meanwhile. Where Python keeps them elsewhere, all of them."""
    variables: Any = os.environ
    plain = getattr(variables, "_data", None)
    if not isinstance(plain, dict):
        names.add(_ALL)
        yield
        return
    noting = _Noting(plain)
    noting.names = names
    views: List[Any] = [variables, getattr(os, "environb", None)]
    both = [each for each in views if getattr(each, "_data", None) is plain]
    for each in both:
        each._data = noting
    try:
        yield
    finally:
        kept = dict(noting.items())
        for each in both:
            each._data = kept
