"""Traces of real requests, received by an OTLP receiver as any backend would."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from observed import ask, tensor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from support.gateway_process import Gateway

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Receiver:
    """Listens for OTLP over HTTP; `spans` are all that came, with their service's name."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.spans += [(names["service.name"], span) for scope in resource.scope_spans for span in scope.spans]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def named(self, name: str) -> list[Span]:
        return [span for _, span in self.spans if span.name == name]

    def check_phases(self, request: Span) -> None:
        """Its phases lie inside it, one after the other, and those of the worker inside the worker's span."""
        ours, places, parents = {request.span_id: request.name}, {}, {}
        for _, span in sorted(self.spans, key=lambda each: (each[1].start_time_unix_nano, each[1].name != "worker")):
            if span.span_id in ours or span.parent_span_id in ours:
                ours[span.span_id] = span.name
                parents[span.name] = ours.get(span.parent_span_id)
                places[span.name] = (span.start_time_unix_nano, span.end_time_unix_nano)
        inner = parents.keys() - {request.name, "queue", "worker"}
        assert parents["queue"] == parents["worker"] == request.name
        assert {parents[name] for name in inner} == {"worker"}
        begin, end = places.pop(request.name)
        worker = places.pop("worker")
        steps = sorted(places.items(), key=lambda each: each[1])
        assert [name for name, _ in steps if name != "batch wait"] == ["queue", "decode", "predict", "encode"]
        assert begin == places["queue"][0]
        assert places["queue"][1] <= worker[0] <= worker[1] <= end
        for (_, before), (_, after) in pairwise(steps):
            assert before[0] <= before[1] <= after[0] <= after[1]
        inside = [place for name, place in steps if name != "queue"]
        assert (inside[0][0], inside[-1][1]) == worker


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


def attributes(span: Span) -> dict[str, object]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_is_a_trace(gateway: Callable[..., Gateway], models: Path, receiver: Receiver) -> None:
    entries = [{"name": name, "uri": str(models / name)} for name in ("identity", "raises_in_predict")]
    entries.append({"name": "batched", "uri": str(models / "slow_predict"), "batching": {"enabled": True}})
    traced = gateway({"models": entries}, env={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url})
    traced.wait_ready()
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "abc-1"}
    assert traced.post("/v2/models/identity/infer", tensor([[1.0, 2.0]]), headers).status == 200
    unsampled = {"traceparent": f"00-{TRACE[::-1]}-{PARENT}-00"}
    assert traced.post("/v2/models/identity/infer", tensor([[1.0, 2.0]]), unsampled).status == 200
    assert ask(traced, "raises_in_predict") == 500
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: ask(traced, "batched", tensor([[50.0, 0.0]])), range(24))) == {200}
    traced.stop()

    (span,) = receiver.named("infer identity")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.kind == Span.SPAN_KIND_SERVER
    known = attributes(span)
    assert (known["modelhub.model"], known["modelhub.version"], known["modelhub.request_id"]) == (
        "identity",
        "1",
        "abc-1",
    )
    assert known["http.response.status_code"] == 200
    receiver.check_phases(span)
    requests = receiver.named("infer batched")
    assert len(requests) == 24
    assert max(int(str(attributes(each)["modelhub.batch"])) for each in requests) > 2
    for each in requests:
        receiver.check_phases(each)

    (failed,) = receiver.named("infer raises_in_predict")
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert not failed.parent_span_id
    assert {service for service, _ in receiver.spans} == {"modelhub-serving"}


def test_without_an_endpoint_no_traces_are_sent(gateway: Callable[..., Gateway], models: Path) -> None:
    plain = gateway({"models": [{"name": "identity", "uri": str(models / "identity")}]})
    plain.wait_ready()
    assert ask(plain, "identity") == 200
    assert "traces are sent" not in plain.log()
