"""A model's result as the outputs that are made of it, in plain values; and the fields of a signature."""

from __future__ import annotations

from typing import Any

from modelhub.serving.protocol.signature import Field
from modelhub.serving.workers.convert.outputs import to_outputs


def outputs(result: Any, *fields: Field) -> dict[str, tuple[str, list[int], Any]]:
    found = to_outputs(result, fields)
    names = [each.name for each in found]
    assert len(set(names)) == len(names)
    return {each.name: (each.datatype, list(each.array.shape), each.array.tolist()) for each in found}


def only(result: Any, *fields: Field) -> tuple[str, list[int], Any]:
    ((name, found),) = outputs(result, *fields).items()
    assert name == (fields[0].name if fields else "output-0")
    return found


def column(name: str, kind: str, datatype: str) -> Field:
    return Field(name, "column", kind, datatype, (-1,))
