"""`python -m modelhub.serving.server`: one model, named by the environment or by arguments.

    MODEL_URI=runs:/<id>/model python -m modelhub.serving.server
    MODEL_NAME_REGISTRY=my-model MODEL_VERSION=2 python -m modelhub.serving.server
    python -m modelhub.serving.server --model_name my-model --run runs:/<id>/model --model_type pyfunc

Settings are flags (`--server.port 9000`) and variables (PORT, LOG_LEVEL, MODELHUB_SERVER_…) as for
`modelhub serve`, which also takes configuration files.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .gateway.cli.main import split_settings
from .protocol.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns the exit code: 2 for a mistake in the arguments or the variables."""
    try:
        rest, flags = split_settings(list(sys.argv[1:] if argv is None else argv))
        args = _parser().parse_args(rest)
        environ = dict(os.environ)
        if args.model_name:
            environ["MODEL_NAME"] = args.model_name
        if args.model_type:
            flags.setdefault("defaults.model_type", args.model_type)
        from .config.load import load

        settings = load(args.run, flags=flags, environ=environ)
        from .gateway.server import run

        return run(settings, settings.warnings)
    except ConfigError as error:
        print(error.message, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modelhub.serving.server",
        description="Serve one MLflow model: that of --run, of MODEL_URI, or of MODEL_NAME_REGISTRY and MODEL_VERSION.",
        allow_abbrev=False,
    )
    parser.add_argument("--model_name", "--model-name", help="the name in the routes (MODEL_NAME, default-model)")
    parser.add_argument("--run", help="runs:/<id>/model, models:/<name>/<version>, another MLflow URI or a folder")
    parser.add_argument("--model_type", "--model-type", help="pyfunc (default), sklearn or transformer")
    return parser


if __name__ == "__main__":
    sys.exit(main())
