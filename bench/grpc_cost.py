"""CPU of the gateway for a small gRPC request, beside what it cannot do without: `python bench/grpc_cost.py`.

    gRPC echo     a bare grpc.aio server under uvloop that answers with the bytes it got
    round trip    what a worker costs the gateway: its CPU for the same over HTTP, less that of an aiohttp echo that
                  answers as quickly, without a router
    ratio         gRPC through the gateway / (gRPC echo + round trip); 0.7 is the promise: the front is its own

Each server is a process of its own and only its own CPU counts. All are asked in turns, so that other work on
the machine hurts them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import aiohttp
import grpc
import psutil
import uvloop

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CONCURRENCY = 16
PROMISE = 0.7
RAW = struct.pack("<4f", 1, 2, 3, 4)
MODEL = """import mlflow

class Identity(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input

mlflow.models.set_model(Identity())
"""

GRPC_ECHO = """
import asyncio, grpc, uvloop
async def main():
    server = grpc.aio.server()
    async def echo(request, context):
        return request
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()
uvloop.run(main())
"""

HTTP_ECHO = """
import asyncio, uvloop
from aiohttp import web
from modelhub.serving.gateway.http.fast_response import FastResponse
async def echo(request):
    return FastResponse("application/octet-stream", None, await request.read())
async def main():
    runner = web.ServerRunner(web.Server(echo, handler_cancellation=True))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
uvloop.run(main())
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=3000, help="per server and round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gateway, url, grpc_url = start_gateway(folder, stack)
        grpc_echo, grpc_place = start_echo(GRPC_ECHO, stack)
        http_echo, http_place = start_echo(HTTP_ECHO, stack)
        servers = {
            "gRPC echo": (grpc_echo, by_grpc, grpc_place),
            "HTTP echo": (http_echo, by_http, f"http://{http_place}"),
            "gateway, HTTP": (gateway, by_http, url),
            "gateway, gRPC": (gateway, by_grpc, grpc_url),
        }
        cost = {name: list[float]() for name in servers}
        for turn in range(options.rounds + 1):
            for name, (process, load, address) in servers.items():
                before = cpu(process)
                uvloop.run(load(address, options.requests))
                if turn:  # the first round warms up
                    cost[name].append((cpu(process) - before) / options.requests * 1e6)
    found = {name: median(values) for name, values in cost.items()}
    found["round trip"] = found["gateway, HTTP"] - found["HTTP echo"]
    for name, microseconds in found.items():
        print(f"{name:14} {microseconds:5.0f} µs of CPU per request")
    ratio = found["gateway, gRPC"] / (found["gRPC echo"] + found["round trip"])
    print(f"ratio {ratio:.2f} (promised: {PROMISE})")
    return 0 if ratio <= PROMISE else 1


def save_identity(folder: Path) -> Path:
    """The folder of a small model that answers with what it gets."""
    save = (
        "import mlflow, numpy as np\n"
        "from mlflow.models import ModelSignature\n"
        "from mlflow.types import Schema, TensorSpec\n"
        "schema = Schema([TensorSpec(np.dtype('float32'), (-1, -1))])\n"
        f"mlflow.pyfunc.save_model({str(folder / 'model')!r}, python_model={str(folder / 'identity.py')!r},"
        " signature=ModelSignature(schema, schema), pip_requirements=['mlflow'])"
    )
    (folder / "identity.py").write_text(MODEL)
    subprocess.run([sys.executable, "-W", "ignore", "-c", save], check=True, stderr=subprocess.DEVNULL)
    return folder / "model"


def start_gateway(folder: Path, stack: ExitStack) -> tuple[psutil.Process, str, str]:
    """A gateway with one small model: its process and its two addresses."""
    model = save_identity(folder)
    config = folder / "models.yaml"
    server = {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "state_dir": str(folder / "state")}
    models = [{"name": "identity", "uri": str(model)}]
    config.write_text(json.dumps({"server": server, "models": models}))
    modelhub = str(Path(sys.executable).with_name("modelhub"))
    running = subprocess.Popen([modelhub, "serve", str(config)], stderr=subprocess.DEVNULL)
    stack.callback(end, running)
    note = folder / "state/gateways" / f"{running.pid}@{os.uname().nodename}.json"
    wait(note.exists, "the gateway does not listen")
    facts = json.loads(note.read_text())
    wait(lambda: ready(f"{facts['url']}/v2/health/ready"), "the model is not ready")
    return psutil.Process(running.pid), facts["url"], facts["grpc_url"]


def start_echo(script: str, stack: ExitStack) -> tuple[psutil.Process, str]:
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    stack.callback(end, running)
    assert running.stdout is not None
    return psutil.Process(running.pid), f"127.0.0.1:{int(running.stdout.readline())}"


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(30)


def wait(condition: Callable[[], bool], what: str, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def by_grpc(address: str, count: int) -> None:
    request = pb.ModelInferRequest(model_name="identity", raw_input_contents=[RAW])
    request.inputs.add(name="input-0", datatype="FP32", shape=[2, 2])
    data = request.SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(METHOD)

        async def one_after_another() -> None:
            for _ in range(count // CONCURRENCY):
                await call(data)

        await asyncio.gather(*(one_after_another() for _ in range(CONCURRENCY)))


async def by_http(url: str, count: int) -> None:
    head = {"name": "input-0", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": len(RAW)}}
    text = json.dumps({"inputs": [head], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

        async def one_after_another() -> None:
            for _ in range(count // CONCURRENCY):
                async with session.post(f"{url}/v2/models/identity/infer", data=text + RAW, headers=headers) as answer:
                    await answer.read()
                    answer.raise_for_status()

        await asyncio.gather(*(one_after_another() for _ in range(CONCURRENCY)))


if __name__ == "__main__":
    sys.exit(main())
