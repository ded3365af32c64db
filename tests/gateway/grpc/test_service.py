"""The gRPC port of a real gateway: every method, health, reflection, deadlines, cancellation, ports."""

from __future__ import annotations

import json
import queue
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.doors import OPTIONS, SERVICE
from support.gateway_process import MODELHUB, Gateway
from support.processes import until

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def channel(shared_gateway: Gateway) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(shared_gateway.grpc_url, options=OPTIONS) as opened:
        yield opened


def asking(channel: grpc.Channel, token: str = "") -> Call:
    metadata = (("authorization", f"Bearer {token}"),) if token else None

    def ask(method: str, *, timeout: float = 30, **members: Any) -> Any:
        kind = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[method]
        data = getattr(pb, kind.input_type.name)(**members).SerializeToString()
        answer = channel.unary_unary(f"{SERVICE}/{method}")(data, timeout=timeout, metadata=metadata)
        return getattr(pb, kind.output_type.name).FromString(answer)

    return ask


@pytest.fixture
def ask(channel: grpc.Channel) -> Call:
    return asking(channel)


def code_of(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as failed:
        call()
    return failed.value.code().name, failed.value.details()


# ---- the same answers as over REST ---------------------------------------------------------------


def test_server(ask: Call, shared_gateway: Gateway) -> None:
    assert ask("ServerLive").live
    assert ask("ServerReady").ready
    rest, metadata = shared_gateway.get("/v2").json(), MessageToDict(ask("ServerMetadata"))
    assert set(metadata.pop("extensions")) == {*rest.pop("extensions"), "schedule_policy"}
    assert metadata == rest


@pytest.mark.parametrize("model", ["iris", "pair", "datatypes", "echo"])
def test_metadata(ask: Call, shared_gateway: Gateway, model: str) -> None:
    rest = shared_gateway.get(f"/v2/models/{model}").json()
    answer = ask("ModelMetadata", name=model)
    assert (answer.name, list(answer.versions), answer.platform) == (rest["name"], rest["versions"], rest["platform"])
    for ours, theirs in ((answer.inputs, rest["inputs"]), (answer.outputs, rest["outputs"])):
        assert [(each.name, each.datatype, list(each.shape)) for each in ours] == [
            (each["name"], each["datatype"], each["shape"]) for each in theirs
        ]


@pytest.mark.parametrize("model", ["iris", "datatypes"])
def test_configuration(ask: Call, shared_gateway: Gateway, model: str) -> None:
    rest = shared_gateway.get(f"/v2/models/{model}/config").json()
    config = ask("ModelConfig", name=model, version="1").config
    assert (config.name, config.backend, config.max_batch_size) == (rest["name"], rest["backend"], 0)
    assert [(each.name, pb.DataType.Name(each.data_type), list(each.dims)) for each in config.input] == [
        (each["name"], each["data_type"], each["dims"]) for each in rest["input"]
    ]
    assert [each.name for each in config.output] == [each["name"] for each in rest["output"]]


def test_model_ready(ask: Call) -> None:
    assert ask("ModelReady", name="iris").ready
    assert ask("ModelReady", name="iris", version="1").ready
    assert not ask("ModelReady", name="iriss").ready, "clients wait in a loop for a model to be loaded"
    assert not ask("ModelReady", name="iris", version="2").ready


def test_repository_index(ask: Call, shared_gateway: Gateway) -> None:
    rest = shared_gateway.post("/v2/repository/index").json()
    for ready in (True, False):
        rows = [(row.name, row.version, row.state) for row in ask("RepositoryIndex", ready=ready).models]
        assert rows == [(row["name"], row["version"], row["state"]) for row in rest]


def test_statistics_count_requests_of_both_protocols(ask: Call, shared_gateway: Gateway) -> None:
    def numbers() -> Any:
        [row] = ask("ModelStatistics", name="identity").model_stats
        rest = shared_gateway.get("/v2/models/identity/stats").json()["model_stats"][0]
        assert rest["inference_count"] == row.inference_count
        assert rest["inference_stats"]["fail"]["ns"] == row.inference_stats.fail.ns
        return row

    before = numbers()
    matrix = {"name": "input-0", "shape": [3, 1], "datatype": "FP32"}
    assert shared_gateway.infer("identity", [{**matrix, "data": [1, 2, 3]}]).status == 200
    ask("ModelInfer", model_name="identity", inputs=[matrix], raw_input_contents=[bytes(12)])
    assert code_of(lambda: ask("ModelInfer", model_name="identity", inputs=[matrix]))[0] == "INVALID_ARGUMENT"
    after = numbers()
    assert after.inference_count - before.inference_count == 6
    assert after.execution_count - before.execution_count == 2
    was, now = before.inference_stats, after.inference_stats
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(now, name).count - getattr(was, name).count == 2, name
        assert getattr(now, name).ns >= getattr(was, name).ns + (name == "success"), name
    assert now.fail.count - was.fail.count == 1
    assert now.fail.ns > was.fail.ns
    assert after.last_inference > before.last_inference
    names = {row.name for row in ask("ModelStatistics").model_stats}
    assert names == set(shared_gateway.get("/v2/models").json()["models"])


# ---- health and reflection -----------------------------------------------------------------------


def test_health(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService", "liveness", "iris"):
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == 1, service
    assert code_of(lambda: health.Check(health_pb2.HealthCheckRequest(service="nothing")))[0] == "NOT_FOUND"
    watching = health.Watch(health_pb2.HealthCheckRequest(service="iris"), timeout=20)
    assert next(watching).status == 1
    watching.cancel()
    assert next(health.Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=20)).status == 3


def test_reflection(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert services >= {"inference.GRPCInferenceService", "grpc.health.v1.Health"}
    file = database.FindFileContainingSymbol("inference.GRPCInferenceService")
    assert file.SerializeToString() == pb.DESCRIPTOR.serialized_pb


# ---- a gateway of one's own ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow(models: Path, module_gateway: Callable[..., Gateway]) -> Gateway:
    entries = [{"name": name, "uri": str(models / name)} for name in ("slow_predict", "pair")]
    running = module_gateway({"server": {"grpc_port": 0, "max_body": "1MiB"}, "models": entries})
    running.wait_ready()
    return running


#: How long the model takes for one request.
MILLISECONDS = 1500.0


def slow_request(milliseconds: float = MILLISECONDS) -> dict[str, Any]:
    matrix = {"name": "input-0", "shape": [1, 1], "datatype": "FP32"}
    return {"model_name": "slow_predict", "inputs": [matrix], "raw_input_contents": [struct.pack("<f", milliseconds)]}


def in_flight(gateway: Gateway) -> int:
    [row] = [row for row in gateway.get("/status").json()["models"] if row["name"] == "slow_predict"]
    return int(row["requests"]["in_flight"] + row["requests"]["queued"])


def test_a_deadline_of_the_call(slow: Gateway) -> None:
    with grpc.insecure_channel(slow.grpc_url) as channel:
        assert code_of(lambda: asking(channel)("ModelInfer", timeout=0.05, **slow_request()))[0] == "DEADLINE_EXCEEDED"
        until(lambda: in_flight(slow) == 0, 20, "the worker is free again")


def test_a_deadline_in_the_metadata(slow: Gateway) -> None:
    data = pb.ModelInferRequest(**slow_request()).SerializeToString()
    with grpc.insecure_channel(slow.grpc_url) as channel:
        call = channel.unary_unary(f"{SERVICE}/ModelInfer")
        code, message = code_of(lambda: call(data, timeout=30, metadata=[("x-request-timeout", "50ms")]))
        assert code == "DEADLINE_EXCEEDED"
        assert "slow_predict" in message, "the gateway's own word"
        assert (
            code_of(lambda: call(data, timeout=30, metadata=[("x-request-timeout", "soon")]))[0] == "INVALID_ARGUMENT"
        )
        until(lambda: in_flight(slow) == 0, 20, "the worker is free again")


def test_a_deadline_in_a_parameter(slow: Gateway) -> None:
    """Triton's `timeout`, in microseconds: the worker keeps it, so one that waits is answered when it is its turn."""
    with grpc.insecure_channel(slow.grpc_url) as channel:
        ask = asking(channel)
        timeout = {"timeout": pb.InferParameter(int64_param=1)}
        code, message = code_of(lambda: ask("ModelInfer", parameters=timeout, **slow_request()))
        assert (code, "deadline" in message) == ("DEADLINE_EXCEEDED", True)


def test_priority_goes_first_in_the_queue(slow: Gateway) -> None:
    """By Triton's parameter and by our metadata over gRPC, by a header over REST; the worker holds two requests."""
    order: queue.SimpleQueue[str] = queue.SimpleQueue()
    request = slow_request(60.0)
    until(lambda: in_flight(slow) == 0, 20, "the worker has done what other tests have cancelled")
    with grpc.insecure_channel(slow.grpc_url) as channel, ThreadPoolExecutor() as threads:
        call = channel.unary_unary(f"{SERVICE}/ModelInfer")

        def over_grpc(name: str, priority: int = 0, ms: float = 60.0, **options: Any) -> None:
            message = pb.ModelInferRequest(**slow_request(ms))
            if priority:
                message.parameters["priority"].uint64_param = priority
            future = call.future(message.SerializeToString(), timeout=30, **options)
            future.add_done_callback(lambda done: order.put(f"{name} {done.code().name}"))

        def over_rest(name: str, priority: str) -> None:
            data = [{**request["inputs"][0], "data": [60.0]}]
            headers = {"X-Request-Priority": priority, "Content-Type": "application/json"}
            answer = slow.post("/v2/models/slow_predict/infer", json.dumps({"inputs": data}).encode(), headers)
            order.put(f"{name} {answer.status}")

        expected = ["second 200", "third OK", "fourth OK", "usual OK", "usual too OK", "last 200"]
        waiting: list[Callable[[], Any]] = [
            lambda: over_grpc("usual"),
            lambda: threads.submit(over_rest, "last", "1000"),
            lambda: over_grpc("third", 3),
            lambda: over_grpc("fourth", metadata=[("x-request-priority", "4")]),
            lambda: over_grpc("usual too"),
            lambda: threads.submit(over_rest, "second", "2"),
        ]
        for name in ("held", "held too"):
            over_grpc(name, 9, 400.0)
        until(lambda: in_flight(slow) == 2, 20, "the worker has what it takes")
        for number, begin in enumerate(waiting, 3):
            begin()
            until(lambda number=number: in_flight(slow) == number, 20, "it waits")  # type: ignore[misc]
        found = [order.get(timeout=30) for _ in range(8)]
    assert set(found[:2]) == {"held OK", "held too OK"}
    assert found[2:] == expected


@pytest.mark.parametrize("level", ["high", "-1", "1.5", "\u0661", ""])
def test_priorities_that_are_none(slow: Gateway, level: str) -> None:
    request = {**slow_request(1.0)["inputs"][0], "data": [1.0]}
    body = json.dumps({"inputs": [request]}).encode()
    headers = {"X-Request-Priority": level.encode("unicode_escape").decode(), "Content-Type": "application/json"}
    answer = slow.post("/v2/models/slow_predict/infer", body, headers)
    assert (answer.status, "x-request-priority" in answer.json()["error"]) == (400, True)


def test_cancelled_calls_leave_the_queue(slow: Gateway) -> None:
    data = pb.ModelInferRequest(**slow_request()).SerializeToString()
    with grpc.insecure_channel(slow.grpc_url) as channel:
        calls = [channel.unary_unary(f"{SERVICE}/ModelInfer").future(data, timeout=30) for _ in range(10)]
        until(lambda: in_flight(slow) == 10, 20, "all have arrived")
        for call in calls:
            call.cancel()
        until(lambda: in_flight(slow) <= 2, 5, "those that no worker holds are gone")


def test_the_size_of_messages_is_the_configured_one(slow: Gateway) -> None:
    inputs = [{"name": name, "shape": [0], "datatype": "FP32"} for name in ("left", "right")]
    with grpc.insecure_channel(slow.grpc_url, options=OPTIONS) as channel:
        code, message = code_of(
            lambda: asking(channel)(
                "ModelInfer", model_name="pair", inputs=inputs, raw_input_contents=[bytes(1 << 20), b""]
            )
        )
    assert (code, "larger than max" in message) == ("RESOURCE_EXHAUSTED", True)


def test_load_and_unload(slow: Gateway) -> None:
    with grpc.insecure_channel(slow.grpc_url) as channel:
        assert code_of(lambda: asking(channel)("RepositoryModelUnload", model_name="pair"))[0] == "UNAUTHENTICATED"
        ask = asking(channel, slow.token)
        health = health_pb2_grpc.HealthStub(channel)
        ask("RepositoryModelUnload", model_name="pair")
        assert not ask("ModelReady", name="pair").ready
        assert health.Check(health_pb2.HealthCheckRequest(service="pair")).status == 2
        request = {"name": "left", "shape": [0], "datatype": "FP32"}
        assert code_of(lambda: ask("ModelInfer", model_name="pair", inputs=[request]))[0] == "UNAVAILABLE"
        ask("RepositoryModelLoad", model_name="pair")
        assert ask("ModelReady", name="pair").ready
        assert code_of(lambda: ask("RepositoryModelLoad", model_name="nothing"))[0] == "NOT_FOUND"


def test_without_control_here(models: Path, gateway: Callable[..., Gateway]) -> None:
    running = gateway(
        {"server": {"grpc_port": 0, "admin": "off"}, "models": [{"name": "pair", "uri": str(models / "pair")}]}
    )
    with grpc.insecure_channel(running.grpc_url) as channel:
        ask = asking(channel)
        assert code_of(lambda: ask("RepositoryModelLoad", model_name="pair"))[0] == "UNIMPLEMENTED"
        assert "model_repository" not in ask("ServerMetadata").extensions
        assert {*running.get("/v2").json()["extensions"], "schedule_policy"} == set(ask("ServerMetadata").extensions)


def test_a_port_that_is_taken(slow: Gateway, tmp_path: Path) -> None:
    """Not shared silently, as gRPC does unless told otherwise."""
    port = slow.grpc_url.rpartition(":")[2]
    arguments = ["--server.host=127.0.0.1", "--server.port=0", f"--server.grpc_port={port}"]
    config = tmp_path / "models.yaml"
    config.write_text(json.dumps({"models": [{"name": "x", "uri": "./x"}]}))
    done = subprocess.run(
        [str(MODELHUB), "serve", str(config), *arguments, f"--server.state_dir={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode not in (0, None)
    assert f"cannot listen on 127.0.0.1:{port} for gRPC" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_grpc_is_not_imported_without_a_port() -> None:
    script = (
        "import sys, modelhub.serving.gateway.server, modelhub.serving.gateway.cli.main\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('grpc', 'google', 'flask')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
