"""The command `modelhub`: serve, check, schema, status, reload, env.

Only argparse is imported at the top: what a command needs is imported when it runs, so that `--help`
answers at once. Settings are not listed here: every `--server.…` and `--defaults.…` goes to
`config.load()` as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...protocol.errors import ConfigError, ServingError

if TYPE_CHECKING:
    from ..artifacts.fetcher import Resolved
    from .client import Address

_SETTINGS = ("--server.", "--defaults.")
_EPILOG = (
    "Every key of the sections server and defaults is a flag, --server.port 9000, and an environment variable, "
    "MODELHUB_SERVER_PORT=9000. 'modelhub schema --markdown' prints all of them with what they mean."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a failure, 2 for a mistake of the user, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from ..telemetry.stderr import ensure_streams

        ensure_streams()
    try:
        rest, flags = split_settings(arguments)
        parser = _parser(rest)
        args, unknown = parser.parse_known_args(rest, argparse.Namespace(flags=flags))
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown)}")
        command: Callable[[argparse.Namespace], int] = args.func
        return command(args)
    except ConfigError as error:
        print(error.message, file=sys.stderr)
        return 2
    except ServingError as error:
        print(f"modelhub: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # of `modelhub schema | head`; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def split_settings(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments without settings, and the settings as `{"server.port": "9000"}`; the last of two wins."""
    rest: list[str] = []
    flags: dict[str, str] = {}
    pending = iter(arguments)
    for argument in pending:
        if argument == "--":
            return [*rest, argument, *pending], flags
        if not argument.startswith(_SETTINGS):
            rest.append(argument)
            continue
        name, equals, value = argument.partition("=")
        if not equals:
            following = next(pending, None)
            if following is None or following.startswith(_SETTINGS):
                raise ConfigError(f"{name}: needs a value: {name} VALUE or {name}=VALUE")
            value = following
        flags[name.removeprefix("--")] = value
    return rest, flags


def _meant(unknown: Sequence[str]) -> str:
    """What to write for a setting that came without its section: --port is --server.port."""
    from ...config.overrides import settable

    words = {each.removeprefix("--").partition("=")[0].replace("-", "_") for each in unknown if each.startswith("--")}
    meant = [f"--{'.'.join(path)}" for path in settable() if words & {path[-1], "_".join(path[1:])}]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelhub", description="Serve many MLflow models from one port.", epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str, **more: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False, **more
        )
        command.set_defaults(func=run)
        return command

    serve = add("serve", _serve, "serve the models of a configuration, or one model", epilog=_EPILOG)
    serve.add_argument(
        "target",
        nargs="?",
        metavar="CONFIG|MODEL",
        help="a YAML file; or a model: a folder with an MLmodel file, or a URI such as runs:/<id>/model. "
        "Without it, the model of MODEL_URI, or of MODEL_NAME_REGISTRY and MODEL_VERSION. "
        "One model alone is called default-model, or what MODEL_NAME says",
    )

    check = add("check", _check, "say what is wrong with a configuration", epilog=_EPILOG)
    check.add_argument("file", metavar="FILE", help="a YAML file")
    check.add_argument("--resolve", action="store_true", help="also ask whether every URI exists, and at which version")

    schema = add("schema", _schema, "print the JSON Schema of configuration files")
    schema.add_argument(
        "--markdown", action="store_true", help="the same for people: every key, its default, its meaning"
    )

    status = add("status", _status, "show the models of a running gateway")
    status.add_argument(
        "address", nargs="?", metavar="URL", help="the gateway's address; else the newest one running here"
    )
    status.add_argument("--url", help="the same")
    status.add_argument("--json", action="store_true", help="print the gateway's answer as it is")

    reload = add("reload", _reload, "have a running gateway read its configuration again")
    reload.add_argument(
        "address", nargs="?", metavar="URL", help="the gateway's (admin) address; else the newest one running here"
    )
    reload.add_argument("--url", help="the same")

    if arguments[:1] == ["env"]:
        from .env import add_parser

        add_parser(commands)
    else:
        commands.add_parser("env", help="build, list, prune and plan the Python environments of models")
    return parser


class _Version(argparse.Action):
    """Prints the version; looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"modelhub-serving {version('modelhub-serving')}")
        parser.exit()


def _serve(args: argparse.Namespace) -> int:
    from ..system import hangup

    hangup.remember()
    from ...config.load import load

    settings = load(args.target, flags=args.flags)
    from ..server import run

    return run(settings, settings.warnings, read_again=lambda: load(args.target, flags=args.flags))


def _check(args: argparse.Namespace) -> int:
    from ...config.load import load

    settings = load(args.file, flags=args.flags, strict_paths=True)
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    models, groups = sum(1 for _ in settings.entries), len(settings.groups)
    counted = f"{models} model{'s' * (models != 1)}" + (f", {groups} group{'s' * (groups != 1)}" if groups else "")
    print(f"{args.file}: valid, {counted}")
    if not args.resolve:
        return 0
    from ..artifacts.resolve import resolve_all
    from ..system.surroundings import settle

    settle(os.environ, settings.server.state_dir)
    resolved = resolve_all(settings)
    _print_resolved(resolved)
    return 1 if any(one.error for one in resolved) else 0


def _print_resolved(resolved: Sequence[Resolved]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ...protocol.redaction import masked

    table = Table("model", "version", "uri", "found at", box=None, header_style="bold", pad_edge=False)
    for one in resolved:
        found = Text(f"error: {one.error}", style="red") if one.error else Text(one.source or "")
        table.add_row(Text(one.name), Text(one.version or "-"), Text(masked(one.uri)), found)
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def _schema(args: argparse.Namespace) -> int:
    import json

    from ...config.reference import markdown
    from ...config.settings import json_schema

    if args.markdown:
        print(markdown(), end="")
        return 0
    print(json.dumps(json_schema(), indent=2))
    return 0


def _status(args: argparse.Namespace) -> int:
    import json

    from .client import fetch_status

    address = _gateway(args)
    status = fetch_status(address)
    if args.json:
        print(json.dumps(status, indent=2))
        return 0
    from .status import show

    show(status, address.url)
    return 0


def _reload(args: argparse.Namespace) -> int:
    from .client import reload

    print(reload(_gateway(args)))
    return 0


def _gateway(args: argparse.Namespace) -> Address:
    """The address that was given, else that of the newest gateway that runs here; and its token."""
    from .client import find_gateway

    return find_gateway(args.flags, args.address if args.address is not None else args.url)
