"""What a request costs inside a worker, without sockets: µs of decode, predict and encode, medians.

    python bench/worker_cost.py                         every case, in this process
    python bench/worker_cost.py --cases identity iris   a few of them

Models are loaded by the worker's own code from `--models`, where `bench/run.py` makes them too. A request is decoded
as the loop does it: from the wire's message and body to a call, and the key that says what can share its prediction.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from cases import CASES, Case, request

from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.load.mlflow import load
from modelhub.serving.workers.model.served import ServedModel

HERE = Path(__file__).parent
COMPARED = (
    CASES["identity"],
    Case("identity-binary", "identity", (1, 4), (), binary=True),
    CASES["iris"],
    CASES["0.6MB-json"],
    CASES["0.6MB-binary"],
    CASES["4MB-json"],
    CASES["4MB-binary"],
)
STEPS = ("decode", "key", "predict", "encode")


def measure(model: ServedModel, case: Case, seconds: float) -> tuple[int, list[float]]:
    """How often it was run, and the median µs of each of STEPS."""
    sent = request(case, "")
    size = sent.headers.get("Inference-Header-Content-Length")
    content_type = sent.headers["Content-Type"]
    laps: list[tuple[int, ...]] = []
    until = time.monotonic() + seconds
    clock = time.perf_counter_ns
    while len(laps) < 5 or time.monotonic() < until:
        message = InferRequest(1, content_type=content_type, json_size=int(size) if size else None)
        body = sent.body if len(sent.body) <= 8192 else memoryview(sent.body)
        start = clock()
        call = model.decode(message, body)
        decoded = clock()
        call.group_key()
        keyed = clock()
        result = model.predict(call)
        predicted = clock()
        model.encode(call, result)
        laps.append((decoded - start, keyed - decoded, predicted - keyed, clock() - predicted))
        del call, result
    return len(laps), [statistics.median(each) / 1000 for each in zip(*laps, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=HERE.parent / ".bench/models", help="a folder of MLflow models")
    parser.add_argument("--cases", nargs="+", default=[each.name for each in COMPARED])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case")
    args = parser.parse_args()
    if not (args.models / "iris").exists():
        subprocess.run([sys.executable, str(HERE / "models.py"), str(args.models)], check=True)
    print(f"{'case':16}{'runs':>8}", *(f"{each:>10}" for each in (*STEPS, "together")), " µs", sep="")
    loaded: dict[str, ServedModel] = {}
    for case in COMPARED:
        if case.name in args.cases:
            if case.model not in loaded:
                path = str(args.models / case.model)
                loaded[case.model] = load(WorkerSpec(case.model, "1", 0, 0, "", "", path, "", "/"))
            runs, medians = measure(loaded[case.model], case, args.seconds)
            print(f"{case.name:16}{runs:8}", *(f"{each:10.1f}" for each in (*medians, sum(medians))), sep="")


if __name__ == "__main__":
    main()
