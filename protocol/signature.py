"""A model's signature: the MLmodel file's text to typed fields and to V2 model metadata.

Pure: the gateway uses it for models that are not loaded, the worker for the one that it serves.

    column   boolean integer long float double -> BOOL INT32 INT64 FP32 FP64; string, binary, datetime
             (ISO 8601) -> BYTES; array, object, map, any -> BYTES holding JSON. Shape [-1].
    tensor   its own dtype and shape; str, bytes, object, datetime64 -> BYTES

What has no name is called `input-0`, `input-1`, …, `output-0`, …
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union, cast

from .errors import LoadError
from .yaml_files import load_yaml

#: The file that makes a folder an MLflow model.
MLMODEL = "MLmodel"

_COLUMNS = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}
_TENSORS = {
    "bool": "BOOL",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
#: Columns whose BYTES elements are text or bytes as they are; any other BYTES column holds JSON.
_TEXT_COLUMNS = ("string", "binary", "datetime")


@dataclass(frozen=True)
class Field:
    """One input or output. `type` is MLflow's own name: a column's type, or a tensor's numpy dtype."""

    name: str
    kind: str  # column | tensor
    type: str
    datatype: str
    shape: Tuple[int, ...]
    required: bool = True
    named: bool = True
    label: Any = None  # the model's own of a column, where that is no text: a number, or a tuple

    @property
    def holds_json(self) -> bool:
        """Is an element of this BYTES column the text of a JSON value?"""
        return self.kind == "column" and self.datatype == "BYTES" and self.type not in _TEXT_COLUMNS


@dataclass(frozen=True)
class Param:
    """One parameter of the model's params schema. `is_list`: shape (-1,)."""

    name: str
    type: str  # a column type
    default: Any = None
    is_list: bool = False


@dataclass
class Signature:
    """What the model takes and gives; an empty list: not said."""

    inputs: List[Field] = field(default_factory=list)
    outputs: List[Field] = field(default_factory=list)
    params: List[Param] = field(default_factory=list)
    from_type_hint: bool = False  # mlflow made it from the type hints of PythonModel.predict
    task: str = ""  # what MLflow says of agents in the model's metadata, like "agent/v2/chat"
    #: What the model's input example is in Python, which counts where `inputs` is empty: table (a DataFrame), array (or
    #: several by name), object (a dict), records, list, text; "": not known.
    example_kind: str = ""


def parse_mlmodel(content: Union[bytes, str], where: str = MLMODEL, *, numbers: bool = True) -> Dict[str, Any]:
    """The MLmodel file's YAML to a dict; see `load_yaml`. Raises LoadError, which begins with `where`."""
    found = load_yaml(content, where, numbers=numbers)
    flavors = found.get("flavors") if isinstance(found, dict) else None
    if not isinstance(flavors, dict) or not isinstance(flavors.get("python_function") or {}, dict):
        raise LoadError(f"{where} is no MLmodel file: it has no `flavors`; log or download the model again")
    return cast("Dict[str, Any]", found)


def signature_from_mlmodel(mlmodel: Mapping[str, Any]) -> Optional[Signature]:
    """The signature in a parsed MLmodel file; None if it has none. Raises LoadError."""
    section = mlmodel.get("signature")
    if not section:
        return None
    try:
        return Signature(
            inputs=_fields(_items(section.get("inputs")), "input"),
            outputs=_fields(_items(section.get("outputs")), "output"),
            params=[_param(item) for item in _items(section.get("params"))],
            from_type_hint=bool(mlmodel.get("is_signature_from_type_hint")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise LoadError(f"the signature in the MLmodel file is not readable: {type(error).__name__}: {error}") from None


def task_from_mlmodel(mlmodel: Mapping[str, Any]) -> str:
    """The task in the model's own metadata; "" where there is none."""
    metadata = mlmodel.get("metadata")
    return str(metadata.get("task") or "") if isinstance(metadata, Mapping) else ""


def platform_from_mlmodel(mlmodel: Mapping[str, Any]) -> str:
    """`mlflow_<flavour>` with the most specific flavour: the one that pyfunc's loader belongs to, else
    the first that is not python_function."""
    flavors = mlmodel.get("flavors") or {}
    specific = [name for name in flavors if name != "python_function"]
    loader = str((flavors.get("python_function") or {}).get("loader_module", ""))
    for name in specific:
        if name in loader.split("."):
            return f"mlflow_{name}"
    return f"mlflow_{specific[0] if specific else 'python_function'}"


def metadata_from_signature(signature: Optional[Signature], platform: str) -> Dict[str, Any]:
    """V2 model metadata without name and versions; -1 stands for a variable dimension."""
    known = signature or Signature()
    return {
        "platform": platform,
        "inputs": [_tensor_metadata(each) for each in known.inputs],
        "outputs": output_metadata(known.outputs),
    }


def output_metadata(fields: Sequence[Field]) -> List[Dict[str, Any]]:
    """Outputs as V2 metadata."""
    return [_tensor_metadata(each) for each in fields]


def metadata_from_mlmodel(mlmodel: Mapping[str, Any]) -> Dict[str, Any]:
    """V2 model metadata, without name and versions, of a parsed MLmodel file. Raises LoadError."""
    return metadata_from_signature(signature_from_mlmodel(mlmodel), platform_from_mlmodel(mlmodel))


def _tensor_metadata(each: Field) -> Dict[str, Any]:
    return {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}


def _items(value: Any) -> List[Dict[str, Any]]:
    if not value:
        return []
    items = json.loads(value) if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise ValueError("a schema must be a list")
    return list(items)


def _fields(items: List[Dict[str, Any]], what: str) -> List[Field]:
    return [_field(item, f"{what}-{position}") for position, item in enumerate(items)]


def _field(item: Dict[str, Any], fallback: str) -> Field:
    name = item.get("name")
    named = name is not None and name != ""
    label = str(name) if named else fallback
    kind = str(item["type"])
    if kind == "tensor":
        spec = item["tensor-spec"]
        dtype = str(spec["dtype"])
        shape = tuple(int(size) for size in spec["shape"])
        return Field(label, "tensor", dtype, _TENSORS.get(dtype, "BYTES"), shape, named=named)
    required = bool(item.get("required", not item.get("optional", False)))
    own = None if not named or isinstance(name, str) else tuple(name) if isinstance(name, list) else name
    return Field(label, "column", kind, _COLUMNS.get(kind, "BYTES"), (-1,), required=required, named=named, label=own)


def _param(item: Dict[str, Any]) -> Param:
    kind = item.get("type", item.get("dtype"))
    return Param(str(item["name"]), str(kind), item.get("default"), is_list=item.get("shape") is not None)
