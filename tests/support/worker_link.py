"""The gateway's end of one worker's socket, for a request loop that runs in a thread of the test."""

from __future__ import annotations

import select
import threading
from pathlib import Path
from typing import Any

import zmq

from modelhub.serving.protocol.codec import decode, encode
from modelhub.serving.protocol.journal import Journal
from modelhub.serving.protocol.messages import InferRequest, StatsReply, StatsRequest, StopRequest
from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.loop.link import Link
from modelhub.serving.workers.loop.loop import Loop
from modelhub.serving.workers.loop.threaded import ThreadedLoop
from modelhub.serving.workers.model.served import ServedModel


class WorkerLink:
    """Runs the real loop over a real socket; `send` takes several messages, which travel together."""

    def __init__(self, folder: Path, model: ServedModel, *, concurrency: int = 1, **batching: Any) -> None:
        self.journal = Journal(str(folder / "journal"), create=True)
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.RCVTIMEO, 20_000)
        endpoint = f"ipc://{folder}/link"
        self._router.bind(endpoint)
        self._token = "ab" * 16
        spec = WorkerSpec(
            "own",
            "1",
            0,
            0,
            self._token,
            endpoint,
            "",
            str(folder / "journal"),
            "/",
            concurrency=concurrency,
            batching=batching,
        )
        self._code: int | str | None = None
        self._thread = threading.Thread(target=self._run, args=(spec, model), daemon=True)
        self._thread.start()

    def _run(self, spec: WorkerSpec, model: ServedModel) -> None:
        link = self._link = Link(spec)
        try:
            link.send([(StatsReply(), b"")])  # the router knows it from now on
            (Loop if spec.concurrency == 1 else ThreadedLoop)(spec, link, model).run()
        except SystemExit as leaving:
            self._code = leaving.code
        finally:
            link.close()

    def reached(self) -> bool:
        """Waits until something that was sent lies there for the loop to read; called in its thread, by the model."""
        return bool(select.select((self._link._socket,), (), (), 20)[0])

    def ended(self, seconds: float) -> int | str | None:
        """Waits for the loop to end by itself; the code with which it exits."""
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self._code

    def __enter__(self) -> WorkerLink:
        assert isinstance(self.receive()[0][0], StatsReply)
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            self.send((StopRequest(), b""))
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:  # the test has stopped it
                raise
        self._thread.join(20)
        self._router.close()
        self._context.term()
        self.journal.close()
        assert not self._thread.is_alive()

    def send(self, *messages: tuple[Any, bytes]) -> None:
        self._router.send_multipart([bytes.fromhex(self._token), *encode(messages)])

    def receive(self) -> list[tuple[Any, bytes]]:
        """The next ZeroMQ message: one or several of ours."""
        frames = self._router.recv_multipart()
        return [(message, bytes(body)) for message, body in decode(frames[1:])]

    def answers(self, count: int) -> dict[int, tuple[Any, bytes]]:
        """So many replies by the number of their request."""
        found: dict[int, tuple[Any, bytes]] = {}
        while len(found) < count:
            found.update({message.id: (message, body) for message, body in self.receive()})
        return found

    def ask(self, *bodies: bytes, **header: Any) -> list[tuple[Any, bytes]]:
        """The replies to requests that arrive together, in the order of the requests."""
        self.send(*((InferRequest(id=number, **header), body) for number, body in enumerate(bodies, 1)))
        found = self.answers(len(bodies))
        return [found[number] for number in range(1, len(bodies) + 1)]

    def batching(self) -> dict[str, Any]:
        """What the worker says of it."""
        self.send((StatsRequest(), b""))
        return dict(self.receive()[0][0].stats["batching"])
