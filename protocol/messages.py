"""Every message between our processes, grouped by direction.

Gateway and worker speak over ZeroMQ (`codec.py` draws the frames); gateway and fork server, gateway
and fetcher over a Unix socket pair (`framing.py`). Times called `deadline` and `received` are seconds
of the own CLOCK_MONOTONIC, on either side: they travel as differences; durations are in nanoseconds (`_ns`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, List, Optional

from .kinds import INFER

WIRE_VERSION = 2

#: How a worker is started: a copy of the fork server, or a fresh interpreter that it starts.
FORK, SPAWN = "fork", "spawn"


class Message:
    """Base of all messages. A message with `carries_body` travels with one body of raw bytes."""

    type: ClassVar[str]
    carries_body: ClassVar[bool] = False


# ---- gateway -> worker ---------------------------------------------------------------------------


@dataclass
class InferRequest(Message):
    """One client request; the body's bytes are exactly what the client sent (perhaps compressed)."""

    type: ClassVar[str] = "infer"
    carries_body: ClassVar[bool] = True

    id: int  # the gateway's own number, never the client's id
    kind: str = INFER  # one of kinds.py
    deadline: float = 0.0  # 0: none
    received: float = 0.0
    content_type: str = ""
    content_encoding: str = ""
    json_size: Optional[int] = None  # Inference-Header-Content-Length; None: header absent
    query: Dict[str, str] = field(default_factory=dict)
    headers: Dict[str, str] = field(default_factory=dict)  # only for services that read them
    accept: str = ""
    accept_encoding: str = ""
    trace_parent: str = ""
    alone: bool = False  # retried after a worker's death: never in a batch with others
    probe: bool = False  # the model's own input example, before anyone else's: the warm-up

    priority = 5  # never on the wire: 1 (first) to 9, who leaves the gateway's queue before whom


@dataclass
class CancelRequest(Message):
    """Nobody waits for these any more: drop what has not begun, stop streams."""

    type: ClassVar[str] = "cancel"
    ids: List[int]


@dataclass
class TakenRequest(Message):
    """The client of this stream has taken so many bytes more."""

    type: ClassVar[str] = "taken"

    id: int
    size: int


@dataclass
class StatsRequest(Message):
    type: ClassVar[str] = "stats"


@dataclass
class StopRequest(Message):
    """Answer what is held, then exit with code 0."""

    type: ClassVar[str] = "stop"


# ---- worker -> gateway ---------------------------------------------------------------------------


@dataclass
class ReadyReply(Message):
    """The model is loaded. Sent once, first; `metadata` is the V2 model metadata without name and versions."""

    type: ClassVar[str] = "ready"

    pid: int
    python: str
    versions: Dict[str, str] = field(default_factory=dict)  # of the libraries that matter
    metadata: Dict[str, Any] = field(default_factory=dict)  # platform, inputs, outputs
    example: bytes = b""  # a V2 JSON infer request made from the model's input example; b"": none
    example_altered: str = ""  # how it differs from that example: then its failure says nothing of the model
    load_ns: int = 0
    wants_headers: bool = False
    streams: bool = False
    credits: int = 0  # requests that the worker wants to hold at once; 0: the gateway's default


@dataclass
class LoadFailedReply(Message):
    """The model could not be loaded; the worker exits after it. The traceback is for the log only."""

    type: ClassVar[str] = "load_failed"

    message: str
    traceback: str = ""


@dataclass
class InferReply(Message):
    """The answer to one InferRequest. `status` is set by a service's own `statusCode`, or by a failure that the
    worker says in the request's own form (`/invocations`, `:predict`, ModelHub's): then `code` says which."""

    type: ClassVar[str] = "infer_reply"
    carries_body: ClassVar[bool] = True

    id: int
    status: int = 0  # 0: success
    content_type: str = "application/json"
    content_encoding: str = ""
    json_size: Optional[int] = None  # set when the body, before compression, is JSON followed by binary tensors
    decode_ns: int = 0
    wait_ns: int = 0  # in the worker, before its batch began
    predict_ns: int = 0
    encode_ns: int = 0
    rows: int = 1
    batch: int = 1  # requests predicted together with this one
    credits: int = 0  # as in ReadyReply, where the warm-up showed more; 0: as before
    outputs: Optional[List[Any]] = None  # of ReadyReply's metadata, where the warm-up showed others; None: as before
    code: str = ""  # one of `errors.BY_CODE`, of a failure with a body of its own

    queue_ns = 0  # never on the wire: the gateway notes how long the request waited there


@dataclass
class ChunkReply(Message):
    """One event of a stream; the stream ends with an InferReply (empty body) or an ErrorReply."""

    type: ClassVar[str] = "chunk"
    carries_body: ClassVar[bool] = True

    id: int
    json_size: Optional[int] = None  # as in InferReply


@dataclass
class ErrorReply(Message):
    """The request failed; `code` is one of `errors.BY_CODE`."""

    type: ClassVar[str] = "error"

    id: int
    code: str
    message: str
    retry_after: Optional[float] = None


@dataclass
class StatsReply(Message):
    """What the worker counts about itself; `metrics` is the model's own in Prometheus' text format."""

    type: ClassVar[str] = "stats_reply"
    stats: Dict[str, Any] = field(default_factory=dict)
    metrics: bytes = b""
    imported: List[str] = field(default_factory=list)  # modules of its environment, since it was forked or last told


# ---- gateway -> fork server ----------------------------------------------------------------------


@dataclass
class PreloadRequest(Message):
    """Import these modules now, prime these flavours, freeze: later forks are warm."""

    type: ClassVar[str] = "preload"
    modules: List[str] = field(default_factory=list)


@dataclass
class LearnRequest(Message):
    """Import these too, one by one, which workers have imported, and freeze."""

    type: ClassVar[str] = "learn"
    modules: List[str] = field(default_factory=list)


@dataclass
class ForkRequest(Message):
    """Start one worker. The descriptor that becomes its stdout and stderr travels with the message."""

    type: ClassVar[str] = "fork"

    token: str
    spec: Dict[str, Any]  # worker_spec.py: WorkerSpec
    start: str = FORK  # or SPAWN
    preload: List[str] = field(default_factory=list)


@dataclass
class KillRequest(Message):
    """Signal a worker's whole session: the worker and whatever it started."""

    type: ClassVar[str] = "kill"
    token: str
    signal: int


@dataclass
class PingRequest(Message):
    """Are you there?"""

    type: ClassVar[str] = "ping"


# ---- fork server -> gateway ----------------------------------------------------------------------


@dataclass
class StartedReply(Message):
    """The fork server is up and has imported what it was asked to."""

    type: ClassVar[str] = "started"
    pid: int
    python: str
    preload_ns: int = 0
    tasks: int = 1  # of /proc/self/task; more than one makes forking unsafe
    error: str = ""
    identity: str = ""  # of its environment, by what is installed


@dataclass
class ImportingReply(Message):
    """It is about to import this one of a LearnRequest."""

    type: ClassVar[str] = "importing"
    module: str = ""


@dataclass
class LearnedReply(Message):
    """A LearnRequest is done, or ended with the module after which this process must not be forked any more."""

    type: ClassVar[str] = "learned"
    refused: Dict[str, str] = field(default_factory=dict)  # modules that must not be asked for again, and why
    spoilt: str = ""


@dataclass
class ForkedReply(Message):
    type: ClassVar[str] = "forked"
    token: str
    pid: int = 0
    start: str = FORK  # how it was really started
    why: str = ""  # the reason when that differs from what was asked
    error: str = ""  # it could not be started at all
    refused: List[str] = field(default_factory=list)  # modules of a LearnRequest that are the reason of `why`


@dataclass
class PingReply(Message):
    """It takes up what it is told."""

    type: ClassVar[str] = "pong"


@dataclass
class ExitedReply(Message):
    type: ClassVar[str] = "exited"
    token: str
    pid: int
    code: int = 0
    signal: int = 0
    max_rss: int = 0  # bytes


# ---- gateway -> fetcher --------------------------------------------------------------------------


@dataclass
class ResolveRequest(Message):
    """Which version and source does this model URI mean now?"""

    type: ClassVar[str] = "resolve"
    id: int
    uri: str


@dataclass
class MetadataRequest(Message):
    """The text of the model's MLmodel file, nothing else downloaded."""

    type: ClassVar[str] = "metadata"
    id: int
    uri: str


@dataclass
class FetchRequest(Message):
    """Download the model's directory to `destination`, which does not exist yet.

    `uri` is a model URI, or the `source` of a ResolvedReply: then exactly that content or an error.
    """

    type: ClassVar[str] = "fetch"
    id: int
    uri: str
    destination: str


@dataclass
class SearchRequest(Message):
    """Where do the aliases of these registered models point now? One call for all of them."""

    type: ClassVar[str] = "search"
    id: int
    names: List[str]


# ---- fetcher -> gateway --------------------------------------------------------------------------


@dataclass
class ResolvedReply(Message):
    type: ClassVar[str] = "resolved"
    id: int
    version: str = ""  # the registry's version; "" where the URI has none
    source: str = ""  # where the artifacts are; stable for one content


@dataclass
class MetadataReply(Message):
    type: ClassVar[str] = "metadata_reply"
    id: int
    mlmodel: str = ""


@dataclass
class ProgressReply(Message):
    type: ClassVar[str] = "progress"
    id: int
    done: int = 0  # bytes
    total: int = 0  # bytes; 0: unknown


@dataclass
class FetchedReply(Message):
    type: ClassVar[str] = "fetched"
    id: int
    path: str = ""


@dataclass
class SearchedReply(Message):
    """Registered model's name -> {alias: version}; "latest" among them. A name not found is missing."""

    type: ClassVar[str] = "searched"
    id: int
    models: Dict[str, Dict[str, str]] = field(default_factory=dict)


@dataclass
class FetchFailedReply(Message):
    """Any of the fetcher's requests failed."""

    type: ClassVar[str] = "fetch_failed"
    id: int
    code: str
    message: str


BY_TYPE: Dict[str, type] = {cls.type: cls for cls in Message.__subclasses__()}
