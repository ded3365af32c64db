"""gRPC behind a real nginx (`grpc_pass`) and a real HAProxy, both before the one port of a gateway."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.doors import OPTIONS, SERVICE
from support.gateway_process import Gateway
from support.processes import guarded, until

PLACES = "/usr/sbin:/usr/bin:/usr/local/sbin"
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e; client_max_body_size 0;
  server {{ listen 127.0.0.1:{port} http2; location / {{ grpc_pass grpc://{gateway}; }} }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
frontend front
    bind 127.0.0.1:{port} proto h2
    default_backend gateway
backend gateway
    server one {gateway} proto h2
"""
KINDS = {"nginx": (NGINX, ["-p", "{folder}", "-c"]), "haproxy": (HAPROXY, ["-db", "-f"])}


@contextmanager
def proxy(kind: str, gateway: str, folder: Path) -> Iterator[str]:
    """Its address, once it listens."""
    binary = shutil.which(kind, path=PLACES)
    if binary is None:
        pytest.skip(f"{kind} is not installed: apt-get install {kind}")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text, arguments = KINDS[kind]
    (folder / "conf").write_text(text.format(folder=folder, port=port, gateway=gateway))
    command = [binary, *[each.format(folder=folder) for each in arguments], str(folder / "conf")]
    process = subprocess.Popen(guarded(command), stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port), 20)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def message(count: int, model: str = "identity") -> bytes:
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[struct.pack("<f", 7) * count])
    request.inputs.add(name="input-0", datatype="FP32", shape=[count, 1])
    return request.SerializeToString()


@pytest.mark.parametrize("kind", KINDS)
def test_calls_streams_errors_and_large_messages(
    kind: str, models: Path, gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    running = gateway({"models": [{"name": "identity", "uri": str(models / "identity")}]})
    running.wait_ready()
    with (
        proxy(kind, running.url.removeprefix("http://"), tmp_path) as address,
        grpc.insecure_channel(address, options=OPTIONS) as channel,
    ):
        infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
        for count in (1, 10, 1_000_000):
            found = pb.ModelInferResponse.FromString(infer(message(count), timeout=60))
            assert found.raw_output_contents[0] == struct.pack("<f", 7) * count
        with pytest.raises(grpc.RpcError) as failed:
            infer(message(1, "idenity"), timeout=30)
        assert (failed.value.code().name, "did you mean" in failed.value.details()) == ("NOT_FOUND", True)
        stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
        answers = list(stream(iter([message(1), message(1, "idenity"), message(100_000)]), timeout=60))
        parsed = [pb.ModelStreamInferResponse.FromString(each) for each in answers]
        assert [bool(each.error_message) for each in parsed] == [False, True, False]
