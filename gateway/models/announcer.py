"""One line per model as it becomes ready; the first time with a curl line to try it."""

from __future__ import annotations

import logging
import shlex

from ...config.addresses import UNIX
from .states import ModelState
from .version import ModelVersion

log = logging.getLogger("modelhub.server")

#: A curl line with an example longer than this many characters is not worth pasting.
MAX_CURL = 2000


class Announcer:
    """Told of every change of a version's state. `url` is the main port's, once it is open."""

    def __init__(self) -> None:
        self.url = ""
        self._shown: set[str] = set()

    def changed(self, version: ModelVersion) -> None:
        if version.state is not ModelState.READY:
            return
        log.info(
            "%s is ready after %.2f s (environment %s, Python %s)",
            version.label,
            version.load_seconds,
            version.environment,
            version.python,
            extra=version.log_fields,
        )
        line = curl(self.url, version)
        if line and version.name not in self._shown:
            self._shown.add(version.name)
            log.info("try it: %s", line)


def curl(url: str, version: ModelVersion) -> str:
    """A line to paste into a shell, made from the model's own input example; "" where there is none."""
    if not version.example or len(version.example) > MAX_CURL:
        return ""
    body = version.example.decode()
    if url.startswith(UNIX):
        url = f"--unix-socket {shlex.quote(url.removeprefix(UNIX))} http://localhost"
    return f"curl -s {url}/v2/models/{version.name}/infer -H 'Content-Type: application/json' -d {shlex.quote(body)}"
