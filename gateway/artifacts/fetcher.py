"""The gateway's side of the fetcher process (`workers/fetch/process.py`): questions about model URIs, downloads.

The process is started by the first question and ended when it has been idle for a while; a question
that it dies under is asked once more of a new one. Equal questions that overlap are asked once, and go
on when the request that asked first is cancelled. Used by the artifact store, model versions (metadata
of those that are not loaded), whoever follows an alias, and `modelhub check --resolve`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...protocol.errors import LoadError, WireError, from_wire
from ...protocol.framing import Unpacker, pack
from ...protocol.messages import (
    FetchFailedReply,
    FetchRequest,
    Message,
    MetadataRequest,
    ProgressReply,
    ResolveRequest,
    SearchRequest,
)
from ..system.single_flight import Progress, SingleFlight
from .reach import answers, registry_of

COMMAND = (sys.executable, "-m", "modelhub.serving.workers.fetch.process")

_EXIT_TIMEOUT = 5.0
_LONGEST_LINE = 8192


@dataclass(frozen=True)
class Resolved:
    """What a model URI means now. `source` names one content and can be fetched; `error` is "" if all went well."""

    name: str = ""
    uri: str = ""
    version: str = ""
    source: str = ""
    error: str = ""


class Fetcher:
    """Starts the fetcher process on demand and speaks with it; use it in one event loop, in the main thread.

    Errors: NotFound (no such model, version, alias or run), NotReady (the server cannot be reached; a
    retry can help), ConfigError (no such kind of URI, credentials missing), LoadError (anything else).
    """

    def __init__(
        self,
        log: Callable[[str], None],
        *,
        idle_timeout: float = 60.0,
        environment: Mapping[str, str] | None = None,
        command: Iterable[str] = COMMAND,
        stop_timeout: float = 5.0,
    ) -> None:
        """`log` is given each line that the process prints. `environment`: the gateway's own, if None.

        Timeouts in seconds: without a question until the process is ended, and then until it is killed.
        """
        self._log = log
        self._idle_timeout = idle_timeout
        self._environment = environment
        self._command = tuple(command)
        self._stop_timeout = stop_timeout
        self._flights = SingleFlight()
        self._starting = asyncio.Lock()
        self._process: _Process | None = None
        self._asking = 0
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def registry(self) -> str:
        """Names where it looks models up."""
        return registry_of(self._variables)

    async def registry_answers(self, seconds: float) -> bool:
        """Whether anybody is there, however long it may take to answer a question."""
        return await answers(self._variables, seconds)

    @property
    def _variables(self) -> Mapping[str, str]:
        return os.environ if self._environment is None else self._environment

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return self._process.pid if self._process is not None and self._process.alive else None

    async def resolve(self, uri: str) -> Resolved:
        """Which version and content the URI means now."""
        reply = await self._once("resolve", uri, lambda id: ResolveRequest(id, uri))
        return Resolved(uri=uri, version=reply.version, source=reply.source)

    async def metadata(self, uri: str) -> str:
        """The text of the model's MLmodel (see `mlmodel.mlmodel_of`); nothing else is downloaded."""
        reply = await self._once("metadata", uri, lambda id: MetadataRequest(id, uri))
        return str(reply.mlmodel)

    async def fetch(self, uri: str, destination: Path, progress: Progress | None = None) -> Path:
        """Download the model to `destination`, which must not exist; a `source` brings exactly that content."""
        target = str(destination)
        reply = await self._once(f"fetch {target}", uri, lambda id: FetchRequest(id, uri, target), progress)
        return Path(reply.path)

    async def search(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Registered model -> {alias or "latest": version}, those that exist, in one call."""
        wanted = sorted(set(names))
        reply = await self._once("search", "\n".join(wanted), lambda id: SearchRequest(id, wanted))
        found: dict[str, dict[str, str]] = reply.models
        return found

    async def close(self) -> None:
        """End the process; questions under way are cancelled."""
        self._closed = True
        await self._flights.close()
        self._end_process()
        await asyncio.gather(*self._ending)

    async def _once(self, kind: str, uri: str, make: Callable[[int], Message], progress: Progress | None = None) -> Any:
        return await self._flights.run((kind, uri), lambda report: self._ask(make, report), progress)

    async def _ask(self, make: Callable[[int], Message], report: Progress) -> Any:
        self._asking += 1
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            try:
                return await (await self._running()).ask(make, report)
            except _ProcessEnded as first:
                self._log(f"{first}; starting it again")
                try:
                    return await (await self._running()).ask(make, report)
                except _ProcessEnded as second:
                    raise LoadError(f"{second}, twice in a row: its output in the log says why") from None
        finally:
            self._asking -= 1
            if not self._asking and not self._closed:
                self._idle = asyncio.get_running_loop().call_later(self._idle_timeout, self._end_process)

    async def _running(self) -> _Process:
        async with self._starting:
            if self._closed:
                raise LoadError("the gateway is stopping: no model is fetched any more")
            if self._process is None or not self._process.alive:
                self._end_process()
                environment = dict(self._variables)
                environment["PYTHONUNBUFFERED"] = "1"
                self._process = await _Process.start(self._command, environment, self._log)
            return self._process

    def _end_process(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._process is not None:
            ending = asyncio.create_task(self._process.end(self._stop_timeout), name="end of the fetcher")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            self._process = None


class _ProcessEnded(Exception):
    """The process ended before it answered."""


class _Process:
    """One life of the fetcher process: its socket, its output, and who waits for which answer."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket, log: Callable[[str], None]) -> None:
        self.pid = process.pid
        self.alive = True
        self._process = process
        self._channel = channel
        self._log = log
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Any], Progress]] = {}
        self._sending = asyncio.Lock()
        self._reader = asyncio.create_task(self._read(), name="replies of the fetcher")
        self._output = asyncio.create_task(self._read_output(), name="output of the fetcher")

    @classmethod
    async def start(cls, command: tuple[str, ...], environment: dict[str, str], log: Callable[[str], None]) -> _Process:
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                "--fd",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process, ours, log)

    async def ask(self, make: Callable[[int], Message], report: Progress) -> Any:
        """Send one request and wait for its reply. Raises the error it was answered with, or _ProcessEnded."""
        id = next(self._ids)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting[id] = (answer, report)
        try:
            if self.alive:
                async with self._sending:
                    await loop.sock_sendall(self._channel, pack(make(id)))
            else:
                raise BrokenPipeError
            reply = await answer
        except OSError:
            raise _ProcessEnded(await self._how_it_ended()) from None
        finally:
            del self._waiting[id]
        if isinstance(reply, FetchFailedReply):
            error = from_wire(reply.code, reply.message)
            if error.code == "not_ready":
                error.retry_after = 5.0
            raise error
        return reply

    async def end(self, timeout: float) -> None:
        """Close the socket, which ends the process; kill it if it does not end."""
        self.alive = False
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._channel.close()
        try:
            await asyncio.wait_for(self._process.wait(), timeout)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._output

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        unpacker = Unpacker()
        try:
            while data := await loop.sock_recv(self._channel, 65536):
                for reply in unpacker.feed(data):
                    answer, report = self._waiting.get(reply.id, (None, None))
                    if answer is None or report is None or answer.done():
                        continue
                    if isinstance(reply, ProgressReply):
                        report(reply.done, reply.total)
                    else:
                        answer.set_result(reply)
        except WireError as error:
            self._log(f"the fetcher sent what cannot be read: {error}")
        except OSError:
            pass  # as good as its end
        finally:
            self.alive = False
            for answer, _ in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionResetError("the fetcher ended"))

    async def _read_output(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        rest = b""
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[:_LONGEST_LINE]
            for line in lines:
                self._log_line(line)
        self._log_line(rest)

    def _log_line(self, line: bytes) -> None:
        text = line[:_LONGEST_LINE].decode("utf-8", "replace").rstrip()
        if text:
            self._log(text)

    async def _how_it_ended(self) -> str:
        try:
            code = await asyncio.wait_for(self._process.wait(), _EXIT_TIMEOUT)
        except asyncio.TimeoutError:
            return "the fetcher process closed its socket"
        return (
            f"the fetcher process was killed by signal {-code}" if code < 0 else f"the fetcher process ended ({code})"
        )
