"""One model of the configuration: every key of an entry, resolved.

`EntryDefaults` are the keys that `defaults:` may set for all entries; `ModelSettings` adds those
that belong to one model alone. Read by whoever prepares, loads and serves it.
"""

from __future__ import annotations

import os.path
import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ..protocol.limits import BATCH_ROWS, MAX_PIXELS, PDF_DPI, PDF_PAGES
from ..protocol.uris import has_scheme
from .fields import (
    ClassTarget,
    Count,
    Device,
    EnvironmentChoice,
    Listed,
    LocalPath,
    ModelName,
    ModelUri,
    NoBool,
    Section,
    Threads,
    VariableName,
    VersionLabel,
)
from .quantities import Duration, PositiveDuration, PositiveSize

_REGISTERED = re.compile(r"models:/{1,3}(?P<name>[^/@]+)(?:/(?P<version>[^/]+)|@(?P<alias>[^/]+))?")
_PAGES = r"^(all|[0-9]+(-[0-9]*)?(,[0-9]+(-[0-9]*)?)*)$"


class LimitSettings(Section):
    """What one worker may use, and how much work may wait for the model."""

    memory: PositiveSize | None = None
    """Private bytes of a worker; one above it is killed and replaced.

    None: nine tenths of the memory of the container, or of the machine."""

    queue: Annotated[int, Field(ge=1, le=1_000_000), NoBool] = 200
    """Requests that may wait for this model; more are refused with 429."""

    concurrency: Annotated[int, Field(ge=1, le=1024), NoBool] = 1
    """Predictions at once in one worker: threads, or coroutines of an async service."""


class BatchingSettings(Section):
    """How requests that wait are predicted together."""

    enabled: bool | None = None
    """true: always; false: never; None: where it is shown to be safe for the model."""

    max_size: Annotated[int, Field(ge=1, le=1_000_000), NoBool] = BATCH_ROWS
    """Rows of a batch at most."""

    max_delay: Duration | None = None
    """Seconds that a batch may wait for more requests; 0: never; None: for clients that were just answered, while
    that is found to answer more."""


class ImageSettings(Section):
    """What an image becomes before the model sees it; None: what the model's signature asks for."""

    size: Annotated[tuple[Count, Count], Listed] | None = None
    """Width and height in pixels."""

    mode: Literal["RGB", "RGBA", "L"] | None = None
    """Colour, colour with transparency, or grey."""

    dtype: Literal["uint8", "float16", "float32", "float64"] | None = None
    """Type of the array's elements; floats are scaled to 0…1."""

    layout: Literal["HWC", "CHW"] | None = None
    """Order of the array's axes: height, width, channels, or channels first."""

    max_pixels: Annotated[int, Field(ge=1), NoBool] = MAX_PIXELS
    """An image, or a page of a PDF, with more pixels is refused before it is decoded; a request's together: 8 times."""


def _pages(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(_PAGES, text):
        raise ValueError(f"{value!r} names no pages; write all, 1, 1-3 or 1,4-6 (pages count from 1)")
    return text


class PdfSettings(Section):
    """How the pages of a PDF become images."""

    dpi: Annotated[int, Field(ge=1, le=1200), NoBool] = PDF_DPI
    """Dots per inch."""

    pages: Annotated[
        str,
        BeforeValidator(_pages),
        WithJsonSchema({"anyOf": [{"type": "string", "pattern": _PAGES}, {"type": "integer"}]}),
    ] = "all"
    """Which pages: all, or a list such as 1,4-6."""

    max_pages: Annotated[int, Field(ge=1, le=100_000), NoBool] = PDF_PAGES
    """A document with more pages to render is refused."""

    gray: bool = False
    """Render in grey: three times as fast."""


class EntryDefaults(Section):
    """The keys of an entry that `defaults:` may set for all."""

    environment: EnvironmentChoice = "auto"
    """auto: the shared one if it meets the model's requirements, else built; shared; isolated; or a path."""

    pythonpath: Annotated[tuple[LocalPath, ...], Listed] = ()
    """Folders to import the service's modules from."""

    model_type: Annotated[str, Field(min_length=1)] = "pyfunc"
    """How to load it: pyfunc, sklearn (the native estimator), transformer (the pipeline)."""

    replicas: Annotated[int, Field(ge=1, le=1024), NoBool] = 1
    """Worker processes that share the model's queue."""

    threads: Threads = 1
    """Threads of the numeric libraries in each worker; auto (0): the CPUs of the cgroup."""

    devices: Annotated[tuple[Device, ...], Listed] = ()
    """GPUs that the workers see (CUDA_VISIBLE_DEVICES); any makes them start by spawn."""

    start: Literal["fork", "spawn"] = "fork"
    """fork: from the environment's fork server where that is safe; spawn: a fresh interpreter."""

    retry: bool = True
    """Send a request that a dead worker had begun once more, to its successor."""

    timeout: PositiveDuration = 30.0
    """Seconds that a request may take, queueing included, when it names no deadline itself."""

    load_timeout: PositiveDuration = 1800.0
    """Seconds that a worker may take to load the model, downloads not counted; then it is killed, a failed load."""

    ready_grace: Duration = 3.0
    """Seconds without any worker, while the next one starts, in which the model goes on saying that it is ready."""

    warmup: Literal["fail", "warn", "off"] = "fail"
    """Predict the model's own input example before it is ready; what an error there means."""

    env: Annotated[tuple[VariableName, ...], Listed] = ()
    """Names of environment variables of the gateway that workers get and requirements may name as ${NAME}."""

    batching: BatchingSettings = BatchingSettings()
    """How requests that wait are predicted together."""

    limits: LimitSettings = LimitSettings()
    """Memory, queue and concurrency."""

    image: ImageSettings = ImageSettings()
    """What an image becomes before the model sees it."""

    pdf: PdfSettings = PdfSettings()
    """How the pages of a PDF become images."""


class ModelSettings(EntryDefaults):
    """One model (or one version of it) with the defaults already merged in."""

    name: ModelName
    """The model's name in the routes."""

    uri: ModelUri = ""
    """runs:/…, models:/…, another MLflow URI, or the path of a folder with an MLmodel file."""

    version: VersionLabel | None = None
    """The version in the routes; None: the registry's, else 1."""

    default: bool = False
    """This one of several versions of its name answers requests that name none; else the newest that is ready does."""

    service: ClassTarget | None = None
    """package.module:Class of a service that answers instead of the default one."""

    follow: PositiveDuration | None = None
    """Seconds between two looks at the registry: a new version is loaded, warmed and swapped in."""

    pinned: bool = False
    """Never unloaded to make room."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelSettings:
        if not self.uri and self.service is None:
            raise ValueError("uri is missing; write runs:/<id>/model, models:/<name>@<alias> or a path (or a service)")
        if self.follow is not None and not self.moves:
            raise ValueError("follow needs a uri that can move, such as models:/<name>@<alias>")
        if self.follow is not None and self.version is not None:
            raise ValueError("follow takes its versions from the registry; remove version")
        return self

    @property
    def local_path(self) -> str | None:
        """The path of the model's folder if the URI is one; None for what has to be fetched."""
        return self.uri if self.uri and not has_scheme(self.uri) and os.path.isabs(self.uri) else None

    @property
    def moves(self) -> bool:
        """Whether the URI names an alias, a stage or the latest version, which may be another one tomorrow."""
        match = _REGISTERED.fullmatch(self.uri)
        if match is None or (match["name"].startswith("m-") and not match["alias"] and not match["version"]):
            return False
        return not (match["version"] or "").isdigit()

    @property
    def known_version(self) -> str | None:
        """The version as far as the configuration tells; None when only the registry knows."""
        if self.version is not None:
            return self.version
        if self.moves:
            return None
        match = _REGISTERED.fullmatch(self.uri)
        return match["version"] if match and match["version"] else "1"
