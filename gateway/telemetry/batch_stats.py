"""What calls of a model's `predict` took, by the rows that they predicted together: Triton's `batch_stats`.

A part of `ModelStats`; `http/v2_extensions.py` shows it. Every reply adds its share of the call that it was part of. A
reply knows its own rows and how many requests were predicted with it, not their rows: where requests of one batch
differ in size, the batch counts for its parts at several sizes, and what all sizes say together is exact.
"""

from __future__ import annotations

from typing import Any

from ...protocol.messages import InferReply

#: Sizes up to this one have a row of their own, larger ones one per power of two that they fit into.
EXACT = 64


class _Row:
    __slots__ = ("calls", "decode", "encode", "predict")

    def __init__(self) -> None:
        self.calls = self.predict = 0.0
        self.decode = self.encode = 0


class BatchStats:
    """At most some hundred sizes, whatever clients send."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}

    def add(self, reply: InferReply) -> None:
        """A request was answered."""
        batch = reply.batch
        size = reply.rows * batch
        if size > EXACT:
            size = 1 << (size - 1).bit_length()
        row = self._rows.get(size)
        if row is None:
            row = self._rows[size] = _Row()
        row.calls += 1 / batch
        row.decode += reply.decode_ns
        row.predict += reply.predict_ns / batch
        row.encode += reply.encode_ns

    def as_json(self) -> list[dict[str, Any]]:
        """A row per size, the smallest first; `compute_…` are `{"count", "ns"}`, the count that of calls."""
        return [
            {
                "batch_size": size,
                **{
                    name: {"count": round(row.calls), "ns": round(nanoseconds)}
                    for name, nanoseconds in (
                        ("compute_input", row.decode),
                        ("compute_infer", row.predict),
                        ("compute_output", row.encode),
                    )
                },
            }
            for size, row in sorted(self._rows.items())
        ]
