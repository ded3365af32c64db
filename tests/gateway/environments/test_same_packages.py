"""Lists of requirements that come to the same packages are one environment, and no others are; with real uv."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelhub.serving.gateway.environments.environments import Environment, Environments
from modelhub.serving.gateway.environments.resolve import read_packages
from modelhub.serving.gateway.environments.spec import read_spec
from modelhub.serving.gateway.environments.uv import Uv
from support.env_parts import make_model, make_uv, make_wheel, make_wheelhouse, offline

Make = Callable[..., Environments]
COUNTING = 'printf "%s " "$@" >> "$(dirname "$0")/calls"; echo >> "$(dirname "$0")/calls"; exec "$UV" "$@"'


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_wheelhouse(tmp_path / "wheels")
    make_wheel(folder, "needs_tiny", "1.0", {"needs_tiny.py": ""}, requires=["tiny<2"])
    for name, value in offline(folder, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
async def environments(tmp_path: Path, wheels: Path) -> Environments:
    return Environments(tmp_path / "state", report=lambda line: None, uv=make_uv(tmp_path / "uv", COUNTING))


async def of(environments: Environments, folder: Path, requirements: str) -> Environment:
    return await environments.ensure(make_model(folder, requirements), "isolated")


def builds(tmp_path: Path) -> int:
    return sum(line.startswith("venv ") for line in (tmp_path / "calls").read_text().splitlines())


async def test_ten_models_that_list_different_things_share_one_environment(
    environments: Environments, tmp_path: Path
) -> None:
    lists = [
        "mlflow==9.0\nneeds-tiny",
        "mlflow\nneeds_tiny==1.0",
        "mlflow==9.0\nneeds-tiny\ntiny",
        "mlflow\nneeds-tiny",
    ]
    lists += [f"mlflow>=8.{number}\ntiny==1.0.1\nneeds-tiny" for number in range(6)]
    found = await asyncio.gather(
        *(of(environments, tmp_path / f"m{number}", lines) for number, lines in enumerate(lists))
    )
    assert len({each.key for each in found}) == 1
    assert builds(tmp_path) == 1
    await environments.close()
    # known from then on, without asking uv, by another gateway that may not build
    again = Environments(tmp_path / "state", report=print, build="never", uv=make_uv(tmp_path / "no-uv", "exit 9"))
    assert await of(again, tmp_path / "again", lists[2]) == found[0]
    await again.close()


async def test_what_comes_to_other_packages_is_another_environment(environments: Environments, tmp_path: Path) -> None:
    lists = ("mlflow==9.0\ntiny==1.0.0", "mlflow==9.0\ntiny==1.0.1", "mlflow==9.0", "mlflow==9.0\ntiny")
    found = [await of(environments, tmp_path / f"m{number}", lines) for number, lines in enumerate(lists)]
    assert len({each.key for each in found}) == 4
    await environments.close()


@pytest.mark.parametrize(
    "line",
    [
        "tiny==2.0.0 --hash=sha256:{hash}",
        "{wheel}",
        "tiny @ file://{wheel}",
        "--no-binary tiny\ntiny==2.0.0",
        "--find-links {folder}\ntiny==2.0.0",
        "--pre\ntiny==2.0.0",
    ],
)
def test_what_versions_do_not_say_is_never_taken_for_the_same(tmp_path: Path, line: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    wheel = make_wheel(elsewhere, "tiny", "2.0.0", {"tiny.py": "VERSION = 'of another source'\n"})
    requirements = "mlflow==9.0\n" + line.format(wheel=wheel, folder=elsewhere, hash="0" * 64)
    spec = read_spec(make_model(tmp_path / "m", requirements), Uv())
    assert not spec.by_packages
    assert read_spec(make_model(tmp_path / "n", "mlflow==9.0\ntiny==2.0.0"), Uv()).by_packages


async def test_a_package_of_another_index_is_another_environment(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(wheels, elsewhere)
    keys = []
    for folder in (wheels, elsewhere):
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
        environments = Environments(tmp_path / "state", report=print)
        keys.append((await of(environments, tmp_path / folder.name / "m", f"mlflow\ntiny>={len(keys) + 1}")).key)
        await environments.close()
    assert keys[0] != keys[1]


async def test_an_environment_in_which_a_models_library_is_not_imported_is_not_its_own(
    environments: Environments, tmp_path: Path, wheels: Path
) -> None:
    """The packages are the same; what mends the import for one would never have been tried for the other."""
    make_wheel(wheels, "sklearn", "1.0", {"sklearn/__init__.py": "import pkg_resources\n"})
    make_wheel(wheels, "plain", "1.0", {"plain.py": ""}, requires=["sklearn", "setuptools"])
    model = make_model(tmp_path / "m", "mlflow==9.0\nplain==1.0")
    text = (model / "MLmodel").read_text()
    (model / "MLmodel").write_text(text.replace("  sklearn: {}\n", ""))
    first = await environments.ensure(model, "isolated")
    second = await of(environments, tmp_path / "n", "mlflow==9.0\nplain")
    assert first.key != second.key
    assert await environments.ensure(model, "isolated") == first
    await environments.close()


async def test_where_uv_cannot_say_the_requirements_themselves_are_the_key(tmp_path: Path, wheels: Path) -> None:
    script = 'case "$*" in *compile*) exit 2;; esac; exec "$UV" "$@"'
    environments = Environments(tmp_path / "state", report=print, uv=make_uv(tmp_path / "uv", script))
    model = make_model(tmp_path / "m", "mlflow==9.0\ntiny")
    spec = await asyncio.to_thread(read_spec, model, Uv())
    assert (await environments.ensure(model, "isolated")).key == spec.key
    await environments.close()


def test_packages_are_read_with_their_index_and_nothing_else_is() -> None:
    said = "b==2+cpu\n    # from https://user:secret@host/simple/\na-c==1.0\n    # from /wheels\n"
    assert read_packages(said) == [["a-c", "1.0", "/wheels"], ["b", "2+cpu", "https://host/simple"]]
    for line in ("a @ https://host/a.whl", "-e .", "a==1 ; sys_platform == 'linux'", "./a.whl", "oops"):
        assert read_packages(f"b==1\n{line}\n") == []
