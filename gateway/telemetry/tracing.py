"""Traces with OpenTelemetry, for who installs the extra `tracing` and sets OTEL_EXPORTER_OTLP_ENDPOINT.

A request becomes one span (its parent: the client's W3C `traceparent`) with children for queue and worker, and the
worker's own phases below that. They are made when the request has ended, from the times that it has taken anyway;
nothing is measured twice, and without a tracer a request pays for one comparison.
"""

from __future__ import annotations

import logging
import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ... import __version__
from ...protocol.messages import InferReply

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

log = logging.getLogger("modelhub.tracing")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

#: None: nobody wants traces.
tracer: Tracer | None = None
_provider: TracerProvider | None = None
#: What of OpenTelemetry's API a request needs: imported in `use`, not in the middle of a request.
_api = SimpleNamespace()


def start() -> None:
    """Begin to export if the environment names a receiver; the standard OTEL_* variables hold (sampler, headers, …)."""
    if not any(os.environ.get(name) for name in _ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED", "") == "true":
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no traces are sent: %s; install the extra: pip install 'modelhub-serving[tracing]'", error)
        return
    attributes = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "modelhub-serving"}
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(provider)
    log.info("traces are sent to %s", next(os.environ[name] for name in reversed(_ENDPOINTS) if os.environ.get(name)))


def use(provider: TracerProvider) -> None:
    """Have this provider make the spans from now on, until `stop`."""
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    global tracer, _provider, _api
    _provider = provider
    _api = SimpleNamespace(
        propagator=TraceContextTextMapPropagator(),
        kind=SpanKind.SERVER,
        inside=set_span_in_context,
        failed=lambda code: Status(StatusCode.ERROR, code),
    )
    tracer = provider.get_tracer("modelhub.serving", __version__)


def stop() -> None:
    """Send what is left. Blocks for the exporter's timeout at most; call it in a thread."""
    global tracer, _provider
    provider, tracer, _provider = _provider, None, None
    if provider is not None:
        provider.shutdown()


class Subject(Protocol):
    """The model version that was asked."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def environment(self) -> str: ...


class Ended(NamedTuple):
    """How a request ended."""

    route: str
    #: Of HTTP, or the name of a gRPC code.
    status: int | str
    #: Nanoseconds since it came.
    elapsed: int
    reply: InferReply | None = None
    #: What it ended with, and whether that was not the client's mistake.
    error: str = ""
    ours: bool = False


def record(version: Subject, ended: Ended, parent: str, request_id: str | None) -> None:
    """The spans of one request that ends now. `parent`: its traceparent, or ""."""
    if tracer is None:
        return
    api = _api
    end = time.time_ns()
    began = end - ended.elapsed
    context = api.propagator.extract({"traceparent": parent} if parent else {})
    name, attributes = f"{ended.route} {version.name}", _attributes(version, ended, request_id)
    span = tracer.start_span(name, context, kind=api.kind, attributes=attributes, start_time=began)
    if ended.ours:
        span.set_status(api.failed(ended.error))
    if ended.reply is not None and span.is_recording():
        _record_phases(tracer, api.inside, span, ended.reply, began, end)
    span.end(end)


def _attributes(version: Subject, ended: Ended, request_id: str | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "modelhub.model": version.name,
        "modelhub.version": version.version,
        "modelhub.route": ended.route,
        "modelhub.environment": version.environment,
    }
    if isinstance(ended.status, int):
        attributes["http.response.status_code"] = ended.status
    else:
        attributes |= {"rpc.system.name": "grpc", "rpc.response.status_code": ended.status}
    if request_id is not None:
        attributes["modelhub.request_id"] = request_id
    if ended.reply is not None:
        attributes |= {"modelhub.rows": ended.reply.rows, "modelhub.batch": ended.reply.batch}
    return attributes


def _record_phases(tracer: Tracer, inside: Any, span: Any, reply: InferReply, began: int, end: int) -> None:
    """The queue from the arrival on; the worker, with its own phases inside it, so that half of what is left over, the
    transfer, lies on either side of it. Times in unix nanoseconds."""
    queued = began + reply.queue_ns
    parts = (
        ("batch wait", reply.wait_ns),
        ("decode", reply.decode_ns),
        ("predict", reply.predict_ns),
        ("encode", reply.encode_ns),
    )
    worked = sum(nanoseconds for _, nanoseconds in parts)
    at = queued + max((end - queued - worked) // 2, 0)
    tracer.start_span("queue", inside(span), start_time=began).end(queued)
    worker = tracer.start_span("worker", inside(span), start_time=at)
    for name, nanoseconds in parts:
        if nanoseconds:
            tracer.start_span(name, inside(worker), start_time=at).end(at + nanoseconds)
        at += nanoseconds
    worker.end(at)
