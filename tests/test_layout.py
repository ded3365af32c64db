"""The repository's shape: what is installed is what the folders hold, and nothing tells where it was made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINKED = ("config", "gateway", "protocol", "workers")
UV = Path(sys.executable).with_name("uv")
HOSTS = re.compile(r"pypi\.org|pythonhosted\.org|registry\.npmjs|npmjs\.org|deb\.debian\.org|download\.pytorch")
PLACES = re.compile(r"(?<![\w.$}])/(work|root)/[\w.]")
MAX_LINES = 400


def repository_files() -> list[str]:
    """Paths of what is committed or will be; without what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).exists()]


def text_files() -> dict[str, str]:
    texts = {}
    for name in repository_files():
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            try:
                texts[name] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
    return texts


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and an sdist, built from a copy of the repository's files."""
    copy = tmp_path_factory.mktemp("repository")
    for name in repository_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    command = [str(UV), "build", "--quiet", "--no-config", "--python", sys.executable, "--out-dir", str(copy / "dist")]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return copy / "dist"


def expected_modules() -> set[str]:
    """Every file that has to be installed, as its name below site-packages."""
    names = set()
    for name in repository_files():
        top, _, rest = name.partition("/")
        if top in LINKED and not name.endswith((".md", ".proto")):
            names.add(f"modelhub/serving/{top}/{rest}")
        if name.startswith("src/modelhub/") and not (ROOT / name).is_symlink():
            names.add(name.removeprefix("src/"))
    return names


def test_the_wheel_holds_the_folders_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected_modules()


def test_the_sdist_holds_the_folders(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if not member.isdir()}
    installed = {f"src/{name}" for name in expected_modules()}
    assert installed <= names
    assert {"pyproject.toml", "README.md"} <= names


@pytest.mark.parametrize("folder", LINKED)
def test_each_root_folder_is_a_package_below_modelhub_serving(folder: str) -> None:
    link = ROOT / "src/modelhub/serving" / folder
    assert link.is_symlink()
    assert os.readlink(link) == f"../../../{folder}"
    assert not (ROOT / "src/modelhub/__init__.py").exists(), "modelhub is a namespace package"


def test_no_file_names_a_registry_or_the_machine_it_was_written_on() -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in text_files().items()
        for number, line in enumerate(text.splitlines(), 1)
        if HOSTS.search(line) or PLACES.search(line)
    ]
    assert not found


def test_constraints_are_versions_without_addresses() -> None:
    files = [name for name in text_files() if re.fullmatch(r"constraints\.txt|tests/(clients|pythons)/.*\.txt", name)]
    assert "constraints.txt" in files
    for name in files:
        for line in text_files()[name].splitlines():
            assert re.match(r"[A-Za-z0-9_.-]+(\[[a-z0-9_,-]+\])?==[^/@]+$", line), f"{name}: {line}"


def test_no_python_file_is_too_long_to_read() -> None:
    long = {name: text.count("\n") for name, text in text_files().items() if name.endswith(".py")}
    assert {name: lines for name, lines in long.items() if lines > MAX_LINES} == {}
