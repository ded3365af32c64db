"""The gateway as the child of a user's script: `ModelServer.start` starts it, and forks the workers itself.

The script writes one JSON object to this process's stdin: `models` and `groups` as in a configuration file,
`flags` as on a command line, and `services`: which of the entries are objects of the script, by their names.
Its end of the fork server's socket is inherited; see workers/script_server.py for the other side.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..protocol.errors import ConfigError
from ..workers import process
from .environments import Environment

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

    def env_names(self, environ: Mapping[str, str]) -> tuple[str, ...]:
        """The variables for workers: a script's own, all but credentials. Those of a thread limit are set anew."""
        return tuple(name for name in environ if not _SECRETS.fullmatch(name) and not name.endswith("_NUM_THREADS"))


def main(arguments: Sequence[str]) -> int:
    """`DESCRIPTOR PARENT`; the rest of the command line is room for the title."""
    descriptor, parent = int(arguments[0]), int(arguments[1])
    os.set_inheritable(descriptor, False)
    process.die_with_parent(parent, signal.SIGTERM)
    process.set_title("modelhub: gateway")
    given = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    from ..config.load import load_mapping
    from .server import run

    try:
        content = {"models": given["models"], "groups": given["groups"]}
        settings = load_mapping(content, "ModelServer", flags=given["flags"])
        services = {name: ScriptService(**facts) for name, facts in given["services"].items()}
        environment = Environment(KEY, Path(sys.executable), platform.python_version(), None, "the script's")
        return run(settings, settings.warnings, script=Script(descriptor, services, environment))
    except ConfigError as error:
        print(error.message, file=sys.stderr)
        return 2
