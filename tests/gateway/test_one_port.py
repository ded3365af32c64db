"""HTTP and gRPC on one port: a connection that begins as HTTP/2 does is gRPC's, all others are HTTP's."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support import http2_peer as http2
from support.doors import SERVICE
from support.gateway_process import Gateway
from support.http2_peer import DATA, END_STREAM, HEADERS, PREFACE, RST_STREAM, frame, peer, request

HTTP_1_1_REQUIRED = 0xD


@pytest.fixture(scope="module")
def one_port(models: Path, module_gateway: Callable[..., Gateway]) -> Gateway:
    running = module_gateway({"models": [{"name": "identity", "uri": str(models / "identity")}]})
    running.wait_ready()
    return running


def infer(address: str) -> bytes:
    message = pb.ModelInferRequest(model_name="identity", raw_input_contents=[struct.pack("<4f", 1, 2, 3, 4)])
    message.inputs.add(name="input-0", datatype="FP32", shape=[2, 2])
    with grpc.insecure_channel(address) as channel:
        answer = channel.unary_unary(f"{SERVICE}/ModelInfer")(message.SerializeToString(), timeout=30)
    return bytes(pb.ModelInferResponse.FromString(answer).raw_output_contents[0])


def test_both_on_it(one_port: Gateway) -> None:
    address = one_port.url.removeprefix("http://")
    assert one_port.grpc_url == address
    assert infer(address) == struct.pack("<4f", 1, 2, 3, 4)
    data = {"name": "input-0", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}
    assert one_port.infer("identity", [data]).status == 200


def test_operators_show_the_same_token(one_port: Gateway) -> None:
    message = pb.RepositoryModelLoadRequest(model_name="identity").SerializeToString()
    with grpc.insecure_channel(one_port.grpc_url) as channel:
        load = channel.unary_unary(f"{SERVICE}/RepositoryModelLoad")
        with pytest.raises(grpc.RpcError) as refused:
            load(message, timeout=30)
        assert refused.value.code().name == "UNAUTHENTICATED"
        load(message, timeout=60, metadata=[("authorization", f"Bearer {one_port.token}")])


@pytest.mark.parametrize("at", range(1, len(PREFACE) + 10))
async def test_the_beginning_may_come_in_pieces(one_port: Gateway, at: int) -> None:
    sent = PREFACE + http2.settings() + request(1, f"{SERVICE}/ServerLive")
    sent += frame(DATA, END_STREAM, 1, http2.message(b""))
    async with peer(one_port.grpc_url, sent[:at]) as client:
        await asyncio.sleep(0.005)  # any packet may come alone; where they come together, nothing is tried
        client.send(sent[at:])
        assert b"\x08\x01" in (await client.until(DATA, 1)).payload


@pytest.mark.parametrize("at", [1, 2, 3, 30])
def test_a_request_of_http_1_may_too(one_port: Gateway, at: int) -> None:
    sent = b"POST /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    host, port = one_port.grpc_url.split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(sent[:at])
        connection.sendall(sent[at:])
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"not POST" in answer


async def test_other_requests_over_http_2_are_told_to_come_over_http_1(one_port: Gateway) -> None:
    fields = [each for each in http2.request_fields("/v2/models/identity/infer") if each[0] != "content-type"]
    block = http2.packed([*fields, ("content-type", "application/json")])
    async with peer(one_port.grpc_url) as client:
        client.send(frame(HEADERS, http2.END_HEADERS, 1, block), frame(DATA, END_STREAM, 1, b"{}"))
        await client.until(HEADERS, 1)
        said = await client.until(DATA, 1)
        assert "HTTP/1.1" in json.loads(said.payload)["error"]
        block = http2.packed(http2.request_fields("/v2/health/live", method="GET"))
        client.send(frame(HEADERS, http2.END_HEADERS | END_STREAM, 3, block))
        assert (await client.until(RST_STREAM, 3)).code == HTTP_1_1_REQUIRED
    assert one_port.get("/v2/health/live").status == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl_with_prior_knowledge(one_port: Gateway, tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_bytes(http2.message(b""))
    out = tmp_path / "out"
    command = ["curl", "-sS", "--http2-prior-knowledge", "-o", str(out), "-D", "-", "--data-binary", f"@{message}"]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"{one_port.url}{SERVICE}/ServerLive"
    done = subprocess.run([*command, *headers, url], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("HTTP/2 200")
    assert "grpc-status: 0" in done.stdout
    assert out.read_bytes() == http2.message(b"\x08\x01")
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("HTTP/2 415")
    assert "HTTP/1.1" in out.read_text()
