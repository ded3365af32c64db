"""Settings from flags and environment variables: `--server.port=9000`, `MODELHUB_SERVER_PORT=9000`.

There is no list of them: both are derived from the sections themselves. Only `server.*` and
`defaults.*` can be set so; an unknown name under the two prefixes is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .entries import EntryDefaults
from .fields import FromShell, Section
from .problems import hint, keys_of, section_in
from .server import ServerSettings

SECTIONS: Mapping[str, type[Section]] = {"server": ServerSettings, "defaults": EntryDefaults}
#: Variables of the serving guide, below MODELHUB_* in precedence.
GUIDE_NAMES = {"PORT": ("server", "port"), "LOG_LEVEL": ("server", "log", "level")}

_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT)(_.*)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")


@dataclass
class Overrides:
    """What flags and variables set, as a tree like the file's."""

    tree: dict[str, Any] = field(default_factory=dict)
    #: The flag or variable that set a key.
    origins: dict[tuple[str | int, ...], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def put(self, path: tuple[str, ...], text: str, origin: str) -> None:
        """Set one key; the last one wins."""
        inner = self.tree
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = FromShell(text)
        self.origins[path] = origin


def settable() -> Iterator[tuple[str, ...]]:
    """The path of every key that a flag or variable can set."""
    for name, section in SECTIONS.items():
        yield from _leaves((name,), section)


def _leaves(path: tuple[str, ...], section: type[Section]) -> Iterator[tuple[str, ...]]:
    for key, annotation in keys_of(section).items():
        inner = section_in(annotation)
        if inner is None:
            yield (*path, key)
        else:
            yield from _leaves((*path, key), inner)


def variable(path: tuple[str, ...]) -> str:
    """The environment variable of a key: `MODELHUB_SERVER_LOG_LEVEL`."""
    return "_".join(("MODELHUB", *path)).upper()


def read(flags: Mapping[str, str], environ: Mapping[str, str]) -> Overrides:
    """Flags (`server.port` → text) over MODELHUB_* over the guide's names. An empty variable counts as unset."""
    found = Overrides()
    for name, path in GUIDE_NAMES.items():
        if environ.get(name) and not (name == "PORT" and _is_link(environ[name])):
            found.put(path, environ[name], name)
    by_variable = {variable(path): path for path in settable()}
    prefixes = tuple(variable((name,)) + "_" for name in SECTIONS)
    for name in sorted(environ):
        if not name.startswith(prefixes) or not environ[name]:
            continue
        if _SERVICE_LINK.search(name) and (name not in by_variable or _is_link(environ[name])):
            found.warnings.append(f"{name} is Kubernetes' link to a Service, not a setting: ignored")
        elif name in by_variable:
            found.put(by_variable[name], environ[name], name)
        else:
            found.problems.append(f"{name}: unknown variable; {hint(name, by_variable)}")
    by_flag = {".".join(path): path for path in settable()}
    for flag, text in flags.items():
        key = flag.replace("-", "_")
        if key in by_flag:
            found.put(by_flag[key], text, f"--{flag}")
        elif any(known.startswith(f"{key}.") for known in by_flag):
            inner = [known for known in by_flag if known.startswith(f"{key}.")]
            found.problems.append(f"--{flag}: a section has no value of its own; set one of --{', --'.join(inner)}")
        else:
            found.problems.append(f"--{flag}: unknown flag; {hint(key, by_flag)}")
    return found


def _is_link(text: str) -> bool:
    return text.startswith(("tcp://", "udp://", "sctp://"))
