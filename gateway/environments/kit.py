"""The kit: the few libraries that our worker code needs, as a folder beside a model's environment.

Installed once per Python minor version and appended LAST to a worker's `sys.path`, so that the model's own versions
win and nothing of ours is installed into its environment. Called by `Environments`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...protocol.errors import LoadError
from .indexes import install
from .pythons import Interpreter
from .spec import MACHINE
from .uv import Uv, UvFailed

#: Lower bounds only: an old Python gets the newest release that still has a wheel for it.
KIT_REQUIREMENTS = ("msgpack>=1.0.5", "orjson>=3.9", "pillow>=10", "pdf2image>=1.16", "pypdfium2>=4")


def kit_key(minor: str) -> str:
    """The folder's name in `kits/`: "3.9-0a1b2c3d4e"."""
    content = json.dumps([KIT_REQUIREMENTS, MACHINE])
    return f"{minor}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


async def build_kit(python: Interpreter, folder: Path, uv: Uv, report: Callable[[str], None]) -> dict[str, Any]:
    """Install the kit for that Python into `folder`. Wheels only. Raises LoadError with uv's own message."""
    report(f"kit for Python {python.minor}: installing {len(KIT_REQUIREMENTS)} libraries for the worker's own use")
    arguments = ["pip", "install", "--target", str(folder), "--python", str(python.path), "--no-python-downloads"]
    try:
        arguments += ["--only-binary", ":all:", *uv.index_flags(), *KIT_REQUIREMENTS]
        await install(uv, arguments, cwd=folder.parent, probe="msgpack", report=report)
    except UvFailed as error:
        wanted = ", ".join(KIT_REQUIREMENTS)
        raise LoadError(
            f"the kit for Python {python.minor} ({wanted}) could not be installed. uv said, {error}"
        ) from None
    return {"python": python.minor, "requirements": list(KIT_REQUIREMENTS)}
