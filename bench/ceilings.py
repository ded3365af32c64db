"""What the libraries alone can do: servers of the same requests without anything that makes a product.

python bench/ceilings.py echo PORT              aiohttp; parses the tensor and answers it, no model
python bench/ceilings.py pyfunc PORT MODEL      aiohttp, ZeroMQ, and a process that calls pyfunc's predict
python bench/ceilings.py worker ADDRESS MODEL   (that process)
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import orjson
import uvloop
import zmq
from aiohttp import web

HEADER = "Inference-Header-Content-Length"
TYPES = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
NAMES = {dtype: name for name, dtype in TYPES.items()}


def parse(body: bytes, size: str | None) -> np.ndarray:
    document = orjson.loads(memoryview(body)[: int(size)] if size else body)
    tensor = document["inputs"][0]
    dtype = TYPES[tensor["datatype"]]
    if size:
        return np.frombuffer(body, dtype, offset=int(size)).reshape(tensor["shape"])
    return np.array(tensor["data"], dtype).reshape(tensor["shape"])


def answer(model: str, array: np.ndarray, binary: bool) -> web.Response:
    output: dict[str, Any] = {"name": "output-0", "shape": array.shape, "datatype": NAMES[array.dtype]}
    document = {"model_name": model, "outputs": [output]}
    flat = np.ascontiguousarray(array).ravel()
    if not binary:
        output["data"] = flat
        text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        return web.Response(body=text, content_type="application/json")
    output["parameters"] = {"binary_data_size": flat.nbytes}
    head = orjson.dumps(document)
    headers = {HEADER: str(len(head))}
    return web.Response(body=b"".join((head, flat.view("u1").data)), headers=headers, content_type="application/x-v2")


class Worker:
    """The other process, asked over a socket whose descriptor the event loop watches."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.bind(address)
        self._waiting: dict[bytes, asyncio.Future[np.ndarray]] = {}
        self._number = 0
        self._loop.add_reader(self._socket.getsockopt(zmq.FD), self._drain)

    async def predict(self, array: np.ndarray) -> np.ndarray:
        self._number += 1
        key = self._number.to_bytes(8, "little")
        self._waiting[key] = future = self._loop.create_future()
        meta = orjson.dumps([NAMES[array.dtype], array.shape])
        raw = np.ascontiguousarray(array).view("u1").data
        self._socket.send_multipart([key, meta, raw], copy=array.nbytes < 65536)
        self._loop.call_soon(self._drain)
        return await future

    def _drain(self) -> None:
        try:
            while True:
                key, meta, raw = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
                name, shape = orjson.loads(meta.buffer)
                self._waiting.pop(key.bytes).set_result(np.frombuffer(raw.buffer, TYPES[name]).reshape(shape))
        except zmq.Again:
            pass


def work(address: str, model: str) -> None:
    import mlflow.pyfunc

    predict = mlflow.pyfunc.load_model(model, suppress_warnings=True).predict
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.set_hwm(0)
    socket.connect(address)
    while True:
        key, meta, raw = socket.recv_multipart(copy=False)
        name, shape = orjson.loads(meta.buffer)
        found = np.ascontiguousarray(predict(np.frombuffer(raw.buffer, TYPES[name]).reshape(shape)))
        head = orjson.dumps([NAMES[found.dtype], found.shape])
        socket.send_multipart([key, head, found.view("u1").data], copy=found.nbytes < 65536)


def main() -> None:
    kind, place, *rest = sys.argv[1:]
    if kind == "worker":
        work(place, rest[0])
        return
    worker: Worker | None = None

    async def infer(request: web.Request) -> web.Response:
        size = request.headers.get(HEADER)
        array = parse(await request.read(), size)
        if worker is not None:
            array = await worker.predict(array)
        return answer(request.match_info["name"], array, binary=size is not None)

    address = f"ipc://{tempfile.mkdtemp()}/worker"
    if kind == "pyfunc":
        subprocess.Popen([sys.executable, os.path.abspath(__file__), "worker", address, *rest])

    async def start(_: web.Application) -> None:
        nonlocal worker
        if kind == "pyfunc":
            worker = Worker(address)

    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v2/models/{name}/infer", infer)
    app.on_startup.append(start)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=int(place), loop=loop, access_log=None, print=None)


main()
