"""Asks a served model of the table by one door, and compares the answer with what `predict` said in its environment."""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
import subprocess
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from support.doors import DOORS, Case, In, Outcome
from support.gateway_process import Gateway

ROOT = Path(__file__).parents[3]
V2_DOORS = tuple(DOORS)
JSON_DOORS = {
    "data": ("/v2/models/{}/infer", "data", "params", "data"),
    "V1": ("/v1/models/{}:predict", "instances", "params", "predictions"),
    "invocations": ("/models/{}/invocations", None, "params", "predictions"),
}


def log_models(python: Path, folder: Path, names: Iterable[str], **variables: str) -> None:
    """Saves these models into the folder, and beside each what it is asked and answers there."""
    done = subprocess.run(
        [python, "-W", "ignore", "-m", "support.flavours.log", folder, *names],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), **variables},
        cwd=folder,  # MLflow traces the agent
    )
    assert done.returncode == 0, done.stderr[-4000:]


def asked_of(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def check_v2(served: Gateway, asked: dict[str, Any], name: str, door: str) -> None:
    if asked["v2"] is False:
        return  # it cannot be said so; see the case
    inputs = [_input(each, door) for each in asked["v2"]]
    outcome = DOORS[door](served, Case(name, inputs, parameters=asked["params"]))
    assert outcome.code == "OK", outcome.message
    _compare(_of_outcome(outcome), _flat(asked["expected"]))
    _check_promises(served, name, outcome)


def _check_promises(served: Gateway, name: str, outcome: Outcome) -> None:
    """What the metadata say of an output is what it is."""
    promised = {each["name"]: each for each in served.get(f"/v2/models/{name}").json()["outputs"]}
    if promised:
        assert set(promised) == {name for name, _ in outcome.outputs}
    for output, found in outcome.outputs if promised else ():
        assert promised[output]["datatype"] == found.datatype, output
        assert len(promised[output]["shape"]) == len(found.shape), output


def check_json(served: Gateway, asked: dict[str, Any], name: str, door: str) -> None:
    path, field, params, answered = JSON_DOORS[door]
    request = asked[{"data": "records", "V1": "instances"}.get(door, door)]
    if request is False:
        return
    body = _base64_as_text(request if field is None else {field: request})
    if asked["params"]:
        body[params] = asked["params"]
    answer = served.post(path.format(name), body)
    assert answer.status == 200, answer.body
    document = answer.json()
    got = document.get(answered, document)
    expected = _nested(asked["expected"])
    if door == "V1" and isinstance(expected, dict) and len(got) == 1 and got[0].keys() == expected.keys():
        (got,) = got  # one object for one instance
    rows = _rows(expected) if _is_columns(expected) else expected
    _compare(got, rows if door == "V1" and isinstance(got, list) else expected)


# ---- what is sent ----------------------------------------------------------------------------------


def _input(each: dict[str, Any], door: str) -> In:
    """`missing` says which text stands for null: V2 has none outside of JSON, and floats have NaN."""
    parameters = each.get("parameters", {})
    null = parameters["missing"].encode() if parameters else None if door == "rest json" else math.nan
    data = [null if value is None else _raw(value) for value in each["data"]]
    return In(each["name"], each["datatype"], each["shape"], data, parameters)


def _raw(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value


def _base64_as_text(value: Any) -> Any:
    """{"b64": …} as a JSON body has bytes."""
    if isinstance(value, dict):
        return value["b64"] if set(value) == {"b64"} else {name: _base64_as_text(each) for name, each in value.items()}
    return [_base64_as_text(each) for each in value] if isinstance(value, list) else value


# ---- what is expected ------------------------------------------------------------------------------


def _flat(expected: dict[str, Any]) -> Any:
    """As V2 has it: the flat data of each output by name, or of the only one."""
    if "table" in expected:
        return expected["table"]
    if "members" in expected:
        members = {name: each["data"] for name, each in expected["members"].items()}
        return list(itertools.chain.from_iterable(members.values())) if "output-0" in members else members
    return expected["data"]


def _nested(expected: dict[str, Any]) -> Any:
    """As JSON has it: records, nested lists, an object."""
    if "table" in expected:
        return _rows(expected["table"])
    if "members" in expected:
        members = {name: _nested(each) for name, each in expected["members"].items()}
        return list(members.values()) if "output-0" in members else members
    if not expected["shape"]:
        return expected["data"][0]
    data = expected["data"]
    for size in reversed(expected["shape"][1:]):
        data = [data[at : at + size] for at in range(0, len(data), size)]
    return data


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _is_columns(expected: Any) -> bool:
    return isinstance(expected, dict) and all(isinstance(each, list) for each in expected.values())


def _of_outcome(outcome: Outcome) -> Any:
    return {name: each.data for name, each in outcome.outputs}


def _compare(got: Any, expected: Any, where: str = "") -> None:
    if isinstance(expected, dict) and set(expected) == {"b64"}:
        raw = base64.b64decode(expected["b64"])
        assert got == raw or base64.b64decode(got) == raw, where
    elif isinstance(expected, dict):
        got = json.loads(got) if isinstance(got, bytes) else got
        if len(expected) == len(got) == 1:  # the only output, whatever its name
            got = dict(zip(expected, got.values(), strict=True))
        assert set(got) == set(expected), where
        for name, each in expected.items():
            _compare(got[name], each, f"{where}.{name}")
    elif isinstance(expected, list):
        got = json.loads(got) if isinstance(got, bytes) else got
        if isinstance(got, dict) and len(got) == 1:
            (got,) = got.values()
        assert len(got) == len(expected), f"{where}: {got} instead of {expected}"
        for at, each in enumerate(expected):
            _compare(got[at], each, f"{where}[{at}]")
    elif isinstance(expected, str):
        text = got.decode() if isinstance(got, bytes) else got
        assert text == expected or _time(text) == _time(expected), f"{where}: {text!r} instead of {expected!r}"
    elif expected is None:
        assert got in (None, "nan", b""), where
    elif isinstance(expected, bool) or not isinstance(expected, (int, float)):
        assert got == expected, where
    else:
        if isinstance(got, dict) and len(got) == 1:  # a Series, by MLflow's own server
            (got,) = got.values()
        assert math.isclose(got, expected, rel_tol=1e-6, abs_tol=1e-9), f"{where}: {got} instead of {expected}"


def _time(text: str) -> Any:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return text
