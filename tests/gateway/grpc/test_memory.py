"""What large messages cost a real gateway: one that is taken is held once, one that has no room never comes."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.code_models import save_code_model
from support.doors import OPTIONS, SERVICE
from support.gateway_process import Gateway
from support.quiet_mlflow import import_mlflow, quiet

SIZE = 120 << 20


def most_ever(gateway: Gateway) -> int:
    """Bytes of memory that its process has had at its most."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10


COUNTS = """
class Own(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return np.array([model_input.size])
"""


def test_five_large_calls_where_one_has_room(tmp_path: Path, gateway: Callable[..., Gateway]) -> None:
    import_mlflow()
    with quiet():
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec
    signature = ModelSignature(Schema([TensorSpec(np.dtype("uint8"), (-1,))]))
    model = save_code_model(tmp_path / "counts", f"import mlflow\nimport numpy as np\n{COUNTS}", signature=signature)
    server = {"grpc_port": 0, "max_body": "128MiB", "max_buffered": "200MiB"}
    running = gateway({"server": server, "models": [{"name": "counts", "uri": str(model)}]})
    running.wait_ready()
    request = pb.ModelInferRequest(model_name="counts", raw_input_contents=[bytes(SIZE)])
    request.inputs.add(name="input-0", datatype="UINT8", shape=[SIZE])
    data = request.SerializeToString()

    def call(_: int) -> str:
        with grpc.insecure_channel(running.grpc_url, options=OPTIONS) as channel:
            try:
                channel.unary_unary(f"{SERVICE}/ModelInfer")(data, timeout=60)
            except grpc.RpcError as error:
                return str(error.code().name)
        return "OK"

    with ThreadPoolExecutor(5) as threads:
        found = sorted(threads.map(call, range(5)))
    assert (found[0], found[-1]) == ("OK", "RESOURCE_EXHAUSTED")
    assert most_ever(running) < 300 << 20, most_ever(running) >> 20
