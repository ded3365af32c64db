"""What waiting for returning clients brings: the same models with it and with `batching: {max_delay: 0}`, in turns.

    python bench/returning.py [--rounds 3] [--seconds 4]

Closed loops, whose clients return as soon as they are answered, and a steady stream at a fixed rate, whose do not.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import load
import report
from cases import Case, request
from servers import modelhub

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

HERE = Path(__file__).parent
CODE = """
import time
import mlflow

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        time.sleep({call} + {row} * len(model_input))
        return model_input

mlflow.models.set_model(Model())
"""
#: Seconds per call and per row.
COSTS = {
    "20 ms": (0.02, 0.0),
    "5 ms": (0.005, 0.0),
    "3 ms + 0.05 ms per row": (0.003, 0.00005),
    "0.2 ms + 0.1 ms per row": (0.0002, 0.0001),
}
CLIENTS = (2, 8, 64)
#: Requests per second of the stream.
RATE = 300


def save(folder: Path, call: float, row: float) -> None:
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    matrix = Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
    with tempfile.TemporaryDirectory() as scratch:
        code = Path(scratch, "model_code.py")
        code.write_text(CODE.format(call=call, row=row))
        mlflow.pyfunc.save_model(
            folder,
            python_model=code,
            signature=ModelSignature(matrix, matrix),
            input_example=np.arange(8, dtype=np.float32).reshape(2, 4),
            pip_requirements=["mlflow", "numpy"],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of one measurement")
    parser.add_argument("--work", type=Path, default=HERE.parent / ".bench", help="models, logs and results")
    args = parser.parse_args()
    folder = (args.work / "runs" / time.strftime("%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True)
    entries = []
    for number, (call, per_row) in enumerate(COSTS.values()):
        save(folder / f"cost-{number}", call, per_row)
        for name, batching in ((f"waits-{number}", {}), (f"never-{number}", {"max_delay": 0})):
            entries.append({"name": name, "uri": str(folder / f"cost-{number}"), "batching": batching})
    rows: list[report.Row] = []
    with modelhub(folder, {"models": entries}) as server:
        for number, cost in enumerate(COSTS):
            cases = [Case(name, f"{name}-{number}", (1, 4), CLIENTS) for name in ("never", "waits")]
            for case in cases:
                server.wait(case)
                load.closed(request(case, server.url), 8, 1)
            for turn in range(args.rounds):
                for clients in (*CLIENTS, 0):
                    for case in cases if turn % 2 else cases[::-1]:
                        sent = request(case, server.url)
                        row: report.Row = {"cost": cost, "clients": clients or f"{RATE}/s", "waits": case.name}
                        if clients:
                            found = load.closed(sent, clients, args.seconds)
                        else:
                            stream = load.generate(sent, 64, args.seconds, RATE)
                            found = {**stream, **stream["statuses"]["200"]}
                        row |= {"rps": found["requests"] / found["seconds"], "p50": found["p50"], "p99": found["p99"]}
                        rows.append({**row, "round": turn})
    found_rows = report.medians(rows, ("cost", "clients", "waits"), ("rps", "p50", "p99"))
    columns = {"cost": "Cost of a call", "clients": "clients", "waits": "Waits", "rps": "req/s", "p50": "p50 ms"}
    report.table(f"medians of {args.rounds} rounds", found_rows, {**columns, "p99": "p99 ms"})
    print(f"wrote {report.save(args.work / 'results', 'returning', rows, medians=found_rows)}")


if __name__ == "__main__":
    main()
