"""What the scripts of this folder share: tensors of every type, and the loop that runs their cases.

They run under the Python of a client's own environment, without pytest or anything of ours; this file lies beside them.
"""

import inspect
import json
import sys

import numpy as np

#: Extremes of every type, as the model `datatypes` names its tensors.
EXTREMES = {
    "BOOL": np.array([True, False, True]),
    **{
        kind.upper(): np.array([np.iinfo(kind).min, 1, np.iinfo(kind).max], dtype=kind)
        for kind in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
    },
    "FLOAT16": np.array([-65504, 0.5, 65504], dtype=np.float16),
    "FLOAT32": np.array([np.finfo(np.float32).min, 0.1, np.finfo(np.float32).tiny], dtype=np.float32),
    "FLOAT64": np.array([np.finfo(np.float64).min, 0.1, np.finfo(np.float64).tiny]),
    "STR": np.array(["", "naïve ☃ 🎉", 'quote " and \\ and \n'], dtype=object),
}


def plain(array):
    """JSON for an array: its values, bytes as text."""
    return [value.decode() if isinstance(value, bytes) else value for value in array.reshape(-1).tolist()]


async def run(kind, said, *arguments):
    """Print, as JSON, what every function of the script that is called `case_…` returns for these arguments.

    {"case_…": {"result": …}}, or {"status": …, "message": …} where it raises: for an error of `kind`, the client's
    own, these are what `said(error)` makes of it.
    """
    answers = {}
    for name, case in list(vars(sys.modules["__main__"]).items()):
        if name.startswith("case_"):
            try:
                result = case(*arguments)
                answers[name] = {"result": await result if inspect.isawaitable(result) else result}
            except Exception as error:
                status, message = said(error) if isinstance(error, kind) else (type(error).__name__, str(error))
                answers[name] = {"status": status, "message": message}
    print(json.dumps(answers))
