"""The commands `modelhub env build | list | prune | plan`.

`build` bakes environments into an image; `plan` explains which model runs where, and why, before anything is built.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.quantities import format_duration, format_size, parse_duration
from ...protocol.errors import ConfigError
from ..environments.environments import Environments, environment_store, kit_store
from ..environments.installed import OwnInstalled
from ..environments.plan import Plan, Planned, Row, disk_use, make_plan
from ..environments.spec import label_of, read_spec
from ..environments.store import Finished
from ..environments.uv import Uv
from ..system.surroundings import settle
from .models import Wanted, for_each_model, wanted_models
from .output import display_on, new_console, print_table, say, say_error

if TYPE_CHECKING:
    from rich.console import Console

    from ...config.settings import Settings


def add_parser(commands: Any) -> None:
    """Add `env` with its own commands to the subparsers of `modelhub`; each sets `func`."""
    summary = "build, list, prune and plan the Python environments of models"
    env = commands.add_parser("env", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    actions = env.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
        )
        action.add_argument("--state-dir", type=Path, help="where environments are kept, instead of server.state_dir")
        action.set_defaults(func=run)
        return action

    build = add("build", _build, "build the environments of all models of a configuration")
    build.add_argument("file", metavar="FILE", help="a YAML file, a model's folder, or a model's URI")
    add("list", _list, "list the environments that are built")
    prune = add("prune", _prune, "remove environments that no process uses and that nobody used for some time")
    prune.add_argument("--unused-for", default="30d", metavar="TIME", help="unused for that long (default: 30d)")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    plan = add("plan", _plan, "say which models share an environment, which clash, and what it costs on disk")
    plan.add_argument("file", metavar="FILE", help="a YAML file, a model's folder, or a model's URI")


def _build(args: argparse.Namespace) -> int:
    console = new_console()
    settings = _settings(args)
    state_dir = _state_dir(args, settings)
    settle(os.environ, str(state_dir))
    failures = asyncio.run(build_all(settings, state_dir, console))
    return 1 if failures else 0


async def build_all(settings: Settings, state_dir: Path, console: Console) -> dict[str, str]:
    """Make every model's environment and kit; return the failures, model -> reason."""
    models = await asyncio.to_thread(wanted_models, settings)
    pythons = [Path(path) for path in settings.server.pythons]
    with display_on(sys.stdout) as display:
        names = settings.server.environments.variables
        environments = Environments(state_dir, pythons=pythons, report=display.step, tail=display.tail, variables=names)

        async def one(wanted: Wanted, path: Path) -> None:
            environment = await environments.ensure(path, wanted.environment, wanted.env)
            display.step(f"{wanted.name}: {environment.label}, Python {environment.python_version}")

        try:
            failures = await for_each_model(settings, state_dir, models, display, one)
        finally:
            await environments.close()
    for name, reason in failures.items():
        say_error(console, f"{name}: {reason}")
    return failures


def _plan(args: argparse.Namespace) -> int:
    console = new_console()
    settings = _settings(args)
    state_dir = _state_dir(args, settings)
    settle(os.environ, str(state_dir))
    plan = asyncio.run(plan_all(settings, state_dir))
    print_plan(plan, state_dir, console)
    return 1 if plan.errors else 0


async def plan_all(settings: Settings, state_dir: Path) -> Plan:
    """Read every model's requirements (fetching what is remote) and compare them."""
    planned: dict[str, Planned] = {}
    uv, store = Uv(), environment_store(state_dir)
    models = await asyncio.to_thread(wanted_models, settings)

    async def one(wanted: Wanted, path: Path) -> None:
        spec = await asyncio.to_thread(read_spec, path, uv) if wanted.uri else None
        key = await asyncio.to_thread(store.key_of, spec.key) if spec is not None else ""
        planned[wanted.name] = Planned(wanted.name, wanted.environment, spec, built=key)

    with display_on(sys.stderr) as display:
        failures = await for_each_model(settings, state_dir, models, display, one)
    planned.update({name: Planned(name, "auto", error=reason) for name, reason in failures.items()})
    return await asyncio.to_thread(make_plan, [planned[wanted.name] for wanted in models], OwnInstalled())


def print_plan(plan: Plan, state_dir: Path, console: Console) -> None:
    """The tables and sentences of `modelhub env plan`."""
    built = {found.key: found for found in environment_store(state_dir).finished()}
    rows = [(row.label, row.python or "-", _cost(row, built), ", ".join(row.models)) for row in plan.rows]
    print_table(console, ("environment", "python", "disk", "models"), rows)
    lines = [
        (
            "Models that clash with the shared environment:",
            [f"{m}: {'; '.join(why)}" for m, why in plan.clashes.items()],
        ),
        ("Environments that could be one:", plan.nearly_equal),
        ("Not covered:", [f"{model}: {item}" for model, items in plan.not_covered.items() for item in items]),
        ("Could not be read:", [f"{model}: {reason}" for model, reason in plan.errors.items()]),
    ]
    for title, items in lines:
        if items:
            say(console, f"\n{title}")
            for item in items:
                say(console, f"  {item}")


def _list(args: argparse.Namespace) -> int:
    console = new_console()
    state_dir = _state_dir(args, None)
    rows = []
    for found in environment_store(state_dir).finished():
        facts = found.facts
        python = str(facts.get("python", ""))
        what = ", ".join(facts.get("requirements", []))
        rescue = f" (with {facts['rescue']})" if facts.get("rescue") else ""
        rows.append((label_of(python, found.key), _size(found.path), _ago(found), f"{what}{rescue}"))
    for found in kit_store(state_dir).finished():
        rows.append(
            (f"kit {found.key}", _size(found.path), _ago(found), ", ".join(found.facts.get("requirements", [])))
        )
    if not rows:
        say(console, f"nothing is built in {state_dir}")
        return 0
    print_table(console, ("environment", "disk", "last used", "requirements"), rows)
    return 0


def _prune(args: argparse.Namespace) -> int:
    console = new_console()
    state_dir = _state_dir(args, None)
    try:
        seconds = parse_duration(args.unused_for)
    except ValueError as error:
        raise ConfigError(f"--unused-for: {error}") from None
    verb = "would remove" if args.dry_run else "removed"
    for store in (environment_store(state_dir), kit_store(state_dir)):
        sizes = {found.key: _size(found.path) for found in store.finished()}
        removed, in_use = store.prune(seconds, dry_run=args.dry_run)
        for found in removed:
            say(console, f"{verb} {found.path} ({sizes.get(found.key, '')})")
        for found in in_use:
            say(console, f"kept {found.path}: a process uses it")
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from ...config.load import load

    return load(args.file, flags=args.flags)


def _state_dir(args: argparse.Namespace, settings: Settings | None) -> Path:
    if args.state_dir is not None:
        return Path(os.path.expanduser(args.state_dir)).absolute()
    if settings is not None:
        return Path(settings.server.state_dir)
    from ...config.load import load_server

    return Path(load_server(flags=args.flags).state_dir)


def _cost(row: Row, built: dict[str, Finished]) -> str:
    if row.key == "shared" or row.spec is None:
        return "-"
    return _size(built[row.key].path) if row.key in built else "not built yet"


def _size(folder: Path) -> str:
    total, own = disk_use(folder)
    return f"{format_size(total)} ({format_size(own)} of its own)"


def _ago(found: Finished) -> str:
    return f"{format_duration(max(0.0, time.time() - found.last_used))} ago"
