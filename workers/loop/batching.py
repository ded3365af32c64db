"""Which requests are predicted together.

While a prediction runs, requests wait in the worker; those of one `Call.group_key` are then stacked along
the first axis and predicted in one call. `Batching` is the switch of one model:

    enabled: true    always
    enabled: false   never, and neither with max_size 1
    neither          where it is safe: every input's first dimension is -1, AND the flavour is row-wise by
                     construction (`row_wise.py`) or the model's own input example has shown it: its distinct
                     rows, stacked in both orders, give what each gives by itself (`prove`, at the warm-up)

The example also shows where the rows of a result are (`stacking.py`), and whether a flavour that is row-wise by
construction is so; where there is no example, the first batch does (`part`). A batch that comes back with
another number of rows switches it off for good; an exception in a batch (one client's bad row looks the
same), or a result of other types than before, for a while. Its requests are then run one by one by the loop.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from ...protocol.errors import InvalidRequest, ServingError
from ...protocol.journal import SLOTS
from ...protocol.kinds import GENERATE, STREAM
from ...protocol.limits import BATCH_ROWS
from ..convert.outputs import to_outputs
from ..model.call import Call
from ..model.served import Served
from .row_wise import is_row_wise
from .stacking import Layouts, Unlike, split, stack

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

#: Kinds of requests whose result is not one row per row.
_NEVER = frozenset({STREAM, GENERATE})
#: Seconds without batches after an exception in one; doubles each time up to the second figure.
_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
#: Rows of the input example that are looked at; of a model that is taken to be row-wise.
_PROOF_ROWS, _ROWS_OF_KNOWN = 4, 2
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
        self.unproven = True  # the input example has not been looked at
        self._layouts = Layouts()
        self._on = False
        self._pauses = 0
        self._until = 0.0
        wanted = self._wanted = known.get("enabled")
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
        return not call.alone and 0 < call.rows < self.max_size and call.kind not in _NEVER and _has_rows(call)

    def prove(self, model: Served, call: Call) -> None:
        """Switch it on, or off, by what the input example, decoded, shows. Calls `predict` a few times."""
        self.unproven = False
        if not (self.candidate or self._on):
            return
        rows = _distinct_rows(call)
        if not self.candidate:
            rows = (rows * 2)[:_ROWS_OF_KNOWN]
        try:
            why_not = _difference(model, rows, self._layouts, compared=not self._wanted)
        except ServingError as error:
            why_not = f"the input example's rows fail by themselves or stacked: {error.message[:200]}"
        except LookupError:
            why_not = "its result for stacked rows does not have each of them in its place"
        except Exception as error:
            why_not = f"the result for the input example cannot be taken apart: {type(error).__name__}: {error}"
        if not self.candidate:
            if why_not and rows and not self._wanted:
                self._on, self.reason = False, why_not
            return
        self.candidate = False
        if why_not:
            self.reason = why_not
        else:
            self._on, self.reason = True, "the input example's rows give the same stacked and by themselves"

    def saw(self, call: Call, result: Any) -> None:
        """The result of a request that was run by itself: what it looks like tells where a batch's rows are."""
        if self._on and not self._layouts and call.kind not in _NEVER and _has_rows(call):
            try:
                self._layouts.saw(call.form(), call.rows, result)
            except Exception:  # not to be found in one place, or of a kind that cannot be looked at
                self.wrong_rows(call.rows)

    def part(self, form: Any, rows: Sequence[int], result: Any, alone: Callable[[], Any]) -> Optional[List[Any]]:
        """A batch's result as those of its requests; None, and it is switched off, where that cannot be.

        `form`: of its requests; `alone`: gives the result of the first by itself. Raises what that raises, and Unlike.
        """
        total = sum(rows)
        try:
            if self._layouts.needs(form, total):
                self._layouts.saw(form, rows[0], alone())
            layout = self._layouts.saw(form, total, result)
        except LookupError:
            layout = None
        parts = None if layout is None else split(result, rows, layout)
        if parts is None:
            self.wrong_rows(total)
        return parts

    def failed(self, requests: int, error: Exception) -> None:
        """An exception in a batch. What is the client's mistake changes nothing."""
        if isinstance(error, InvalidRequest):
            return
        pause = min(_PAUSE * 2**self._pauses, _LONGEST_PAUSE)
        self._pauses += 1
        self._until = time.monotonic() + pause
        raised = f"raised {type(error.__cause__ or error).__name__}"
        why = f"gave {error}" if isinstance(error, Unlike) else raised
        self.reason = f"off for {pause:g} s: a batch of {requests} requests {why}"
        self._say()

    def wrong_rows(self, rows: int) -> None:
        """The result of a batch could not be taken apart."""
        self._on = False
        self.reason = f"off: for a batch of {rows} rows the model gave back another number of rows"
        self._say()

    def _say(self) -> None:
        print(f"batching is {self.reason}; requests are run one by one", file=sys.stderr, flush=True)


def _has_rows(call: Call) -> bool:
    return bool(call.inputs) and all(array.ndim and len(array) == call.rows for array in call.inputs.values())


def _first_dimension_is_open(model: Served) -> bool:
    inputs = model.signature.inputs
    return bool(inputs) and all(each.shape[:1] == (-1,) for each in inputs)


# ---- the proof -----------------------------------------------------------------------------------


def _difference(model: Served, rows: List[Call], layouts: Layouts, *, compared: bool) -> str:
    """Why stacking these rows is not the same as predicting each; "" if it is.

    Raises ServingError, and LookupError where the rows have no place of their own in the result.
    """
    if len(rows) < 2:
        return "the model has no input example of two distinct rows"
    form = rows[0].form()
    alone = []
    for row in rows if compared else rows[:1]:
        result = model.predict(stack([row]))
        layouts.saw(form, 1, result)
        alone.append(_outputs(model, result))
    for order in (range(len(rows)), range(len(rows) - 1, -1, -1)):
        result = model.predict(stack([rows[at] for at in order]))
        layout = layouts.saw(form, len(rows), result)
        if not compared:
            return ""
        parts = None if layout is None else split(result, [1] * len(rows), layout)
        if parts is None:
            return "the input example's rows, stacked, give another number of rows"
        for at, part in zip(order, parts):
            if not _same(alone[at], _outputs(model, part)):
                return "the input example's rows give something else when they are stacked"
    return ""


def _distinct_rows(call: Call) -> List[Call]:
    if not _has_rows(call):
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
