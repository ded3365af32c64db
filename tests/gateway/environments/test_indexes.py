"""Packages come from the index that has them, and never from another one that has their name: real indexes, real uv.

`ours` is a package of the private index whose name somebody has taken on the public one, with a higher version.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelhub.serving.gateway.environments.environments import Environments
from modelhub.serving.gateway.environments.spec import read_spec
from modelhub.serving.gateway.environments.uv import Uv
from modelhub.serving.protocol.errors import LoadError
from support.env_parts import index, make_model, make_wheel, make_wheelhouse, offline

LONG_AGO = "2024-01-01T00:00:00Z"
PASSWORD = "s3cr3t-of-ours"


@dataclass
class Indexes:
    """Addresses without credentials, and what is needed to make an environment of them."""

    public: str
    private: str
    folder: Path

    def url(self, password: str = PASSWORD) -> str:
        return f"http://reader:{password}@{self.private}"

    def build(
        self, requirements: str, settings: Mapping[str, str] | None = None, **files: str
    ) -> tuple[str, list[str]]:
        """Which index `ours` came from ("-" if it is not there), and what was reported. Raises LoadError."""
        number = sum(path.name.startswith("model-") for path in self.folder.iterdir())
        model = make_model(self.folder / f"model-{number}", f"mlflow==9.0\n{requirements}", **files)
        uv = Uv(environ=self.settings(settings))
        lines: list[str] = []

        async def main() -> Path:
            environments = Environments(self.folder / "state", report=lines.append, variables=["TOKEN_OF_OURS"], uv=uv)
            try:
                return (await environments.ensure(model, "isolated")).python
            finally:
                await environments.close()

        code = "import importlib.util as u; print(__import__('ours').OF if u.find_spec('ours') else '-')"
        return subprocess.check_output([asyncio.run(main()), "-c", code], text=True).strip(), lines

    def settings(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = offline(self.folder / "none", self.folder / "cache")
        del own["PIP_NO_INDEX"], own["PIP_FIND_LINKS"]
        return {**own, "UV_DEFAULT_INDEX": f"http://{self.public}", **(more or {})}


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[Indexes]:
    public, private = tmp_path / "public", tmp_path / "private"
    make_wheelhouse(public)
    private.mkdir()
    for version in ("1.0", "9.0"):
        make_wheel(public, "ours", version, {"ours.py": "OF = 'public'\n"})
    make_wheel(public, "tree", "1.0", {"tree.py": ""}, ["ours"])
    make_wheel(private, "ours", "1.0", {"ours.py": "OF = 'private'\n"})
    make_wheel(private, "tiny", "1.0.0", {"tiny.py": ""})
    with ExitStack() as stack:
        addresses = [
            stack.enter_context(index([(path, LONG_AGO) for path in folder.glob("*.whl")], password=password))
            for folder, password in ((public, ""), (private, PASSWORD))
        ]
        yield Indexes(*addresses, tmp_path)


REFUSED = r"(?s)could not be built.*http://127\.0\.0\.1:\d+/simple.*401 Unauthorized"
WRONG = ("http://reader:wr0ng-one@{}", "http://{}")


@pytest.mark.parametrize("url", WRONG, ids=["wrong", "none"])
@pytest.mark.parametrize("requirement", ["ours", "ours==1.0", "ours>=9", "tree"])
def test_an_index_that_refuses_ends_the_build(indexes: Indexes, url: str, requirement: str) -> None:
    with pytest.raises(LoadError, match=REFUSED) as caught:
        indexes.build(f"--extra-index-url {url.format(indexes.private)}\n{requirement}\n")
    assert indexes.private in caught.value.message
    assert "wr0ng-one" not in caught.value.message


@pytest.mark.parametrize("setting", ["UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"])
def test_an_index_of_the_settings_that_refuses_too(indexes: Indexes, setting: str) -> None:
    with pytest.raises(LoadError, match=REFUSED):
        indexes.build("ours\n", {setting: f"http://reader:wr0ng-one@{indexes.private}"})


def test_one_that_refuses_is_asked_before_another_may_stand_in(indexes: Indexes) -> None:
    """`tiny` 2.0.0 is not on the second index: with all of them tried, uv would pass over the one that refuses."""
    with index([], password="other") as third:
        lines = f"--extra-index-url {indexes.url()}\n--extra-index-url http://reader:wr0ng-one@{third}\n"
        with pytest.raises(LoadError, match=REFUSED) as caught:
            indexes.build(f"{lines}tiny==2.0.0\n")
    assert third in caught.value.message


def test_a_mended_token_is_not_answered_from_the_cache(indexes: Indexes) -> None:
    line = "--extra-index-url http://reader:${TOKEN_OF_OURS}@" + indexes.private + "\nours\n"
    for _ in range(2):
        with pytest.raises(LoadError, match=REFUSED):
            indexes.build(line, {"TOKEN_OF_OURS": "wr0ng-one"})
        assert indexes.build(line, {"TOKEN_OF_OURS": PASSWORD})[0] == "private"
        line = line.replace("ours\n", "ours==1.0\n")


@pytest.mark.parametrize("requirement", ["ours", "ours>0.5", "tree"])
def test_the_added_index_comes_first(indexes: Indexes, requirement: str) -> None:
    assert indexes.build(f"--extra-index-url {indexes.url()}\n{requirement}\n")[0] == "private"


def test_credentials_of_a_named_index(indexes: Indexes) -> None:
    own = {"UV_INDEX_CORP_USERNAME": "reader", "UV_INDEX_CORP_PASSWORD": PASSWORD}
    assert indexes.build("ours\n", {"UV_INDEX": f"corp=http://{indexes.private}", **own})[0] == "private"


def test_a_version_that_the_first_index_lacks_comes_from_another_and_the_rest_does_not(indexes: Indexes) -> None:
    """As pip found them: `tiny` 2.0.0 is on the public index only, and `ours` stays the private one."""
    came_from, lines = indexes.build(f"--extra-index-url {indexes.url()}\ntiny==2.0.0\nours\n")
    assert came_from == "private"
    assert any("trying the versions of all indexes" in line for line in lines)


def test_a_strategy_that_somebody_has_set_stands(indexes: Indexes) -> None:
    best = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    assert indexes.build(f"--extra-index-url {indexes.url()}\nours\n", best)[0] == "public"


def test_what_no_index_has_is_said_as_before(indexes: Indexes) -> None:
    with pytest.raises(LoadError, match=r"(?s)no version of tiny==7"):
        indexes.build(f"--extra-index-url {indexes.url()}\ntiny==7\n")


@pytest.mark.parametrize(
    ("requirement", "hint"),
    [
        ("torch==2.4.1+cpu", "PyTorch's own index of cpu builds"),
        ("torchvision==0.19.1+cu121", "PyTorch's own index of cu121 builds"),
        ("torch==2.4.1+rocm6.1", "own index of rocm6.1 builds"),
        ("ours==1.0+corp.3", "name the index that it came from"),
    ],
)
def test_a_version_that_only_another_index_has_gets_a_hint_at_it(indexes: Indexes, requirement: str, hint: str) -> None:
    with pytest.raises(LoadError) as caught:
        indexes.build(f"{requirement}\n")
    assert hint in caught.value.message


# ---- uv.lock ---------------------------------------------------------------------------------------

PROJECT = """
[project]
name = "p"
version = "1"
requires-python = ">=3.9"
dependencies = [{wanted}]
[[tool.uv.index]]
name = "corp"
url = "http://{private}"
explicit = true
[tool.uv.sources]
ours = {{ index = "corp" }}
"""
CORP = {"UV_INDEX_CORP_USERNAME": "reader", "UV_INDEX_CORP_PASSWORD": PASSWORD}


def locked(indexes: Indexes, wanted: str) -> dict[str, str]:
    """A project's pyproject.toml and the uv.lock that uv makes of it, as files of `make_model`."""
    folder = indexes.folder / "project"
    folder.mkdir()
    text = PROJECT.format(wanted=wanted, private=indexes.private)
    (folder / "pyproject.toml").write_text(text)
    uv = Uv(environ=indexes.settings(CORP))
    command = [str(uv.binary), "lock", "--quiet"]
    subprocess.run(command, cwd=folder, env=uv.environment(), check=True, stdin=subprocess.DEVNULL)
    return {"pyproject_toml": text, "uv_lock": (folder / "uv.lock").read_text()}


@pytest.mark.parametrize("requirements", ["ours==1.0\n", "tree\nours\n", "tree\n"])
def test_uv_lock_says_where_a_package_comes_from(indexes: Indexes, requirements: str) -> None:
    files = locked(indexes, '"tree", "ours"')
    assert indexes.build(requirements, CORP, **files)[0] == "private"
    with pytest.raises(LoadError, match=REFUSED):
        indexes.build(f"{requirements}tiny\n", {**CORP, "UV_INDEX_CORP_PASSWORD": "wr0ng-one"}, **files)


def test_the_projects_own_default_index_counts_unless_the_gateway_has_one(indexes: Indexes) -> None:
    files = locked(indexes, '"tiny"')
    model = make_model(indexes.folder / "m", "tiny\n", **files)
    settings = indexes.settings()
    assert read_spec(model, Uv(environ=settings)).sources == ()
    default = f'[[tool.uv.index]]\nname = "usual"\nurl = "http://{indexes.public}"\ndefault = true\n'
    (model / "pyproject.toml").write_text(files["pyproject_toml"] + default)
    assert read_spec(model, Uv(environ={**settings, "UV_DEFAULT_INDEX": "http://mirror.example"})).sources == ()
    del settings["UV_DEFAULT_INDEX"]
    (source,) = read_spec(model, Uv(environ=settings)).sources
    assert (source.package, source.index, source.url) == ("tiny", "usual", f"http://{indexes.public}")
