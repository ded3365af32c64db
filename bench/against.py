"""This checkout beside another revision of it, by CPU time: `python bench/against.py REVISION`.

Both serve the same small model; each is asked in turn over REST and over gRPC, by 32 callers, pair after pair, so that
other work on the machine hurts them alike. What counts is the CPU of the whole process tree per request; the ratio is
this checkout's over the other's, pair by pair.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import grpc_cost
import psutil
import uvloop
from grpc_cost import by_grpc, by_http, end, ready, save_identity, wait

ROOT = Path(__file__).resolve().parents[1]
#: The command's module has had two places.
SERVE = """
import sys
try:
    from modelhub.serving.gateway.cli.main import main
except ModuleNotFoundError:
    from modelhub.serving.gateway.cli import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""
DOORS = {"REST": by_http, "gRPC": by_grpc}


class Gateway:
    """One of the two, running."""

    def __init__(self, source: Path, folder: Path, model: Path, stack: ExitStack) -> None:
        folder.mkdir()
        server = {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "state_dir": str(folder / "state"), "admin": "off"}
        models = [{"name": "identity", "uri": str(model)}]
        config = folder / "models.yaml"
        config.write_text(json.dumps({"server": server, "models": models}))
        environ = {**os.environ, "PYTHONPATH": str(source / "src")}
        running = subprocess.Popen([sys.executable, "-c", SERVE, str(config)], stderr=subprocess.DEVNULL, env=environ)
        stack.callback(end, running)
        note = folder / "state/gateways" / f"{running.pid}@{os.uname().nodename}.json"
        wait(note.exists, "the gateway does not listen")
        facts = json.loads(note.read_text())
        wait(lambda: ready(f"{facts['url']}/v2/health/ready"), "the model is not ready")
        self.places = {"REST": facts["url"], "gRPC": facts["grpc_url"]}
        root = psutil.Process(running.pid)
        self._tree = [root, *root.children(recursive=True)]

    def cost(self, door: str, requests: int) -> float:
        """Microseconds of CPU per request."""
        before = self._cpu()
        uvloop.run(DOORS[door](self.places[door], requests))
        return (self._cpu() - before) / requests * 1e6

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._tree)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("revision", help="of git, as of `git archive`")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--requests", type=int, default=6400, help="of one measurement")
    args = parser.parse_args()
    grpc_cost.CONCURRENCY = 32
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        archive = subprocess.run(["git", "archive", args.revision], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder / "other", filter="tar")
        model = save_identity(folder)
        other = Gateway(folder / "other", folder / "before", model, stack)
        this = Gateway(ROOT, folder / "now", model, stack)
        for door in DOORS:
            for gateway in (other, this):
                gateway.cost(door, args.requests)  # warms up
            pairs = []
            for number in range(args.pairs):
                turn = (other, this) if number % 2 else (this, other)
                found = {id(gateway): gateway.cost(door, args.requests) for gateway in turn}
                pairs.append((found[id(other)], found[id(this)]))
            ratios = sorted(now / before for before, now in pairs)
            before, now = (median(values) for values in zip(*pairs, strict=True))
            print(
                f"{door}: {before:.0f} µs of CPU per request at {args.revision}, {now:.0f} here; "
                f"ratio {median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}, {args.pairs} pairs)"
            )


if __name__ == "__main__":
    main()
