"""Is what is installed exactly what a model was logged with?"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from modelhub.serving.gateway.environments.installed import ListedInstalled, OwnInstalled, unmet
from modelhub.serving.gateway.environments.spec import read_spec
from modelhub.serving.gateway.environments.uv import Uv
from support.env_parts import make_model

HERE = ListedInstalled(
    "3.11.7",
    {"scikit-learn": "1.9.1", "Pandas": "3.1.1", "torch": "2.1.0+cpu", "beta": "2.0rc1", "mlflow": "3.17.2"},
    {"mlflow": ["boto3; extra == 'extras'", "pandas<4; extra == 'extras'", "flask"]},
)
UV = Uv()


@pytest.mark.parametrize(
    ("requirements", "reasons"),
    [
        ("scikit-learn==1.9.1", []),
        ("scikit_learn==1.9.1\npandas<4,>=3", []),
        ("scikit-learn==1.2.2", ["scikit-learn==1.2.2, here 1.9.1"]),
        ("scikit-learn==1.2.2\npandas==1.5.3", ["pandas==1.5.3, here 3.1.1", "scikit-learn==1.2.2, here 1.9.1"]),
        ("scikit-learn~=1.9.0", []),
        ("scikit-learn==1.9.*", []),
        ("scikit-learn!=1.9.1", ["scikit-learn!=1.9.1, here 1.9.1"]),
        ("scikit-learn===1.9.1", []),
        ("pandas", []),
        ("missing", ["missing, not installed here"]),
        ("torch==2.1.0", []),
        ("torch==2.1.0+cpu", []),
        ("torch==2.1.0+cu118", ["torch==2.1.0+cu118, here 2.1.0+cpu"]),
        ("beta>=2.0rc1", []),
        ("missing; python_version < '3.11'", []),
        ("missing; sys_platform == 'nowhere'", []),
        ("missing; python_version >= '3.11'", ["missing, not installed here"]),
        ("missing; extra == 'x'", []),
        ("mlflow[extras]==3.17.2", ["boto3, not installed here (for mlflow[extras])"]),
        ("mlflow[nothing]==3.17.2", []),
        (
            "pandas==3.1.1 --hash=sha256:00",
            ["pandas==3.1.1 has hashes, which cannot be compared with what is installed"],
        ),
        (
            "--extra-index-url https://u:secret@example.org\npandas",
            ["the pip option --extra-index-url https://***@example.org"],
        ),
        ("--pre\npandas", ["the pip option --prerelease allow"]),
        ("pandas @ https://t0ken@example.org/p.whl", ["pandas @ https://***@example.org/p.whl is a URL or a path"]),
        ("git+https://example.org/pandas", ["git+https://example.org/pandas is a URL or a path"]),
        ("pandas\n-c constraints.txt", ["scikit-learn<1.3 (a constraint), here 1.9.1"]),
    ],
)
def test_reasons(tmp_path: Path, requirements: str, reasons: list[str]) -> None:
    model = make_model(tmp_path / "m", requirements, python="3.11", constraints_txt="scikit-learn<1.3\nmissing<2\n")
    assert unmet(read_spec(model, UV), HERE) == reasons


@pytest.mark.parametrize("python", ["3.9", "3.12", "3.1"])
def test_another_minor_version_of_python_is_a_reason(tmp_path: Path, python: str) -> None:
    spec = read_spec(make_model(tmp_path / "m", "pandas", python=python), UV)
    assert unmet(spec, HERE) == [f"Python {python}, here 3.11"]


def test_the_own_environment_meets_what_it_has(tmp_path: Path) -> None:
    """Real distributions of this Python, found without importing any."""
    version = importlib.metadata.version("mlflow")
    own = ".".join(platform.python_version_tuple()[:2])
    spec = read_spec(make_model(tmp_path / "m", f"mlflow=={version}\npyzmq\n", python=own), UV)
    assert unmet(spec, OwnInstalled()) == []
    spec = read_spec(make_model(tmp_path / "n", "mlflow==0.0.1\nno-such-distribution\n", python=own), UV)
    assert unmet(spec, OwnInstalled()) == [
        f"mlflow==0.0.1, here {version}",
        "no-such-distribution, not installed here",
    ]


def test_comparing_imports_none_of_what_it_compares(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", "mlflow\nnumpy\npandas\n", python=".".join(platform.python_version_tuple()[:2]))
    code = (
        "import sys; from pathlib import Path; from modelhub.serving.gateway.environments import environments as e;"
        f"spec = e.Specs(e.Uv()).read(Path({str(model)!r})); assert e.unmet(spec, e.OwnInstalled()) == [];"
        "print({'mlflow', 'numpy', 'pandas', 'rich', 'packaging'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    assert done.stdout == "{'packaging'}\n"
