"""The kinds of request: the `kind` of an InferRequest, and the `route` of metrics, log lines and spans.

A kind says by which route a request came, so how a worker reads its body and in which form it answers.
"""

from __future__ import annotations

INFER = "infer"  # /v2/models/{m}/infer, and gRPC's ModelInfer
STREAM = "stream"  # /v2/models/{m}/infer_stream, and gRPC's ModelStreamInfer
GENERATE = "generate"
GENERATE_STREAM = "generate_stream"
INVOCATIONS = "invocations"  # MLflow's scoring server
V1 = "v1_predict"  # KServe V1
#: Never sent: what a worker makes of an INFER or a STREAM that is of ModelHub's own form.
LEGACY = "legacy"

#: The paths of other servers' clients, which a worker names to who has taken the wrong one.
PATHS = {
    INVOCATIONS: "/models/{model}/invocations",
    V1: "/v1/models/{model}:predict",
    GENERATE: "/v2/models/{model}/generate",
}

#: Answered piece by piece.
STREAMS = (STREAM, GENERATE_STREAM)
