"""What a worker says of itself, as far as it may reach others: `/status`, the metrics, the document of all models.

A model's code can send anything. What the codec has checked has the right types; this is about what is in them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from ...protocol.errors import LoadError
from ...protocol.limits import MAX_CREDITS, MAX_MODULES
from ...protocol.messages import InferReply, ReadyReply, StatsReply

#: Bytes of its metadata, and of its own metrics; facts of its batching.
MAX_METADATA, MAX_METRICS, MAX_FACTS = 16 << 20, 4 << 20, 20
#: Characters of one fact, of a message of a failure, of its traceback.
MAX_TEXT, MAX_MESSAGE, MAX_TRACEBACK = 500, 10_000, 100_000


def credits_of(said: int, known: int) -> int:
    """Requests that a worker is given at once; 0: it says nothing of that."""
    return min(said, MAX_CREDITS) or known


def check_ready(ready: ReadyReply) -> None:
    """Raises LoadError where its metadata could not be shown as V2's."""
    try:
        size = len(orjson.dumps(ready.metadata))
        tensors = [*ready.metadata.get("inputs", []), *ready.metadata.get("outputs", [])]
        fine = all(_is_tensor(each) for each in tensors) and isinstance(ready.metadata.get("platform", ""), str)
    except (TypeError, ValueError, AttributeError):
        size, fine = 0, False
    if not fine or size > MAX_METADATA:
        raise LoadError(
            "its worker said metadata of it that is none of V2's: its code has sent them, or they are too large"
        )


def correct(ready: ReadyReply, warmed: InferReply) -> str:
    """Puts the outputs that the warm-up showed into the metadata; what to tell people of that, "": nothing is wrong.

    Raises LoadError as `check_ready` does.
    """
    if warmed.outputs is None:
        return ""
    declared = ready.metadata.get("outputs")
    corrected = replace(ready, metadata={**ready.metadata, "outputs": warmed.outputs})
    check_ready(corrected)
    ready.metadata = corrected.metadata
    if not declared:
        return ""
    return (
        f"its signature promises the outputs {_listed(declared)}, but its own input example is answered with "
        f"{_listed(warmed.outputs)}: the metadata say that now; log the model with a signature of what it returns"
    )


def _listed(outputs: list[Any]) -> str:
    named = [f"{each['name'][:60]} {each['datatype']}{each['shape']}" for each in outputs[:10]]
    return ", ".join(named) + (", …" if len(outputs) > 10 else "")


def _is_tensor(each: Any) -> bool:
    shape = each.get("shape")
    return (
        isinstance(each.get("name"), str)
        and isinstance(each.get("datatype"), str)
        and isinstance(shape, list)
        and all(isinstance(size, int) for size in shape)
    )


def batching_of(said: StatsReply) -> dict[str, Any]:
    """What it does about batching: plain facts."""
    found = said.stats.get("batching")
    facts = list(found.items())[:MAX_FACTS] if isinstance(found, dict) else []
    return {
        name[:MAX_TEXT]: value[:MAX_TEXT] if isinstance(value, str) else value
        for name, value in facts
        if isinstance(name, str) and (value is None or isinstance(value, (str, int, float, bool)))
    }


def imported_of(said: StatsReply) -> list[str]:
    """Names of modules that it has imported of its environment."""
    return [name[:MAX_TEXT] for name in said.imported[:MAX_MODULES] if isinstance(name, str)]


def metrics_of(said: StatsReply) -> bytes:
    """Its own metrics; none where they are too many."""
    return said.metrics if len(said.metrics) <= MAX_METRICS else b""
