"""Which Python environment a model runs in, and making it ready: shared, built with uv, or given by path.

`Environments.ensure` is called while a model version is PREPARING, and by `modelhub env build`.
It never blocks the event loop; building the same environment for ten models is one build.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ...protocol.errors import LoadError
from ..system.single_flight import SingleFlight
from .build import build_environment, rescues, try_import
from .installed import Installed, OwnInstalled, unmet
from .kit import build_kit, kit_key
from .pythons import Interpreter, check_python, find_python, inspect_installed
from .resolve import resolve
from .spec import EnvironmentSpec, Specs, is_model, label_of
from .store import Finished, Store
from .uv import Uv, UvFailed
from .variables import granted

#: uv is parallel by itself; more builds at once would only slow each other and the workers down.
_BUILDS_AT_ONCE = 2
#: Answers that are kept of which requirements the shared environment does not meet.
_REMEMBERED = 1024


@dataclass(frozen=True)
class Environment:
    """A Python to start workers with."""

    #: "shared", the key of a built one, or "path:<hash of the path>".
    key: str
    #: The interpreter to start.
    python: Path
    #: In full: "3.11.7".
    python_version: str
    #: A folder to append LAST to sys.path; None where the environment has what our code needs (the shared one).
    kit: Path | None
    #: For people: "shared", "3.9 a1b2c3d4".
    label: str
    #: What the model asks for and is not in it, for people.
    lacks: str = field(default="", compare=False)


def environment_store(state_dir: Path) -> Store:
    """Where built environments are kept."""
    return Store(state_dir / "environments", usable=lambda folder: (folder / "bin" / "python").exists())


def kit_store(state_dir: Path) -> Store:
    """Where kits are kept."""
    return Store(state_dir / "kits")


class Environments:
    """Finds or makes the environment of each model. One per gateway; `close` it at the end.

    `report` gets one line per step, `warn` what a model asks for and will not have (by default as `report`), `built`
    each build's result (built, failed) and its seconds.
    `tail` gets uv's output as it comes, masked; `uv` replaces the installed one. `variables`: names of those that the
    requirements of every model may read.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        pythons: Sequence[Path] = (),
        build: Literal["on_start", "never"] = "on_start",
        report: Callable[[str], None],
        warn: Callable[[str], None] | None = None,
        built: Callable[[str, float], None] = lambda result, seconds: None,
        tail: Callable[[str], None] | None = None,
        variables: Collection[str] = (),
        uv: Uv | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._pythons = list(pythons)
        self._may_build = build == "on_start"
        self._report = report
        self._warn = warn or report
        self._built_one = built
        self._uv = uv or Uv(tail=tail)
        self._variables = frozenset(variables)
        self._environments = environment_store(state_dir)
        self._kits = kit_store(state_dir)
        self._flights = SingleFlight()
        self._slots = asyncio.Semaphore(_BUILDS_AT_ONCE)
        self._reported: set[str] = set()
        self._specs = Specs(self._uv)
        #: Of each environment that was asked for: what of it this one, which does not change, does not have.
        self._unmet_here: dict[str, list[str]] = {}

    async def ensure(self, model_path: Path, choice: str, variables: Collection[str] = ()) -> Environment:
        """The environment of a model in a local directory, ready to start workers in.

        `choice`: auto | shared | isolated | path to a Python or a venv, which may be read-only. `variables`: names of
        those of the gateway's that this model's requirements may read, beside what all may. Raises LoadError
        whose message says what failed and what to do. Cancelling a caller does not stop a build that others wait for.
        """
        if choice not in {"auto", "shared", "isolated"}:
            return await self._given(Path(choice), model_path)
        shared = Environment("shared", Path(sys.executable), platform.python_version(), None, "shared")
        if choice == "shared":
            await self._warn_unmet(model_path, None, "the shared environment")
            return shared
        if choice == "auto" and not await asyncio.to_thread(is_model, model_path):
            return shared  # a service that loads by itself
        spec = await asyncio.to_thread(self._specs.read, model_path)
        for item in spec.not_covered:
            self._report_once(f"{model_path.name}: {item}", self._warn)
        lacks = "; ".join(spec.not_covered)
        if choice == "auto":
            if spec.says_nothing:
                self._report_once(f"{model_path.name}: names no requirements, so the shared environment is used")
                return replace(shared, lacks=lacks)
            reasons = await self._unmet(spec)
            if not reasons:
                return replace(shared, lacks=lacks)
            why = "; ".join(self._uv.mask(reason) for reason in reasons)
            self._report_once(f"environment {spec.label} instead of the shared one: {why}")
        elif spec.says_nothing:
            raise LoadError(
                f"{model_path} names no requirements, so no environment can be built for it; add a requirements.txt, "
                f"or set this model's `environment` to `shared` or to the path of a Python"
            )
        return replace(await self._built(spec, variables), lacks=lacks)

    async def _unmet(self, spec: EnvironmentSpec) -> list[str]:
        key = spec.key
        if key not in self._unmet_here:
            if len(self._unmet_here) >= _REMEMBERED:
                self._unmet_here.clear()
            self._unmet_here[key] = await asyncio.to_thread(unmet, spec, OwnInstalled())
        return self._unmet_here[key]

    async def close(self) -> None:
        """Stop running builds (nothing half is left) and let go of the environments."""
        await self._flights.close()
        await asyncio.to_thread(self._environments.close)
        await asyncio.to_thread(self._kits.close)

    async def _built(self, spec: EnvironmentSpec, names: Collection[str]) -> Environment:
        check_python(spec.python, "the model")
        finished = await asyncio.to_thread(self._found, spec.key)
        if finished is None:
            values = granted(spec.lines, self._variables.union(names), self._uv.environ)
            finished = await self._flights.run(spec.key, lambda progress: self._build(spec, values))
        label = label_of(spec.python, finished.key)
        if finished.facts.get("mlflow") is None:
            wanted = f"mlflow=={spec.mlflow_version}" if spec.mlflow_version else "mlflow"
            raise LoadError(
                f"the model's requirements do not name mlflow, so its environment {label} cannot load it; add "
                f"`{wanted}` to its requirements.txt (log it again), or set its `environment` to `shared` or a path"
            )
        version = str(finished.facts["python_version"])
        python = finished.path / "bin" / "python"
        kit = await self._kit(Interpreter(python, version))
        return Environment(finished.key, python, version, kit, label)

    def _found(self, key: str) -> Finished | None:
        """What is built for these requirements: under their own key, or with the packages that they come to."""
        return self._environments.find(key) or self._environments.find_named(key)

    async def _build(self, spec: EnvironmentSpec, values: Mapping[str, str]) -> Finished:
        """Build it, unless there is one of the same packages. It is found by its requirements' key from then on."""
        self._refuse_unless_building_is_allowed(f"environment {spec.label} is not built")
        async with self._slots:
            python = await find_python(spec.python, pythons=self._pythons, uv=self._uv)
            resolved = await resolve(spec, python, self._uv, values)
            if resolved:
                finished = await self._build_once(replace(spec, resolved=resolved), python, values)
                if await self._serves(finished, spec):
                    await asyncio.to_thread(self._environments.name, finished.key, spec.key)
                    return finished
            return await self._build_once(spec, python, values)

    async def _build_once(self, spec: EnvironmentSpec, python: Interpreter, values: Mapping[str, str]) -> Finished:
        there = await asyncio.to_thread(self._environments.find, spec.key)
        if there is not None:
            return there
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            finished = await self._environments.build(
                spec.key,
                lambda folder: build_environment(spec, python, folder, self._uv, self._report, values),
                lambda: self._report(f"environment {spec.label}: another process is building it, waiting"),
            )
        except LoadError:
            self._built_one("failed", loop.time() - began)
            raise
        self._built_one("built", loop.time() - began)
        self._report(f"environment {spec.label}: ready after {loop.time() - began:.1f} s")
        return finished

    async def _serves(self, finished: Finished, spec: EnvironmentSpec) -> bool:
        """Whether an environment of the same packages, built for another model perhaps, is what this one's would be.

        What mended that one must be what is tried for this one; and its own libraries must be importable.
        """
        if finished.facts.get("rescue", "") not in rescues(spec):
            return False
        untried = [name for name in spec.libraries if name not in finished.facts.get("libraries", [])]
        if not untried:
            return True
        try:
            await try_import(untried, finished.path, self._uv)
        except UvFailed:
            return False
        return True

    async def _kit(self, python: Interpreter) -> Path:
        key = kit_key(python.minor)
        finished = await asyncio.to_thread(self._kits.find, key)
        if finished is None:
            finished = await self._flights.run(f"kit {key}", lambda progress: self._build_kit(key, python))
        return finished.path

    async def _build_kit(self, key: str, python: Interpreter) -> Finished:
        self._refuse_unless_building_is_allowed(f"the kit for Python {python.minor} is not installed")
        return await self._kits.build(
            key,
            lambda folder: build_kit(python, folder, self._uv, self._report),
            lambda: self._report(f"kit for Python {python.minor}: another process is installing it, waiting"),
        )

    async def _given(self, path: Path, model_path: Path) -> Environment:
        """An environment that the user has made: nothing is written into it."""
        interpreter, installed = await inspect_installed(path)
        await self._warn_unmet(model_path, installed, str(path))
        key = hashlib.sha256(str(interpreter.path).encode()).hexdigest()[:16]
        kit = await self._kit(interpreter)
        return Environment(
            f"path:{key}", interpreter.path, interpreter.version, kit, label_of(interpreter.minor, path.name)
        )

    def _refuse_unless_building_is_allowed(self, what: str) -> None:
        if not self._may_build:
            raise LoadError(
                f"{what} in {self._state_dir}, and `environments.build` is `never`. Build it beforehand: "
                f"`modelhub env build FILE --state-dir {self._state_dir}` with this configuration"
            )

    async def _warn_unmet(self, model_path: Path, installed: Installed | None, where: str) -> None:
        """Say what differs where the user has chosen the environment (None: this one). The choice stands."""
        try:
            spec = await asyncio.to_thread(self._specs.read, model_path)
        except LoadError:
            return  # no model, or one whose requirements nobody asked for
        reasons = await (asyncio.to_thread(unmet, spec, installed) if installed else self._unmet(spec))
        if reasons:
            listed = "; ".join(self._uv.mask(reason) for reason in reasons)
            self._report_once(f"{model_path.name}: {where} is used as configured, though it was logged with {listed}")

    def _report_once(self, line: str, report: Callable[[str], None] | None = None) -> None:
        """A model is loaded many times in a gateway's life; what its directory says does not change."""
        if line not in self._reported:
            self._reported.add(line)
            (report or self._report)(line)
