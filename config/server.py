"""The `server:` section: where the gateway listens, what it accepts, where it keeps things."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ..protocol.model_cache import default_state_dir
from .addresses import UNIX, FileMode, ListenHost, Port, PortOrSocket, is_local
from .fields import NAME_PATTERN, AnyCase, FromShell, HostName, Listed, LocalPath, Name, NoBool, Section, VariableName
from .quantities import Duration, PositiveDuration, PositiveSize, Size

ADMIN_PORT = 8081


def _state_dir() -> str:
    return default_state_dir(os.environ)


def _admin(value: object) -> Any:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if value in ("same", "off") or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535):
        return value
    raise ValueError(f"{value!r} is neither same, off nor a port (0 to 65535)")


def _readiness(value: object) -> Any:
    if isinstance(value, str) and value in ("all", "any"):
        return str(value)
    names = value.split(",") if isinstance(value, FromShell) else value
    if isinstance(names, (list, tuple)) and all(
        isinstance(name, str) and re.fullmatch(NAME_PATTERN, name) for name in names
    ):
        return tuple(names)
    raise ValueError(f"{value!r} is neither all, any nor a list of models' names"[:200])


def _level(value: object) -> Any:
    return "warning" if value == "warn" else value


class LogSettings(Section):
    """What the gateway writes to its log."""

    level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_level), AnyCase] = (
        "info"
    )
    """The least serious events that are written."""

    format: Literal["auto", "text", "json"] = "auto"
    """json: one object per line; text: for people; auto: text on a terminal, else json."""


class EnvironmentSettings(Section):
    """When the environments of models are built, and what is imported there ahead."""

    build: Literal["on_start", "never"] = "on_start"
    """never: a model whose environment is not there FAILs with the command that builds it."""

    variables: Annotated[tuple[VariableName, ...], Listed] = ()
    """Names of environment variables that the requirements of every model may name as ${NAME}, beside its `env`."""

    preload: Literal["learned", "known"] = "learned"
    """What is imported before workers are forked: known, libraries known to be safe; learned, also what workers of the
    same environment have imported of it."""


class ServerSettings(Section):
    """The gateway itself."""

    host: ListenHost = "0.0.0.0"
    """Address to listen on: 0.0.0.0, :: (both kinds of addresses), one of this machine's, or unix:/path (no port)."""

    port: Port = 8080
    """Port of REST, gRPC and /metrics; 0: any free one."""

    grpc_port: PortOrSocket | None = None
    """Another port for gRPC alone, or unix:/path; None: none."""

    socket_mode: FileMode = "600"
    """Mode of the Unix sockets that are listened on, in octal: who may write to them may ask. 660: the group too."""

    admin: Annotated[
        Literal["same", "off"] | int | None,
        BeforeValidator(lambda value: None if value is None else _admin(value)),
        WithJsonSchema(
            {"anyOf": [{"enum": ["same", "off", None]}, {"type": "integer", "minimum": 0, "maximum": 65535}]}
        ),
    ] = None
    """Where /status, load, unload and reload are: same (as port, and grpc_port), off, or a port of 127.0.0.1.

    None: 8081 of 127.0.0.1, or any free one where that is taken."""

    admin_auth: Literal["token", "off"] = "token"
    """token: they want the token that a gateway makes at each start (<state_dir>/gateways/*.token); off: none."""

    admin_hosts: Annotated[tuple[HostName, ...], Listed] = ()
    """Names, beside its address, that they may be asked for by: what a client has in Host."""

    load_overrides: Annotated[tuple[Literal["uri", "env", "environment", "pythonpath", "service"], ...], Listed] = ()
    """Which of uri, env, environment, pythonpath and service a load may override; other keys it may in any case."""

    max_body: PositiveSize = 64 << 20
    """Bytes of a request's body at most; larger ones get 413."""

    max_headers: Annotated[PositiveSize, Field(ge=8 << 10, le=1 << 20)] = 64 << 10
    """Bytes of a request's first line and headers together, and of a gRPC call's metadata (32 more for each of them) at
    most; more get 431, over gRPC RESOURCE_EXHAUSTED. 8KiB to 1MiB."""

    max_buffered: PositiveSize | None = None
    """Bytes of all requests' bodies that are held at once: on their way in, waiting, or with a worker; more get 429.

    None: a quarter of the memory of the container, or of the machine. Bodies up to 64KiB are not counted."""

    max_connections: Annotated[int, Field(ge=1, le=1_000_000), NoBool] = 10_000
    """HTTP connections at once; more, or more than the process may open files for, get 503 and are closed."""

    write_timeout: PositiveDuration = 60.0
    """Seconds that a client may read nothing of its answer; then its connection is closed."""

    readiness: Annotated[
        Literal["all", "any"] | tuple[Name, ...],
        BeforeValidator(_readiness),
        WithJsonSchema({"anyOf": [{"enum": ["all", "any"]}, {"type": "array", "items": {"type": "string"}}]}),
    ] = "all"
    """Which models must be READY before the server is: all, any, or those named."""

    readiness_strict: bool = False
    """Un-ready the server when a model fails after the server was ready."""

    state_dir: LocalPath = Field(default_factory=_state_dir)
    """Folder of environments, artifacts and kits; the default is modelhub in the user's cache folder.

    Of a user without a home: modelhub-<id> in $TMPDIR."""

    artifact_cache: Size = 50 << 30
    """Bytes of fetched artifacts to keep."""

    pythons: Annotated[tuple[LocalPath, ...], Listed] = ()
    """Python executables, or folders of them, to build environments with, before those that are found."""

    drain_delay: Duration = 0.0
    """Seconds from SIGTERM on in which new connections are still taken and new requests answered, while load balancers
    learn that this server is not ready any more. The grace begins after them."""

    shutdown_grace: Duration = 30.0
    """Seconds that requests in flight are given to end at SIGTERM."""

    log: LogSettings = LogSettings()
    """Level and format of the log."""

    environments: EnvironmentSettings = EnvironmentSettings()
    """When the environments of models are built, and what is imported there ahead."""

    @model_validator(mode="after")
    def _consistent(self) -> ServerSettings:
        if self.max_buffered is not None and self.max_buffered < self.max_body:
            raise ValueError("max_buffered is less than max_body: no body of that size could ever be taken; raise it")
        if self.host.startswith(UNIX) and isinstance(self.grpc_port, int):
            raise ValueError("grpc_port is a port, and host has none: give gRPC a Unix socket too, unix:/path")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the main port."""
        return is_local(self.host)

    @property
    def admin_place(self) -> Literal["same", "off"] | int:
        """`admin` with its default decided: port 8081 of 127.0.0.1."""
        return ADMIN_PORT if self.admin is None else self.admin
