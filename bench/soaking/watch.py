"""Who asks the models, and what is said of them: a program of its own, so that it sees what any client would see.

The prober asks each model for an answer, once a second, whatever became of the last request. The watcher asks, once a
second, everything that says ready: each model's `/ready` over HTTP and gRPC, the repository index, `/metrics`,
`/status` and the server's own readiness. The rule: nothing says ready of a model that was asked and has answered
nothing for SILENCE seconds, nor does in the second after that: its first answer may be under way. What is said later
than SAID after the question counts as not said: a probe of Kubernetes waits no longer, and a machine that stands still
says nothing of a model.

One line of JSON on stdin begins it, the end of stdin ends it; each second it says on stdout:
{"probes": {model: count}, "unanswered": {model: count}, "looks", "late", "violations": [text], "errors": [text],
"lag": seconds that this program was late at most}.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

import grpc
import grpc.aio
import uvloop
from clients import Client, Place, by_name

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb

SILENCE, SAID = 5.0, 1.0
#: Seconds that a probe waits; others are sent meanwhile.
PROBE = 4.0
READY_METRIC = re.compile(r'^modelhub_model_ready\{model="([^"]+)",version="([^"]*)"\} 1\.0$', re.MULTILINE)


class Answers:
    """How long each model has been asked in vain. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._answers: Counter[str] = Counter()

    def asked(self, model: str, now: float) -> None:
        self._since.setdefault(model, now)

    def answered(self, model: str) -> None:
        """Questions that are under way do not count from their own begin any more, but from the next one's."""
        self._since.pop(model, None)
        self._answers[model] += 1

    def silent(self, models: Iterable[str], now: float) -> dict[str, tuple[float, int]]:
        """Those that have answered nothing for so many seconds, and a mark that `still` knows them by."""
        found = {model: now - self._since[model] for model in models if model in self._since}
        return {model: (seconds, self._answers[model]) for model, seconds in found.items() if seconds > SILENCE}

    def still(self, model: str, mark: int) -> bool:
        """Whether it has answered nothing since `silent` gave this mark."""
        return self._answers[model] == mark


class Watch:
    def __init__(self, place: Place, bodies: dict[str, list[float]], counted: list[str]) -> None:
        """`bodies`: the row that each model is asked with; `counted`: the models that the server's readiness counts."""
        self._place = place
        self._bodies = bodies
        self._counted = counted
        self._answers = Answers()
        self._probes: Counter[str] = Counter()
        self._unanswered: Counter[str] = Counter()
        self._violations: list[str] = []
        self._errors: list[str] = []
        self._looks = self._late = 0
        self._lag = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        self._client = Client(self._place)
        async with grpc.aio.insecure_channel(self._place.grpc) as channel:
            self._model_ready: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelReady")
            ticking = asyncio.create_task(self._tick())
            await asyncio.to_thread(sys.stdin.read)
            ticking.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(ticking, *self._tasks, return_exceptions=True)
        await self._client.close()
        self._say()

    async def _tick(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + 1, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self._lag = max(self._lag, time.monotonic() - due)
            self._begin(self._look())
            for model in self._bodies:
                self._begin(self._probe(model))
            self._say()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, model: str) -> None:
        self._answers.asked(model, time.monotonic())
        self._probes[model] += 1
        status, _ = await self._client.infer(model, *self._bodies[model], timeout=PROBE)
        if status == 200:
            self._answers.answered(model)
        else:
            self._unanswered[model] += 1

    # ---- what is said ---------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask everything, of what was silent before the question and still is when the answer is there."""
        self._looks += 1
        await asyncio.gather(*(self._judge(*each) for each in self._sources()))

    def _sources(self) -> list[tuple[str, Awaitable[set[str]]]]:
        found: list[tuple[str, Awaitable[set[str]]]] = []
        for model in self._bodies:
            found += [(f"/ready of {model}", self._http(model)), (f"gRPC of {model}", self._grpc(model))]
        found += [("the index", self._index()), ("/metrics", self._metrics()), ("/status", self._status())]
        return [*found, ("the server", self._server())]

    async def _judge(self, source: str, question: Awaitable[set[str]]) -> None:
        begin = time.monotonic()
        silent = self._answers.silent(self._bodies, begin)
        try:
            said = await question
        except Exception as error:  # it said nothing, so it did not say ready
            self._errors.append(f"{source}: {error!r}"[:300])
            return
        if time.monotonic() - begin > SAID:
            self._late += 1
            return
        doubted = {model: each for model, each in silent.items() if model in said}
        if doubted:
            await asyncio.sleep(SAID)
        for model, (seconds, mark) in doubted.items():
            if self._answers.still(model, mark):
                self._violations.append(f"{source} says that {model} is ready; no answer for {seconds:.1f} s")

    async def _get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        headers = self._client.operator if path == "/status" else None
        status, body = await self._client.ask(method, path, headers=headers, timeout=5)
        if not status:
            raise RuntimeError(body.decode(errors="replace"))
        return status, body

    async def _http(self, model: str) -> set[str]:
        status, _ = await self._get(f"/v2/models/{model}/ready")
        return {model} if status == 200 else set()

    async def _grpc(self, model: str) -> set[str]:
        try:
            answer = await self._model_ready(pb.ModelReadyRequest(name=model).SerializeToString(), timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
                return set()
            raise
        return {model} if pb.ModelReadyResponse.FromString(answer).ready else set()

    async def _index(self) -> set[str]:
        _, body = await self._get("/v2/repository/index", "POST")
        return {name for name, row in by_name(json.loads(body)).items() if row["state"] == "READY"}

    async def _metrics(self) -> set[str]:
        _, body = await self._get("/metrics")
        return {model for model, _ in READY_METRIC.findall(body.decode())}

    async def _status(self) -> set[str]:
        _, body = await self._get("/status")
        return {name for name, row in by_name(json.loads(body)["models"]).items() if row["state"] == "READY"}

    async def _server(self) -> set[str]:
        """With `readiness_strict` it vouches for all models that it counts."""
        status, _ = await self._get("/v2/health/ready")
        return set(self._counted) if status == 200 else set()

    def _say(self) -> None:
        said = {"probes": self._probes, "unanswered": self._unanswered, "looks": self._looks, "late": self._late}
        said |= {"lag": self._lag}
        print(json.dumps({**said, "violations": self._violations, "errors": self._errors}), flush=True)
        self._probes, self._unanswered, self._lag = Counter(), Counter(), 0.0
        self._looks = self._late = 0
        self._violations, self._errors = [], []


if __name__ == "__main__":
    settings = json.loads(sys.stdin.readline())
    uvloop.run(Watch(Place(**settings["place"]), settings["bodies"], settings["counted"]).run())
