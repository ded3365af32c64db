"""Strict schemas of what deploy/ writes for Kubernetes: built-in kinds, KServe's, the Prometheus operator's."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

ROOT = Path(__file__).parents[2]
KSERVE_PYTHON = ROOT / ".venvs" / "kserve" / "bin" / "python"
KUBERNETES = "1.29"

_DURATION = r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"
_DURATION_TYPE = {"type": "string", "pattern": _DURATION, "minLength": 1}
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def _closed(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required or [], "additionalProperties": False}


def _kind(spec: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string"}
    metadata = _closed(["name"], name=text, namespace=text, labels=_STRINGS, annotations=_STRINGS)
    return _closed(["apiVersion", "kind", "metadata", "spec"], apiVersion=text, kind=text, metadata=metadata, spec=spec)


#: The parts of the operator's CRDs that we use; their other fields are refused, which is stricter than the cluster.
OPERATOR = {
    "ServiceMonitor": _kind(
        _closed(
            ["selector", "endpoints"],
            selector=_closed(matchLabels=_STRINGS),
            endpoints={
                "type": "array",
                "minItems": 1,
                "items": _closed(
                    ["port"],
                    port={"type": "string"},
                    path={"type": "string"},
                    interval=_DURATION_TYPE,
                    scrapeTimeout=_DURATION_TYPE,
                ),
            },
        )
    ),
    "PrometheusRule": _kind(
        _closed(
            ["groups"],
            groups={
                "type": "array",
                "items": _closed(
                    ["name", "rules"],
                    name={"type": "string", "minLength": 1},
                    interval=_DURATION_TYPE,
                    rules={
                        "type": "array",
                        "items": {
                            **_closed(
                                ["expr"],
                                alert={"type": "string"},
                                record={"type": "string"},
                                expr={"type": "string"},
                                labels=_STRINGS,
                                annotations=_STRINGS,
                                **{"for": _DURATION_TYPE},
                            ),
                            "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
                        },
                    },
                ),
            },
        )
    ),
}


@functools.cache
def kserve() -> dict[str, Any]:
    """Schemas by kind, from the models of KServe's own SDK."""
    assert KSERVE_PYTHON.exists(), "the kserve client is missing: run make check-deploy, which installs it"
    script = Path(__file__).with_name("kserve_schema.py")
    done = subprocess.run([str(KSERVE_PYTHON), str(script)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with one manifest; unknown fields and unknown kinds are wrong."""
    kind = manifest.get("kind", "")
    schema = OPERATOR.get(kind) or kserve().get(kind)
    if schema is not None:
        errors = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
        return [f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}" for error in errors]
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError as error:
        return [f"{kind} is no kind that is known here: {error}"]
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(str(part) for part in error.path)}: {error.message}"]
    return []


def branches(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all mappings whose keys are fields, not names of somebody's own."""
    if isinstance(node, dict):
        if path and path[-1] in ("labels", "annotations", "data", "limits", "requests", "matchLabels"):
            return
        yield path
        for key, value in node.items():
            yield from branches(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from branches(value, (*path, index))


def misspelt(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """A copy with an unknown field at the path."""
    changed = copy.deepcopy(document)
    inner = changed
    for part in path:
        inner = inner[part]
    inner["misspelt"] = "planted"
    return changed
