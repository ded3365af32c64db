"""What a model's requirements come to: the packages that uv would install, with their versions and their indexes.

Lists of requirements that differ, and come to the same, are one environment. Asked before it is built; an answer takes
a second, and uv keeps what it has fetched for that.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...protocol.redaction import without_userinfo
from .pythons import Interpreter
from .spec import EnvironmentSpec
from .uv import Uv, UvFailed
from .variables import expanded

_PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>\S+)")
_FROM = re.compile(r"\s+# from (?P<index>.+)")


async def resolve(spec: EnvironmentSpec, python: Interpreter, uv: Uv, variables: Mapping[str, str]) -> str:
    """A hash of the packages; "" where that is not all of the environment, or uv cannot tell.

    `variables`: as for `build_environment`, which says in full why something cannot be had.
    """
    if not spec.by_packages:
        return ""
    scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="modelhub-resolve-"))
    try:
        files = {"requirements.in": spec.requirements, "constraints.in": spec.constraints}
        for name, lines in files.items():
            text = "\n".join([*expanded([line.install for line in lines], variables), ""])
            await asyncio.to_thread((scratch / name).write_text, text)
        arguments = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--emit-index-annotation"]
        arguments += ["--no-python-downloads", "--python", str(python.path), *uv.index_flags()]
        arguments += ["requirements.in", "-c", "constraints.in"]
        said = await uv.run(*arguments, cwd=scratch, secrets=variables.values(), whole=True)
    except UvFailed:
        return ""
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
    packages = read_packages(said)
    return hashlib.sha256(json.dumps(packages).encode()).hexdigest() if packages else ""


def read_packages(said: str) -> list[list[str]]:
    """[name, version, index] of each line that uv prints; [] where a line is anything else: a URL, a path, a marker."""
    found: list[list[str]] = []
    for line in said.splitlines():
        package, source = _PACKAGE.fullmatch(line), _FROM.fullmatch(line)
        if package is not None:
            found.append([package["name"], package["version"], ""])
        elif source is not None and found and not found[-1][2]:
            found[-1][2] = without_userinfo(source["index"]).rstrip("/")
        elif line.strip():
            return []
    return sorted(found)
