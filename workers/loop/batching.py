"""Which requests are predicted together.

While a prediction runs, requests wait in the worker; those of one `Call.group_key` are then stacked along
the first axis and predicted in one call. `Batching` is the switch of one model:

    enabled: true    always
    enabled: false   never, and neither with max_size 1
    neither          where it is safe: every input's first dimension is -1, AND the flavour is row-wise by
                     construction (`row_wise.py`) or the model's own input example has shown it: its distinct
                     rows, stacked in both orders, give what each gives by itself (`prove`, at the warm-up)

A batch that comes back with another number of rows switches it off for good, an exception in a batch for
a while (one client's bad row looks the same). Its requests are then run one by one by the loop.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from ...protocol.errors import InvalidRequest, ServingError
from ...protocol.journal import SLOTS
from ...protocol.kinds import GENERATE, STREAM
from ...protocol.limits import BATCH_ROWS
from ..convert.outputs import to_outputs
from ..model.call import Call
from ..model.served import Served
from .row_wise import is_row_wise
from .stacking import split, stack

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

#: Kinds of requests whose result is not one row per row.
_NEVER = frozenset({STREAM, GENERATE})
#: Seconds without batches after an exception in one; doubles each time up to the second figure.
_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
#: Rows of the input example that are looked at.
_PROOF_ROWS = 4
#: How far floats may differ: relative to themselves, or to the largest of their array.
_TOLERANCE = {"FP16": 1e-2, "BF16": 2e-2, "FP32": 1e-4, "FP64": 1e-6}


class Batching:
    """Whether one model's requests are batched, and why. Read and changed by whoever runs them."""

    def __init__(self, model: Served, settings: Optional[Dict[str, Any]] = None) -> None:
        """`settings`: WorkerSpec's `batching`: enabled (true, false or None), max_size (rows), max_delay (seconds)."""
        known = settings or {}
        self.max_size = int(known.get("max_size") or BATCH_ROWS)
        delay = known.get("max_delay")
        #: Seconds; None: as long as it is worth it (`patience.py`).
        self.max_delay: Optional[float] = None if delay is None else float(delay)
        self.candidate = False  # the input example may still show that it is safe
        self._on = False
        self._pauses = 0
        self._until = 0.0
        wanted = known.get("enabled")
        if wanted is False:
            self.reason = "batching: {enabled: false}"
        elif self.max_size < 2:
            self.reason = "batching: {max_size: 1}"
        elif wanted:
            self._on, self.reason = True, "batching: {enabled: true}"
        elif not _first_dimension_is_open(model):
            self.reason = "its signature does not say that the first dimension of every input is variable"
        elif is_row_wise(model):
            self._on, self.reason = True, f"{model.platform} is row-wise"
        else:
            self.candidate = True
            self.reason = "not shown to be safe: it needs an input example of two distinct rows, or enabled: true"

    @property
    def on(self) -> bool:
        return self._on and (not self._until or time.monotonic() >= self._until)

    def credits(self, concurrency: int) -> int:
        """How many requests the worker wants to hold: the batches that run and the next. 0: the gateway's default."""
        return min(2 * self.max_size * concurrency, SLOTS // 4) if self._on else 0

    def state(self) -> Dict[str, Any]:
        """For people: what a StatsReply says."""
        return {"enabled": self.on, "reason": self.reason, "max_size": self.max_size, "max_delay": self.max_delay}

    def takes(self, call: Call) -> bool:
        """May this call share a prediction with others?"""
        return (
            not call.alone
            and 0 < call.rows < self.max_size
            and bool(call.inputs)
            and call.kind not in _NEVER
            and all(array.ndim and len(array) == call.rows for array in call.inputs.values())
        )

    def prove(self, model: Served, call: Call) -> None:
        """Switch it on if the input example, decoded, shows that it is safe. Calls `predict` a few times."""
        self.candidate = False
        try:
            why_not = _difference(model, call)
        except ServingError as error:
            why_not = f"the input example's rows fail by themselves or stacked: {error.message[:200]}"
        except Exception as error:
            why_not = f"the result for the input example cannot be taken apart: {type(error).__name__}: {error}"
        if why_not:
            self.reason = why_not
        else:
            self._on, self.reason = True, "the input example's rows give the same stacked and by themselves"

    def failed(self, requests: int, error: Exception) -> None:
        """An exception in a batch. What is the client's mistake changes nothing."""
        if isinstance(error, InvalidRequest):
            return
        pause = min(_PAUSE * 2**self._pauses, _LONGEST_PAUSE)
        self._pauses += 1
        self._until = time.monotonic() + pause
        self.reason = (
            f"off for {pause:g} s: a batch of {requests} requests raised {type(error.__cause__ or error).__name__}"
        )
        self._say()

    def wrong_rows(self, rows: int) -> None:
        """The result of a batch could not be taken apart."""
        self._on = False
        self.reason = f"off: for a batch of {rows} rows the model gave back another number of rows"
        self._say()

    def _say(self) -> None:
        print(f"batching is {self.reason}; requests are run one by one", file=sys.stderr, flush=True)


def _first_dimension_is_open(model: Served) -> bool:
    inputs = model.signature.inputs
    return bool(inputs) and all(each.shape[:1] == (-1,) for each in inputs)


# ---- the proof -----------------------------------------------------------------------------------


def _difference(model: Served, call: Call) -> str:
    """Why stacking the example's rows is not the same as predicting each; "" if it is. Raises ServingError."""
    rows = _distinct_rows(call)
    if len(rows) < 2:
        return "the model has no input example of two distinct rows"
    alone = [_outputs(model, model.predict(stack([row]))) for row in rows]
    for order in (range(len(rows)), range(len(rows) - 1, -1, -1)):
        parts = split(model.predict(stack([rows[at] for at in order])), [1] * len(rows), len(model.signature.outputs))
        if parts is None:
            return "the input example's rows, stacked, give another number of rows"
        for at, part in zip(order, parts):
            if not _same(alone[at], _outputs(model, part)):
                return "the input example's rows give something else when they are stacked"
    return ""


def _distinct_rows(call: Call) -> List[Call]:
    if not call.inputs or any(not array.ndim or len(array) != call.rows for array in call.inputs.values()):
        return []
    seen: Dict[bytes, Call] = {}
    for at in range(min(call.rows, 16)):
        inputs = {name: array[at : at + 1] for name, array in call.inputs.items()}
        key = repr([array.tolist() for array in inputs.values()]).encode()
        seen.setdefault(key, Call(call.kind, inputs, call.params, None, name=call.name, version=call.version))
    return list(seen.values())[:_PROOF_ROWS]


def _outputs(model: Served, result: Any) -> List[Any]:
    return [(each.name, each.datatype, each.array.copy()) for each in to_outputs(result, model.signature.outputs)]


def _same(one: List[Any], other: List[Any]) -> bool:
    if [(name, datatype) for name, datatype, _ in one] != [(name, datatype) for name, datatype, _ in other]:
        return False
    return all(_close(datatype, left, right) for (_, datatype, left), (_, _, right) in zip(one, other))


def _close(datatype: str, left: Array, right: Array) -> bool:
    import numpy as np

    tolerance = _TOLERANCE.get(datatype)
    if left.shape != right.shape:
        return False
    if tolerance is None or not left.size:
        return bool((left == right).all())
    finite = np.abs(left[np.isfinite(left)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(left, right, rtol=tolerance, atol=tolerance * scale, equal_nan=True))
