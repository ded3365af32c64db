"""Finding an interpreter of the minor version that a model wants."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest

from modelhub.serving.gateway.environments.pythons import find_python, inspect_installed, inspect_python
from modelhub.serving.gateway.environments.uv import Uv
from modelhub.serving.protocol.errors import LoadError
from support.env_parts import PYTHON, make_uv, of_yesterday


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uv:
    """A machine with neither pyenv nor a Python that uv finds."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "no-pyenv"))
    return make_uv(tmp_path / "uv", "echo '[]'")


def fake_python(path: Path, version: str, kind: str = "CPython") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = f'PROBE{{"executable": "{path}", "version": "{version}", "kind": "{kind}"}}'
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


async def test_the_own_python_serves_its_minor_version(nothing: Uv) -> None:
    found = await find_python(PYTHON, pythons=[], uv=nothing)
    assert (found.path, found.version) == (Path(sys.executable), platform.python_version())


async def test_configured_pythons_come_first(nothing: Uv, tmp_path: Path) -> None:
    mine = fake_python(tmp_path / "mine" / "bin" / "python", f"{PYTHON}.99")
    found = await find_python(PYTHON, pythons=[tmp_path / "missing", tmp_path / "mine"], uv=nothing)
    assert (found.path, found.version) == (mine, f"{PYTHON}.99")


async def test_a_configured_folder_may_hold_several(nothing: Uv, tmp_path: Path) -> None:
    fake_python(tmp_path / "all" / "3.30.1" / "bin" / "python", "3.30.1")
    wanted = fake_python(tmp_path / "all" / "python3.31", "3.31.0")
    assert (await find_python("3.31", pythons=[tmp_path / "all"], uv=nothing)).path == wanted


async def test_pyenvs_newest_patch_is_taken(nothing: Uv, tmp_path: Path) -> None:
    for version in ("3.30.2", "3.30.10", "3.31.0"):
        fake_python(tmp_path / "no-pyenv" / "versions" / version / "bin" / "python", version)
    assert (await find_python("3.30", pythons=[], uv=nothing)).version == "3.30.10"


async def test_uvs_search_is_asked_last_and_its_warnings_do_no_harm(tmp_path: Path, nothing: Uv) -> None:
    path = fake_python(tmp_path / "python", "3.30.4")
    listed = f'[{{"path": "{path}", "version": "3.30.4", "implementation": "cpython"}}]'
    uv = make_uv(tmp_path / "uv", f"echo 'warning: [shim] {{}} leads nowhere' >&2; echo '{listed}'")
    assert (await find_python("3.30", pythons=[], uv=uv)).path == path


async def test_a_long_list_is_read_to_its_end(tmp_path: Path, nothing: Uv) -> None:
    """uv's, of many Pythons, and a Python's, of many distributions."""
    wanted = fake_python(tmp_path / "python", "3.30.4")
    others = [
        f'{{"path": "/opt/{"x" * 80}/{at}", "version": "3.29.{at}", "implementation": "cpython"}}' for at in range(99)
    ]
    listed = ", ".join([*others, f'{{"path": "{wanted}", "version": "3.30.4", "implementation": "cpython"}}'])
    (tmp_path / "list").write_text(f"[{listed}]")
    assert (await find_python("3.30", pythons=[], uv=make_uv(tmp_path / "uv", f"cat {tmp_path}/list"))).path == wanted
    names = ", ".join(f'"my-{at}-token": "1.{at}"' for at in range(500))
    facts = f'"version": "3.30.4", "kind": "CPython", "versions": {{{names}}}, "requires": {{}}, "path": []'
    script = f'PROBE{{"executable": "x", {facts}}}'
    many = tmp_path / "many"
    many.write_text(f"#!/bin/sh\necho '{script}'\n")
    many.chmod(0o755)
    _, installed = await inspect_installed(many)
    assert installed.version("my-499-token") == "1.499"


async def test_none_found_lists_those_that_there_are_and_the_setting(nothing: Uv, tmp_path: Path) -> None:
    other = fake_python(tmp_path / "python", "3.30.1")
    with pytest.raises(LoadError) as error:
        await find_python("3.7", pythons=[other, tmp_path / "missing"], uv=nothing)
    message = error.value.message
    assert "needs Python 3.7" in message
    assert f"3.30.1 ({other})" in message
    assert platform.python_version() in message
    assert f"{tmp_path / 'missing'} does not start" in message
    assert "server.pythons" in message


async def test_another_implementation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is PyPy; models are served by CPython only"):
        await inspect_python(fake_python(tmp_path / "pypy", "3.11.1", "PyPy"))


async def test_a_python_of_ones_own_that_is_too_old_is_refused_with_that_reason(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"is of Python 3\.7, and models are served on Python 3\.8 or newer"):
        await inspect_installed(fake_python(tmp_path / "old", "3.7.16"))
    assert (await inspect_python(fake_python(tmp_path / "older", "3.6.1"))).minor == "3.6"


async def test_distributions_of_a_python_are_listed() -> None:
    interpreter, installed = await inspect_installed(Path(sys.prefix))
    assert interpreter.version == installed.python_version == platform.python_version()
    assert installed.version("PyZMQ") is not None
    assert installed.version("no-such-distribution") is None
    assert any(line.startswith("pandas") for line in installed.requires("mlflow"))


async def test_an_environment_is_looked_at_again_only_when_something_in_it_has_changed(tmp_path: Path) -> None:
    site, calls = tmp_path / "site", tmp_path / "calls"
    site.mkdir()
    answer = {"executable": str(tmp_path / "python"), "version": f"{PYTHON}.9", "kind": "CPython", "path": [str(site)]}
    script = f"#!/bin/sh\necho . >> {calls}\necho 'PROBE{json.dumps({**answer, 'versions': {}, 'requires': {}})}'\n"
    (tmp_path / "python").write_text(script)
    (tmp_path / "python").chmod(0o755)
    of_yesterday(tmp_path)
    first = await inspect_installed(tmp_path / "python")
    assert await inspect_installed(tmp_path / "python") == first
    assert calls.read_text() == ".\n"
    (site / "tiny-1.0.dist-info").mkdir()
    await inspect_installed(tmp_path / "python")
    assert calls.read_text() == ".\n.\n"
