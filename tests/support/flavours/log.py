"""Saves models of the tables: `python -m support.flavours.log FOLDER NAME…`, in the environment of their libraries.

Beside each of them lies NAME.json: the request by each door, and what `load_model(...).predict` answers here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from . import CASES, DEEP
from .parts import plain, request_of


def main(folder: Path, *names: str) -> None:
    import mlflow.pyfunc

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    warnings.showwarning = lambda *_, **__: None
    for name in names:
        asked = {**CASES, **DEEP}[name](folder / name)
        model = mlflow.pyfunc.load_model(str(folder / name), suppress_warnings=True)
        if asked.predict is not None:
            result = asked.predict(asked.data)
        else:
            result = model.predict(asked.data, params=asked.params) if asked.params else model.predict(asked.data)
        document = {**request_of(asked), "expected": plain(result)}
        (folder / f"{name}.json").write_text(json.dumps(document))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
