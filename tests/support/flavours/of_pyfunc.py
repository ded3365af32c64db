"""Models of python_function itself: every kind of signature, of type hint, of argument and of result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..code_models import save_code_model
from .of_sklearn import numbers
from .parts import Asked, case

_MODEL = """
import datetime
from typing import Any, Optional
import mlflow, numpy as np, pandas as pd, pydantic

class Person(pydantic.BaseModel):
    name: str
    age: Optional[int] = None

class Own(mlflow.pyfunc.PythonModel):
    def predict({arguments}){returns}:
        {body}
"""
_ALL = "self, context, model_input, params=None"


def save(folder: Path, body: str, *, arguments: str = _ALL, returns: str = "", **options: Any) -> None:
    save_code_model(folder, _MODEL.format(arguments=arguments, returns=returns, body=body), **options)


def signed(data: Any, result: Any = None, **params: Any) -> dict[str, Any]:
    from mlflow.models import infer_signature

    return {"signature": infer_signature(data, result, params=params or None)}


def every_type() -> Any:
    import numpy as np
    import pandas as pd

    return pd.DataFrame(
        {
            "flag": [True, False],
            "small": np.array([1, -2], "int32"),
            "large": np.array([1 << 40, 0], "int64"),
            "single": np.array([0.5, 1.5], "float32"),
            "double": [0.1, 2.0],
            "text": ["ä", "b"],
            "raw": [b"\x00\xff", b"raw"],
            "day": pd.to_datetime(["2024-01-31T12:00:00", "1999-12-31T00:00:00"]).astype("datetime64[ns]"),
        }
    )


@case
def columns_of_every_type(folder: Path) -> Asked:
    X = every_type()
    save(folder, "return model_input", **signed(X, X))
    return Asked(X)


@case
def columns_of_every_type_as_seen_by_the_model(folder: Path) -> Asked:
    X = every_type()
    body = "return [repr([type(each).__name__ for each in row]) for row in model_input.itertuples(index=False)]"
    save(folder, body, **signed(X, ["text"]))
    return Asked(X)


@case
def nested_columns(folder: Path) -> Asked:
    import pandas as pd

    X = pd.DataFrame({"tags": [["a", "b"], ["c"]], "who": [{"name": "Ana", "age": 3}, {"name": "Bo", "age": 4}]})
    save(
        folder, "return [f'{list(t)} {w}' for t, w in zip(model_input['tags'], model_input['who'])]", **signed(X, ["t"])
    )
    return Asked(X)


@case
def missing_texts(folder: Path) -> Asked:
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    X = pd.DataFrame({"text": ["a", None]}, dtype=object)
    signature = ModelSignature(Schema([ColSpec("string", "text", required=False)]), Schema([ColSpec("boolean")]))
    save(folder, "return model_input['text'].isna().to_numpy()", signature=signature)
    column = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", None], "parameters": {"missing": ""}}
    return Asked(X, v2=[column])


@case
def parameters(folder: Path) -> Asked:
    X = numbers().head(2)
    body = "return [f'{sorted(params.items())}'] * len(model_input)"
    save(folder, body, **signed(X, ["text"], k=3, name="x", scale=0.5, on=True))
    return Asked(X, {"k": 7, "name": "ä", "scale": 1.5, "on": False})


@case
def default_parameters(folder: Path) -> Asked:
    X = numbers().head(2)
    save(folder, "return [f'{params}'] * len(model_input)", **signed(X, ["text"], k=3, stop=["a"]))
    return Asked(X)


@case
def artifacts_and_config(folder: Path) -> Asked:
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / "factor.txt"
    file.write_text("3")
    body = "return model_input * float(open(context.artifacts['factor']).read()) + context.model_config['add']"
    X = numbers().head(3)
    save(folder, body, artifacts={"factor": str(file)}, model_config={"add": 2}, **signed(X, X))
    return Asked(X)


@case
def code_paths(folder: Path) -> Asked:
    folder.parent.mkdir(parents=True, exist_ok=True)
    module = folder.parent / "config.py"  # a name that others have too
    module.write_text("FACTOR = 5\n")
    X = numbers().head(3)
    save(folder, "import config; return model_input * config.FACTOR", code_paths=[str(module)], **signed(X, X))
    return Asked(X)


@case
def loader_module(folder: Path) -> Asked:
    import mlflow.pyfunc

    folder.parent.mkdir(parents=True, exist_ok=True)
    module, data = folder.parent / "own_loader.py", folder.parent / "data.txt"
    module.write_text(
        "class Model:\n    def __init__(self, path): self.add = float(open(path).read())\n"
        "    def predict(self, data): return data['a'] + self.add\n"
        "def _load_pyfunc(path): return Model(path)\n"
    )
    data.write_text("10")
    X = numbers().head(3)
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module="own_loader",
        data_path=str(data),
        code_paths=[str(module)],
        pip_requirements=["mlflow"],
        **signed(X, X["a"]),
    )
    return Asked(X)


# ---- type hints ------------------------------------------------------------------------------------


def hinted(folder: Path, hint: str) -> None:
    arguments, returns = f"self, model_input: {hint}", " -> list[str]"
    save(folder, "return [repr(each) for each in model_input]", arguments=arguments, returns=returns)


def texts(*values: str) -> list[dict[str, Any]]:
    return [{"name": "input-0", "datatype": "BYTES", "shape": [len(values)], "data": list(values)}]


@case
def hint_texts(folder: Path) -> Asked:
    hinted(folder, "list[str]")
    return Asked(["a", "ü"], v2=texts("a", "ü"))


@case
def hint_whole_numbers(folder: Path) -> Asked:
    hinted(folder, "list[int]")
    return Asked([1, 2])


@case
def hint_floats(folder: Path) -> Asked:
    hinted(folder, "list[float]")
    return Asked([0.5, 2.0])


@case
def hint_objects(folder: Path) -> Asked:
    hinted(folder, "list[dict[str, int]]")
    return Asked([{"a": 1}, {"b": 2}], v2=texts('{"a": 1}', '{"b": 2}'))


@case
def hint_lists(folder: Path) -> Asked:
    hinted(folder, "list[list[str]]")
    return Asked([["a", "b"], []], v2=texts('["a", "b"]', "[]"))


@case
def hint_pydantic(folder: Path) -> Asked:
    hinted(folder, "list[Person]")
    people = [{"name": "Ana", "age": 3}, {"name": "Bo"}]
    return Asked(people, v2=texts('{"name": "Ana", "age": 3}', '{"name": "Bo"}'))


@case
def hint_anything(folder: Path) -> Asked:
    hinted(folder, "list[Any]")
    return Asked(["a", 1, {"x": 1}], v2=texts('"a"', "1", '{"x": 1}'))


@case
def function(folder: Path) -> Asked:
    import mlflow.pyfunc

    def predict(model_input: list[str]) -> list[str]:
        return [each.upper() for each in model_input]

    mlflow.pyfunc.save_model(str(folder), python_model=predict, pip_requirements=["mlflow"], input_example=["a"])
    return Asked(["a", "b"], v2=texts("a", "b"))


# ---- tensors ---------------------------------------------------------------------------------------


@case
def named_tensors(folder: Path) -> Asked:
    import numpy as np

    X = {"left": np.array([[1.0, 2.0], [3.0, 4.0]]), "right": np.array([[1, 2], [3, 4]], "int64")}
    body = "return {'sum': model_input['left'] + model_input['right'], 'shape': np.array([2, 2], 'int64')}"
    rows = [{name: each[at].tolist() for name, each in X.items()} for at in range(2)]
    save(folder, body, **signed(X, {"sum": X["left"], "shape": np.array([2, 2], "int64")}))
    return Asked(X, records=rows)


@case
def pictures(folder: Path) -> Asked:
    import numpy as np

    X = np.arange(24, dtype="uint8").reshape(2, 2, 2, 3)
    save(folder, "return model_input.astype('float32') / 255", **signed(X, X.astype("float32")))
    return Asked(X)


# ---- results ---------------------------------------------------------------------------------------

RESULTS = {
    "table": "pd.DataFrame({'label': ['x'] * len(model_input), 'p': model_input['a']})",
    "series": "model_input['a'] * 2",
    "texts": "['x'] * len(model_input)",
    "floats": "[float(each) for each in model_input['a']]",
    "matrix": "model_input.to_numpy()[:, :2]",
    "flags": "(model_input['a'] > 0).to_numpy()",
    "whole-numbers": "np.arange(len(model_input), dtype='int64')",
    "object": "{'mean': model_input['a'].to_numpy(), 'n': np.arange(len(model_input))}",
}


def _result(name: str, expression: str) -> None:
    def saved(folder: Path) -> Asked:
        X = numbers().head(3)
        save(folder, f"return {expression}", **signed(X))
        return Asked(X)

    saved.__name__ = f"result_{name}"
    case(saved)


for _name, _expression in RESULTS.items():
    _result(_name, _expression)


# ---- no signature ----------------------------------------------------------------------------------

_SAYS = "return [f'{type(model_input).__name__} {list(model_input)}']"


@case
def unsigned_table(folder: Path) -> Asked:
    X = numbers().head(2)
    save(folder, "return model_input['a'] + model_input['b']", signature=False, input_example=X)
    return Asked(X)


@case
def unsigned_object(folder: Path) -> Asked:
    asked = {"question": "why"}
    save(folder, _SAYS, signature=False, input_example=asked)
    v2 = [{"name": "question", "datatype": "BYTES", "shape": [1], "data": ["why"]}]
    return Asked(asked, v2=v2, records=[asked], invocations=False, instances=[asked])


@case
def unsigned_texts(folder: Path) -> Asked:
    save(folder, _SAYS, signature=False, input_example=["a", "b"])
    return Asked(["a", "b"], v2=texts("a", "b"), invocations=False)
