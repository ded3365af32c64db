"""Environments with packages of a test's own: venvs that see the libraries of the tests' one."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path


def make_environment(folder: Path, files: Mapping[str, str]) -> Path:
    """A venv in whose site-packages these files are ({"pkg/__init__.py": "source"}), beside all that the tests have."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, stdin=subprocess.DEVNULL)
    site = site_packages(folder)
    # a .pth file in a folder that is named by another is not read: no editable installation comes along
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name, text in files.items():
        file = site / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def site_packages(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
