"""The script that a gateway belongs to, and the services of it that the gateway serves (`script.py` reads them)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..environments.environments import Environment

KEY = "script"

#: Credentials of the tracking server and of ModelHub stay with the script and the fetcher.
_SECRETS = re.compile(r"(MLFLOW_TRACKING_(USERNAME|PASSWORD|TOKEN)|(MODELHUB_)?CLIENT_(ID|SECRET)|MODELHUB_.*)")


@dataclass(frozen=True)
class ScriptService:
    """A service object of the script."""

    loaded: bool  # in the script's memory; its workers are forks of that
    path: str  # the model's folder, "" if it is not known


@dataclass(frozen=True)
class Script:
    """The script that this gateway belongs to."""

    descriptor: int  # the socket to its fork server
    services: Mapping[str, ScriptService]
    environment: Environment
    #: The variables for workers: a script's own, all but credentials.
    env_names: tuple[str, ...]


def variables_of(environ: Iterable[str]) -> tuple[str, ...]:
    """Names of a script's variables for its workers, without credentials. Those of a thread limit are set anew."""
    return tuple(name for name in environ if not _SECRETS.fullmatch(name) and not name.endswith("_NUM_THREADS"))
