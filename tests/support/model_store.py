"""The folder of saved fixture models, made once per version of the files that make them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

FIXTURES = Path(__file__).parent.parent / "fixtures"


def fixture_models(cache: Path) -> Path:
    """`cache`/<hash>, made if it is not there; two sessions at once are no problem, the first to be done wins."""
    folder = cache / _key()
    if not folder.exists():
        scratch = Path(tempfile.mkdtemp(dir=cache))
        command = [sys.executable, str(FIXTURES / "make_models.py"), str(scratch / "models")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"the fixture models could not be made:\n{done.stdout}{done.stderr}")
        try:
            (scratch / "models").rename(folder)
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _key() -> str:
    digest = hashlib.sha256()
    for file in sorted(FIXTURES.rglob("*.py")):
        digest.update(str(file.relative_to(FIXTURES)).encode() + b"\0" + file.read_bytes())
    for name in ("mlflow", "scikit-learn", "numpy", "pandas", "skops"):
        digest.update(f"{name}=={version(name)}".encode())
    digest.update(sys.version.encode())
    return digest.hexdigest()[:16]
