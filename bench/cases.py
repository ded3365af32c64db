"""What is sent: which model, which tensor, JSON or binary; and what counts as a right answer."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Case:
    """One kind of request and the numbers of connections to try it with."""

    name: str
    model: str
    shape: tuple[int, ...]
    connections: tuple[int, ...]
    binary: bool = False
    batching: bool = True

    @property
    def count(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Request:
    """An HTTP request that is sent again and again."""

    url: str
    headers: dict[str, str]
    body: bytes


CASES = {
    case.name: case
    for case in (
        Case("identity", "identity", (1, 4), (1, 32, 128)),
        Case("iris", "iris", (1, 4), (1, 32, 128)),
        Case("batchy", "batchy", (1, 4), (64,)),
        Case("batchy-off", "batchy", (1, 4), (64,), batching=False),
        Case("0.6MB-json", "identity", (1, 150528), (1,)),
        Case("0.6MB-binary", "identity", (1, 150528), (1,), binary=True),
        Case("4MB-json", "identity", (1, 1048576), (1,)),
        Case("4MB-binary", "identity", (1, 1048576), (1,), binary=True),
    )
}


@cache
def values(count: int) -> tuple[float, ...]:
    """So many float32 values with seven digits, always the same."""
    if count == 4:
        return (5.1, 3.5, 1.4, 0.2)
    numbers = random.Random(7)
    return tuple(float(f"{numbers.random():.7g}") for _ in range(count))


@cache
def request(case: Case, base: str) -> Request:
    """The case as a V2 infer request to the server at `base`."""
    url = f"{base}/v2/models/{case.model}/infer"
    tensor: dict[str, object] = {"name": "input-0", "shape": list(case.shape), "datatype": "FP32"}
    numbers = values(case.count)
    if not case.binary:
        tensor["data"] = list(numbers)
        return Request(url, {"Content-Type": "application/json"}, json.dumps({"inputs": [tensor]}).encode())
    raw = struct.pack(f"<{len(numbers)}f", *numbers)
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [tensor]}).encode()
    kind = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(url, kind, head + raw)


def check(case: Case, headers: dict[str, str], body: bytes) -> str:
    """What is wrong with an answer; "" if it is right. Header names are lower case."""
    size = headers.get("inference-header-content-length")
    document = json.loads(body[: int(size)] if size else body)
    output = document["outputs"][0]
    raw = body[int(size or 0) :]
    found = list(struct.unpack(f"<{case.count}f", raw)) if case.binary else output["data"]
    if case.model == "iris":
        return "" if found == [0] else f"iris answers {found}"
    if output["shape"] != list(case.shape) or len(found) != case.count:
        return f"the answer's shape is {output['shape']}"
    pairs = zip(found, values(case.count), strict=True)
    return "" if all(abs(a - b) < 1e-6 * max(1, abs(b)) for a, b in pairs) else "other values came back"
