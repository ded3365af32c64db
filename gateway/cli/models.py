"""The models that a command works on: all of a configuration, each brought to disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...protocol.errors import ServingError
from ..artifacts.fetcher import Fetcher
from ..artifacts.store import Artifact, ArtifactStore
from ..environments.spec import is_model
from ..telemetry.display import Display

if TYPE_CHECKING:
    from ...config.settings import Settings


class Wanted(NamedTuple):
    """A model whose environment is asked for."""

    name: str
    uri: str
    environment: str
    #: Names of the variables that its requirements may read.
    env: tuple[str, ...]


def wanted_models(settings: Settings) -> list[Wanted]:
    """Every model of the configuration, those that groups find in folders included. Blocking."""
    wanted = [
        Wanted(
            f"{entry.name}/{entry.model.version}" if entry.model.version else entry.name,
            entry.uri,
            entry.model.environment,
            entry.model.env,
        )
        for entry in settings.entries
    ]
    for group in settings.groups:
        if group.from_ is None:
            continue
        known = {model.name for model in group.models}
        for folder in sorted(Path(group.from_.folder).iterdir()):
            if is_model(folder) and folder.name not in known:
                wanted.append(Wanted(folder.name, str(folder), settings.defaults.environment, settings.defaults.env))
    return wanted


async def for_each_model(
    settings: Settings,
    state_dir: Path,
    models: list[Wanted],
    display: Display,
    work: Callable[[Wanted, Path], Awaitable[None]],
) -> dict[str, str]:
    """Call `work` with every model's local directory, all at once; return the failures, model -> reason."""
    fetcher = Fetcher(display.say)
    artifacts = ArtifactStore(state_dir, settings.server.artifact_cache, fetcher, display.say)
    failures: dict[str, str] = {}

    async def one(wanted: Wanted) -> None:
        artifact: Artifact | None = None
        try:
            if wanted.uri:
                with display.download(wanted.name) as progress:
                    artifact = await artifacts.ensure(wanted.uri, progress)
            await work(wanted, artifact.path if artifact else Path("/nonexistent"))
        except ServingError as error:
            failures[wanted.name] = error.message
        finally:
            if artifact is not None:
                artifact.release()

    try:
        await asyncio.gather(*(one(wanted) for wanted in models))
    finally:
        await artifacts.close()
        await fetcher.close()
    return failures
