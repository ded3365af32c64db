"""The names of `modelhub.serving`: which there are, how light they are, and what another `modelhub` in the way does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import modelhub.serving

NAMES = {
    *("ModelServer", "ModelServiceGroup", "AsyncExecutor"),
    *("ModelhubModelService", "AutoModelPredictor", "ImageModelService", "TextModelService", "TabularModelService"),
    *("ServingError", "InvalidRequest", "NotFound", "TooLarge", "UnsupportedMediaType", "QueueFull", "ModelError"),
    *("NotSupported", "NotReady", "WorkerLost", "DeadlineExceeded", "Cancelled", "ConfigError", "LoadError"),
    *("WireError", "Unauthenticated", "Forbidden"),
}


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**{name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}, **env},
    )


def test_the_list() -> None:
    assert set(modelhub.serving.__all__) == NAMES
    for name in NAMES:
        value = getattr(modelhub.serving, name)
        assert value.__name__ == name
        assert value.__doc__
    assert set(dir(modelhub.serving)) >= NAMES
    assert not hasattr(modelhub.serving, "Modelserver")


def test_every_error_is_public() -> None:
    from modelhub.serving.protocol.errors import BY_CODE

    assert {error.__name__ for error in BY_CODE.values()} <= NAMES


def test_names_are_light() -> None:
    done = run(
        "import sys\n"
        "from modelhub.serving import *\n"
        "print(sorted({'mlflow', 'numpy', 'pandas', 'aiohttp', 'pydantic', 'zmq', 'PIL'} & sys.modules.keys()))"
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_services_limit_threads_unless_numpy_is_there() -> None:
    show = "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    assert run(f"from modelhub.serving import ModelServer; {show}").stdout.strip() == "1"
    assert run(f"import numpy; from modelhub.serving import ModelServer; {show}").stdout.strip() == "None"
    assert run(f"from modelhub.serving import ModelServer; {show}", OMP_NUM_THREADS="3").stdout.strip() == "3"
    for line in (
        "import modelhub.serving",
        "from modelhub.serving import AsyncExecutor",
        "import modelhub.serving, numpy",
    ):
        assert run(f"{line}; {show}").stdout.strip() == "1"
    assert run(f"import numpy, modelhub.serving; {show}").stdout.strip() == "None"


def test_another_package_in_the_way_is_named(tmp_path: Path) -> None:
    """An old SDK's regular package, installed into the same place as ours."""
    package = tmp_path / "modelhub"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "serving").symlink_to(Path(modelhub.serving.__file__).parent)
    info = tmp_path / "old_sdk-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: old-sdk\nVersion: 1.0\n")
    (info / "RECORD").write_text("modelhub/__init__.py,,\nold_sdk-1.0.dist-info/METADATA,,\n")
    done = run("import modelhub.serving", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "pip uninstall old-sdk" in done.stderr
