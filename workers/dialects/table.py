"""The table of dialects: for each kind of request, who reads it and answers it.

`infer` looks at each request once: binary tensors and `inputs` are V2, anything else is ModelHub's own form, and
its answers and failures are `{"statusCode", …}`. Every model is given the whole table.
"""

from __future__ import annotations

from typing import Dict

from ...protocol.kinds import GENERATE, GENERATE_STREAM, INFER, INVOCATIONS, LEGACY, STREAM, V1
from ..model.served import Dialect
from .generate import GenerateDialect
from .infer import InferDialect
from .invocations import InvocationsDialect
from .kserve_v1 import V1Dialect
from .legacy import LegacyDialect

_LEGACY = LegacyDialect()
_INFER = InferDialect(_LEGACY)
_GENERATE = GenerateDialect()

DIALECTS: Dict[str, Dialect] = {
    INFER: _INFER,
    STREAM: _INFER,
    LEGACY: _LEGACY,
    INVOCATIONS: InvocationsDialect(),
    V1: V1Dialect(),
    GENERATE: _GENERATE,
    GENERATE_STREAM: _GENERATE,
}
