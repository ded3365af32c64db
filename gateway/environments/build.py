"""Building the environment of a model with uv: create, install, try the import, rescue what has rotted.

Called by `Environments` inside a `Store`'s turn: it fills a folder that becomes the environment by a rename, so the
venv is made relocatable. Nothing here knows about caching or locks.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...protocol.errors import LoadError
from .indexes import install, missing_index
from .lock import project_of
from .pythons import Interpreter
from .spec import EnvironmentSpec
from .uv import Uv, UvFailed, run_program
from .variables import expanded

_INPUTS = ".inputs"
#: setuptools 81 and later have no pkg_resources, which older MLflows and libraries import.
_OLD_SETUPTOOLS = "setuptools<81"
_IMPORT_SECONDS = 600.0
_NO_MLFLOW = 3
_TRY_IMPORT = f"""
import importlib, importlib.metadata, importlib.util, sys
if importlib.util.find_spec("mlflow") is None:
    sys.exit({_NO_MLFLOW})
import mlflow.pyfunc
for name in sys.argv[1:]:
    if importlib.util.find_spec(name) is not None:
        importlib.import_module(name)
print("MLFLOW " + getattr(mlflow, "__version__", ""))
"""


async def build_environment(
    spec: EnvironmentSpec,
    python: Interpreter,
    folder: Path,
    uv: Uv,
    report: Callable[[str], None],
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Make the venv `folder` (which does not exist) with everything the spec asks for; return facts for people.

    `variables`: values of what its requirements name as ${NAME}.
    The facts' `mlflow` is None where the environment has no MLflow. Raises LoadError with uv's own message.
    """
    report(f"environment {spec.label}: building with Python {python} and {len(spec.requirements)} requirements")
    attempts = _attempts(spec)
    first_failure = said = ""
    for number, (rescue, additions, flags) in enumerate(attempts):
        if number:
            report(f"environment {spec.label}: it does not import ({first_failure}); trying with {rescue}")
        try:
            await _install(spec, python, folder, uv, additions, flags, variables or {}, report)
            mlflow = await try_import(spec.libraries, folder, uv)
        except _ImportFails as error:
            first_failure = first_failure or error.last_line
            said = error.said
            continue
        except UvFailed as error:
            if number:  # a rescue that cannot be resolved is no reason to hide why it was tried
                said = error.said
                continue
            raise LoadError(_failure(spec, uv.mask, error)) from None
        if rescue:
            report(f"environment {spec.label}: it imports with {rescue}")
        return {
            "python": spec.python,
            "python_version": python.version,
            "requirements": [uv.mask(line.text) for line in spec.requirements],
            "mlflow": mlflow,
            "libraries": list(spec.libraries),
            "rescue": rescue,
            "built_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }
    tried = ", then with ".join(rescue for rescue, _, _ in attempts[1:])
    raise LoadError(
        f"environment {spec.label} was built, but does not import: {first_failure}. Tried with {tried} as well; at "
        f"last it said:\n{said}\nCorrect the model's requirements.txt, or give it `environment: <path to a venv>`"
    )


class _ImportFails(UvFailed):
    """What was installed cannot be imported."""


def rescues(spec: EnvironmentSpec) -> list[str]:
    """What may be in the facts as `rescue` of an environment that is built for this model."""
    return [rescue for rescue, _, _ in _attempts(spec)]


def _attempts(spec: EnvironmentSpec) -> list[tuple[str, list[str], list[str]]]:
    """(what it is called, requirements to add, flags to add): as logged first, then what mends rot."""
    attempts: list[tuple[str, list[str], list[str]]] = [("", [], []), (_OLD_SETUPTOOLS, [_OLD_SETUPTOOLS], [])]
    if spec.logged_at is not None:
        until = (spec.logged_at + datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        flags = ["--exclude-newer", until]
        attempts.append((f"{_OLD_SETUPTOOLS} and --exclude-newer {until}", [_OLD_SETUPTOOLS], flags))
    return attempts


async def _install(
    spec: EnvironmentSpec,
    python: Interpreter,
    folder: Path,
    uv: Uv,
    additions: list[str],
    flags: list[str],
    variables: Mapping[str, str],
    report: Callable[[str], None],
) -> None:
    """One attempt, in a fresh venv. Raises UvFailed, OSError."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await uv.run(
        *("venv", "--no-project", "--relocatable", "--no-python-downloads", "--python", str(python.path), str(folder)),
    )
    options = expanded(spec.options, variables)
    lines = [*options, *expanded([*(line.install for line in spec.requirements), *additions], variables)]
    constraints = expanded([line.install for line in spec.constraints], variables)
    if not (spec.requirements or additions):
        return
    inputs = folder / _INPUTS
    own: dict[str, list[str]] = {}
    for line in spec.requirements:
        if line.requirement is not None:
            own.setdefault(line.name, []).append(str(line.requirement))
    project = project_of(spec.sources, own)
    await asyncio.to_thread(_write_inputs, inputs, lines, constraints, project)
    arguments = ["pip", "install", "--python", str(folder / "bin" / "python"), *uv.index_flags(), *spec.flags, *flags]
    arguments += ["-r", str(inputs / "requirements.txt")]
    arguments += ["-c", str(inputs / "constraints.txt")] if constraints else []
    arguments += ["-r", str(inputs / "pyproject.toml")] if project else []
    try:
        # In its own folder: a pyproject.toml beside the model or the gateway is none of this environment's business.
        await install(
            uv,
            arguments,
            cwd=inputs,
            options=options,
            secrets=variables.values(),
            probe=next((line.name for line in spec.requirements if line.name), "pip"),
            report=lambda said: report(f"environment {spec.label}: {said}"),
        )
    finally:
        await asyncio.to_thread(shutil.rmtree, inputs, ignore_errors=True)


def _write_inputs(inputs: Path, lines: list[str], constraints: list[str], project: str) -> None:
    """The files for uv, readable by us alone: an index's URL may hold a password."""
    inputs.mkdir(mode=0o700)
    for name, content in (("requirements.txt", lines), ("constraints.txt", constraints)):
        (inputs / name).write_text("\n".join([*content, ""]))
    if project:
        (inputs / "pyproject.toml").write_text(project)


async def try_import(libraries: Sequence[str], folder: Path, uv: Uv) -> str | None:
    """MLflow's version, or None where there is no MLflow. Raises UvFailed where it or a library is not imported."""
    names = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in names if name in os.environ}
    env.update(MLFLOW_DISABLE_TELEMETRY="true", MPLBACKEND="agg", TF_CPP_MIN_LOG_LEVEL="3")
    command = [str(folder / "bin" / "python"), "-I", "-W", "ignore", "-c", _TRY_IMPORT, *libraries]
    try:
        said = await run_program(command, env=env, cwd=folder, mask=uv.mask, timeout=_IMPORT_SECONDS)
    except UvFailed as error:
        if error.returncode == _NO_MLFLOW:
            return None
        raise _ImportFails(error.returncode, error.said) from None
    return said.rpartition("MLFLOW ")[2].strip()


def _failure(spec: EnvironmentSpec, mask: Callable[[str], str], error: UvFailed) -> str:
    wanted = ", ".join(mask(line.text) for line in spec.requirements)
    return (
        f"environment {spec.label} could not be built ({wanted}). uv said, {error}\n"
        f"{missing_index(spec.requirements, error.said)}"
        f"Correct the model's requirements.txt, or the index settings (UV_* or PIP_*), or set this model's "
        f"`environment` to `shared` or to the path of a venv that works"
    )
