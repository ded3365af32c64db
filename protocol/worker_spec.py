"""What a worker is told when it is started: plain data, sent in a ForkRequest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from .limits import MAX_ANSWER, MAX_INFLATED


@dataclass
class WorkerSpec:
    """One worker process: one model version, one replica, one generation."""

    name: str
    version: str
    replica: int
    generation: int
    token: str  # its ZeroMQ identity, hex; made anew for every start
    endpoint: str  # the gateway's ROUTER, ipc://…
    model_path: str  # a local MLflow model directory; "" for a service that loads by itself
    journal: str  # path of the journal page
    cwd: str  # its own working directory
    env: Dict[str, str] = field(default_factory=dict)  # its whole environment
    threads: int = 1  # of numeric libraries; 0: all CPUs
    concurrency: int = 1
    max_inflated: int = MAX_INFLATED  # bytes a compressed body may become
    max_answer: int = MAX_ANSWER  # bytes an answer may have
    model_type: str = "pyfunc"
    service: str = ""  # "package.module:Class"; "": the default service
    service_object: str = ""  # the name of a service in the script whose process forks this worker
    script: Optional[Dict[str, Any]] = None  # workers/services/handover.py: how a fresh interpreter gets that service
    pythonpath: List[str] = field(default_factory=list)
    image: Optional[Dict[str, Any]] = None
    pdf: Optional[Dict[str, Any]] = None
    batching: Optional[Dict[str, Any]] = None

    @classmethod
    def from_wire(cls, data: Dict[str, Any]) -> WorkerSpec:
        return cls(**data)

    def to_wire(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)
