"""What a load costs that is not the first: two copies of a model in a lazy group with room for one, asked in turns.

    python bench/loads.py [--python PATH] [--kinds torch-pt2 …] [--loads 10] [--preload known]

Every request evicts one copy and loads the other. The kinds whose libraries are installed in that environment (default:
this one) are asked once, until the environment's fork server has imported what they did; then, for each, milliseconds
from request to answer (p50 and the longest), seconds of CPU of everything for a load with its eviction, and the private
memory of a worker that has answered.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lazy import MIB, private
from servers import Server, modelhub

HERE = Path(__file__).parent
TAKEN_OVER = "has a new fork server"
#: Seconds without another one after which no more is to come, and to wait for the first.
SETTLED, PATIENCE = 30.0, 60.0


class Asked:
    """A kind of model in a running server."""

    def __init__(self, server: Server, kind: str, folder: Path) -> None:
        self.kind = kind
        self._server = server
        self._sent = json.loads((folder / f"{kind}.json").read_text())

    def ask(self, copy: int) -> float:
        """Seconds that one request takes; raises RuntimeError where it is not answered."""
        place = urlsplit(self._server.url)
        path = "/" + self._sent["path"].format(name=f"{self.kind}-{copy}")
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=300)
        headers = {"Content-Type": "application/json", "X-Request-Timeout": "300s"}
        began = time.perf_counter()
        try:
            connection.request("POST", path, json.dumps(self._sent["body"]), headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{self.kind}: status {answer.status}: {text[:500]!r}")
        return time.perf_counter() - began

    def private(self) -> int:
        """Private bytes of the worker that runs now."""
        pids = [process.pid for process in self._server.tree() if self.kind in " ".join(process.cmdline()[:1])]
        return max(map(private, pids), default=0)


def config(kinds: list[str], folder: Path, python: Path, preload: str) -> dict[str, Any]:
    groups = [
        {
            "name": f"group-{kind}",
            "load": "lazy",
            "max_loaded": 1,
            "models": [{"name": f"{kind}-{copy}", "uri": str(folder / kind)} for copy in (0, 1)],
        }
        for kind in kinds
    ]
    return {
        "defaults": {"environment": str(python), "timeout": "300s"},
        "groups": groups,
        "server": {"environments": {"preload": preload}},
    }


def listens(server: Server) -> None:
    """Until it takes connections."""
    place = urlsplit(server.url)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex((place.hostname or "", place.port or 0)) == 0:
                return
        time.sleep(0.1)


def settle(log: Path) -> None:
    """Until no fork server has been replaced for a while."""
    seen, since, began = 0, time.monotonic(), time.monotonic()
    while time.monotonic() - since < SETTLED or (not seen and time.monotonic() - began < PATIENCE):
        count = log.read_text(errors="replace").count(TAKEN_OVER)
        if count != seen:
            seen, since = count, time.monotonic()
        time.sleep(0.2)


def measure(asked: Asked, server: Server, loads: int) -> dict[str, Any]:
    asked.ask(0)  # whichever is loaded: from here on each request is a load
    cpu, seconds = server.cpu(), []
    for number in range(loads):
        seconds.append(asked.ask((number + 1) % 2))
    cpu = (server.cpu() - cpu) / loads
    return {"p50": statistics.median(seconds), "max": max(seconds), "cpu": cpu, "private": asked.private()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="of the environment (default: this)")
    parser.add_argument("--kinds", nargs="+", help="a few of them")
    parser.add_argument("--loads", type=int, default=10, help="of each kind")
    parser.add_argument("--preload", choices=("learned", "known"), default="learned")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        made = [str(args.python), str(HERE / "loadable.py"), str(folder / "models")]
        subprocess.run(made, check=True, env=environment, stderr=subprocess.DEVNULL)
        found = sorted(path.stem for path in (folder / "models").glob("*.json"))
        kinds = [kind for kind in found if args.kinds is None or kind in args.kinds]
        content = config(kinds, folder / "models", args.python, args.preload)
        with modelhub(folder, content) as server:
            listens(server)
            all_asked = [Asked(server, kind, folder / "models") for kind in kinds]
            first = {asked.kind: asked.ask(0) for asked in all_asked}
            (log,) = folder.glob("modelhub-*.log")
            if args.preload == "learned":
                settle(log)
            print(f"{'kind':16}{'first s':>9}{'p50 ms':>9}{'max ms':>9}{'CPU s':>9}{'MiB':>7}")
            for asked in all_asked:
                row = measure(asked, server, args.loads)
                print(
                    f"{asked.kind:16}{first[asked.kind]:9.2f}{row['p50'] * 1000:9.0f}{row['max'] * 1000:9.0f}"
                    f"{row['cpu']:9.3f}{row['private'] / MIB:7.0f}",
                    flush=True,
                )
        for line in log.read_text(errors="replace").splitlines():
            if re.search(r"left to its workers|fresh interpreter|new fork server", line):
                print(" ", json.loads(line)["message"] if line.startswith("{") else line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
