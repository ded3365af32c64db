"""The `${VARIABLES}` that a model's requirements name, most often a token in an index's URL.

Requirements are written by whoever logged the model, and what they name is sent where they say. So only what an
operator has named for the model (its entry's `env`), or for all (`server.environments.variables`), is put in its place,
here: uv and the packages that it builds see the line, and no variable. Used by `Environments`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from ...protocol.errors import LoadError

#: What uv and pip take for a variable.
_NAMED = re.compile(r"\$\{([A-Z0-9_]+)\}")
#: And expand; a backslash before it keeps it from that.
_EXPANDED = re.compile(r"(?<!\\)\$\{([A-Z0-9_]+)\}")
#: uv's word for the folder that it runs in, no variable.
_OWN = frozenset({"PROJECT_ROOT"})


def granted(lines: Iterable[str], names: Collection[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of these lines with their values. Raises LoadError for one that is not in `names`, or not set."""
    wanted = _variables_in(lines)
    refused = sorted(wanted - set(names))
    if refused:
        raise LoadError(
            f"the model's requirements name {', '.join(f'${{{name}}}' for name in refused)}, which they may not read: "
            "name it in the entry's `env`, or for all models in server.environments.variables, if they may"
        )
    unset = sorted(name for name in wanted if not environ.get(name))
    if unset:
        raise LoadError(
            f"the model's requirements name {', '.join(f'${{{name}}}' for name in unset)}, which is not set"
        )
    return {name: environ[name] for name in wanted}


def expanded(lines: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """The lines with these values in them. Raises LoadError where that makes a variable of what was none."""
    found = [_EXPANDED.sub(lambda match: values.get(match[1], match[0]), line) for line in lines]
    if any(name not in _OWN for line in found for name in _EXPANDED.findall(line)):
        raise LoadError("a variable in the model's requirements is put together from another one: write it in full")
    return found


def _variables_in(lines: Iterable[str]) -> set[str]:
    return {name for line in lines for name in _NAMED.findall(line)} - _OWN
