"""The gateway as the child of a user's script: `ModelServer.start` starts it, and forks the workers itself.

The script writes one JSON object to this process's stdin: `models` and `groups` as in a configuration file,
`flags` as on a command line, and `services`: which of the entries are objects of the script, by their names.
Its end of the fork server's socket is inherited; see workers/script/server.py for the other side.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.load import load_mapping
from ..protocol.errors import ConfigError
from ..workers import linux
from .environments.environments import Environment
from .places.script import KEY, Script, ScriptService, variables_of
from .server import run


def main(arguments: Sequence[str]) -> int:
    """`DESCRIPTOR PARENT`; the rest of the command line is room for the title."""
    descriptor, parent = int(arguments[0]), int(arguments[1])
    os.set_inheritable(descriptor, False)
    linux.die_with_parent(parent, signal.SIGTERM)
    linux.set_title("modelhub: gateway")
    for name in ("LISTEN_PID", "WATCHDOG_PID"):  # what systemd said to the script is for its gateway
        if os.environ.get(name) == str(parent):
            os.environ[name] = str(os.getpid())
    given = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        content = {"models": given["models"], "groups": given["groups"]}
        settings = load_mapping(content, "ModelServer", flags=given["flags"])
        services = {name: ScriptService(**facts) for name, facts in given["services"].items()}
        environment = Environment(KEY, Path(sys.executable), platform.python_version(), None, "the script's")
        return run(
            settings, settings.warnings, script=Script(descriptor, services, environment, variables_of(os.environ))
        )
    except ConfigError as error:
        print(error.message, file=sys.stderr)
        return 2
