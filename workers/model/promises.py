"""What the warm-up's answer shows of a model's outputs becomes what its metadata promise, and what answers are made to.

Called once per worker, by `loop/runner.py`, with the answer to the model's own input example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set

from ...protocol.signature import output_metadata
from ..convert.seen import outputs_seen
from .call import Call

if TYPE_CHECKING:
    from .served import Served


def promise(model: Served, call: Call, result: Any) -> Optional[List[Dict[str, Any]]]:
    """The outputs as V2 metadata where the answer shows others than these say; from now on they are the model's."""
    try:
        seen = outputs_seen(result, model.signature.outputs, _variable_sizes(model, call))
    except (TypeError, ValueError, OverflowError, RecursionError):  # of a kind that cannot be looked at
        return None
    outputs = output_metadata(seen)
    if outputs == model.metadata["outputs"]:
        return None
    model.signature.outputs, model.metadata["outputs"] = seen, outputs
    return outputs


def _variable_sizes(model: Served, call: Call) -> Set[int]:
    """Sizes of the call's inputs along dimensions that may be of another size, the first left out."""
    return {
        size
        for each in model.signature.inputs
        if each.name in call.inputs
        for size, wanted in zip(call.inputs[each.name].shape[1:], each.shape[1:])
        if wanted == -1
    }
