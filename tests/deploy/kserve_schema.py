"""Prints a strict JSON Schema of each KServe kind that we deploy, made from the models of KServe's own Python SDK.

Run with the Python of `.venvs/kserve`: the SDK and the Kubernetes client below it are generated from the same Go
types as the CRDs. Every object is closed, so that a misspelt field is an error.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

import kserve.models as kserve_models  # noqa: E402
import kubernetes.client.models as kubernetes_models  # noqa: E402

KINDS = {"InferenceService": "V1beta1InferenceService", "ClusterServingRuntime": "V1alpha1ClusterServingRuntime"}
PLAIN: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "object": {},
    "datetime": {"type": "string"},
    "bytes": {"type": "string"},
}
#: Go types with a JSON form of their own.
OTHERS: dict[str, dict[str, Any]] = {
    "V1beta1MetricQuantity": {"type": ["string", "integer", "number"]},
    "ResourceQuantity": {"type": ["string", "integer", "number"]},
    "IntOrString": {"type": ["string", "integer"]},
    "ApisMetaV1Time": {"type": "string"},
}
#: Of resources; the SDK says text, Kubernetes takes numbers too.
QUANTITIES = {"type": "object", "additionalProperties": OTHERS["ResourceQuantity"]}

definitions: dict[str, Any] = {}


def schema_of(name: str) -> dict[str, Any]:
    """The schema of a type by its name in the SDK."""
    if name in PLAIN:
        return PLAIN[name]
    if name in OTHERS:
        return OTHERS[name]
    if found := re.fullmatch(r"[lL]ist\[(.*)\]", name):
        return {"type": "array", "items": schema_of(found[1])}
    if found := re.fullmatch(r"[dD]ict[(\[][^,]+, (.*)[)\]]", name):
        return {"type": "object", "additionalProperties": schema_of(found[1])}
    model = getattr(kserve_models, name, None) or getattr(kubernetes_models, name, None)
    if model is None:
        match = re.fullmatch(r"K8sIoApi[A-Za-z]+?(V[0-9].*)", name)
        model = match and getattr(kubernetes_models, match[1], None)
    if model is None:
        return {"not": {}}  # a type that the SDK forgot: what we deploy must do without it
    if name not in definitions:
        definitions[name] = {}  # a type may hold itself
        properties = {
            model.attribute_map[key]: QUANTITIES if key in ("limits", "requests") else schema_of(kind)
            for key, kind in model.openapi_types.items()
            if key != "status"
        }
        definitions[name] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"$ref": f"#/$defs/{name}"}


def main() -> None:
    roots = {kind: schema_of(name) for kind, name in KINDS.items()}
    json.dump({kind: {**root, "$defs": definitions} for kind, root in roots.items()}, sys.stdout)


if __name__ == "__main__":
    main()
