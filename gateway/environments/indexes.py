"""Which package index a package is taken from, where there are several.

Whoever adds an index of their own to the public one keeps packages there whose names anybody may take on the public
one. So a package is taken from the first index that has its name, the added ones first, as uv does by itself; an index
that refuses the credentials ends the build. pip knows no order: a model's environment may have been resolved by it with
versions of several indexes for one name. So where nothing fits, the versions of all indexes are tried, those of the
first one first, provided that none of them refuses.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from .requirements import RequirementLine
from .uv import Uv, UvFailed

#: Local versions of PyTorch's own builds.
_PYTORCH = re.compile(r"cpu|cu\d+|rocm[\d.]+|xpu")
_NO_SOLUTION = "No solution found when resolving"
#: As uv says it of an index.
_REFUSED = re.compile(r"\b(401 Unauthorized|403 Forbidden|lack of valid authentication credentials)")
_EXTRA = "--extra-index-url"
_ADDED = ("UV_INDEX", "UV_EXTRA_INDEX_URL")
_ALL_INDEXES = ("--index-strategy", "unsafe-first-match")


async def install(
    uv: Uv,
    arguments: Sequence[str],
    *,
    cwd: Path,
    options: Iterable[str] = (),
    secrets: Iterable[str] = (),
    probe: str,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Run `uv pip install` with these arguments. Raises UvFailed, which names an index that refused.

    `options`: the pip options of the requirements file; `secrets`: what must not be seen of its output; `probe`: the
    name of a package to ask an index for.
    """
    options, secrets = list(options), list(secrets)
    try:
        await uv.run(*arguments, cwd=cwd, secrets=secrets)
        return
    except UvFailed as error:
        if _NO_SOLUTION not in error.said or _REFUSED.search(error.said):
            raise
        environment = await asyncio.to_thread(uv.environment)
        added = _added(environment, options)
        if not added or environment.get("UV_INDEX_STRATEGY"):
            raise  # whoever has set that has chosen
    for line, settings in added:
        await _ask(uv, line, settings, probe, cwd, secrets)
    report("no version fits of the first index that has each package: trying the versions of all indexes")
    await uv.run(*arguments, *_ALL_INDEXES, cwd=cwd, secrets=secrets)


def _added(environment: Mapping[str, str], options: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    """The indexes beside the default one, each as a line of a requirements file or as settings of uv's own."""
    found: list[tuple[str, dict[str, str]]] = [(option, {}) for option in options if option.startswith(_EXTRA)]
    for name in _ADDED:
        found.extend(("", {name: value}) for value in environment.get(name, "").split())
    return found


async def _ask(uv: Uv, line: str, settings: dict[str, str], name: str, cwd: Path, secrets: Sequence[str]) -> None:
    """Ask one index for a package: trying all indexes, uv would pass over one that refuses. Raises UvFailed then."""
    scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="modelhub-index-"))
    file = scratch / "probe.in"
    try:
        await asyncio.to_thread(file.write_text, f"{line}\n{name}\n")
        settings = {**dict.fromkeys(_ADDED, ""), **settings}
        arguments = ("pip", "compile", "--no-deps", "--quiet", "--no-python-downloads", "--python", sys.executable)
        await uv.run(*arguments, str(file), cwd=cwd, secrets=secrets, settings=settings)
    except UvFailed as error:
        if _REFUSED.search(error.said):
            raise
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


def missing_index(requirements: Iterable[RequirementLine], said: str) -> str:
    """A sentence about the first package of which uv said that it is not there, where its version tells of an index of
    its own (`torch==2.4.1+cpu`); "" for none."""
    for line in requirements:
        specifiers = list(line.requirement.specifier) if line.requirement is not None else []
        local = specifiers[0].version.partition("+")[2] if len(specifiers) == 1 else ""
        if not local or line.name not in said:
            continue
        if _PYTORCH.fullmatch(local):
            return (
                f"{line.requirement} is not on PyPI but on PyTorch's own index of {local} builds, whose address stands "
                "in the install command that pytorch.org shows for them: add it as a line `--extra-index-url …` to the "
                "model's requirements.txt, or set UV_INDEX to it for the gateway. "
            )
        return (
            f"{line.requirement} is no version of PyPI, which has none with a +: name the index that it came from by a "
            "line `--extra-index-url` of the model's requirements.txt, or by UV_INDEX for the gateway. "
        )
    return ""
