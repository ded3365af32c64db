"""conda packages that PyPI has too become requirements; the others are said, and said again when the model fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelhub.serving.gateway.environments.conda import read_dependencies
from modelhub.serving.gateway.environments.spec import read_spec
from modelhub.serving.gateway.environments.uv import Uv
from support.code_models import save_code_model
from support.env_parts import PYTHON, make_model
from support.gateway_process import Gateway
from support.quiet_mlflow import import_mlflow

UV = Uv()


@pytest.mark.parametrize(
    ("package", "requirement"),
    [
        ("scikit-learn=1.2.2", "scikit-learn==1.2.2.*"),
        ("scikit-learn==1.2.2", "scikit-learn==1.2.2"),
        ("scikit-learn=1.2.2=py39h6b3d4d6_1", "scikit-learn==1.2.2"),
        ("scikit-learn 1.2.2 py39_0", "scikit-learn==1.2.2"),
        ("conda-forge::numpy=1.24.*", "numpy==1.24.*"),
        ("numpy=1", "numpy==1.*"),
        ("numpy>=1.20,<2", "numpy<2,>=1.20"),
        ("Pandas", "pandas"),
        ("pytorch=2.1.0=py3.9_cuda11.8_cudnn8.7.0_0", "torch==2.1.0"),
        ("py-xgboost=1.7.6", "xgboost==1.7.6.*"),
        ("matplotlib-base =3.8", "matplotlib==3.8.*"),
        ("mlflow=2.9.2", "mlflow==2.9.2.*"),
        ("category_encoders=2.6", "category-encoders==2.6.*"),
    ],
)
def test_well_known_libraries_are_taken_from_pypi_at_that_version(package: str, requirement: str) -> None:
    found = read_dependencies(["python=3.9.16=h2782a2a_0", "pip", package])
    assert (list(found.packages.values()), found.others, found.python[:6]) == ([requirement], [], "3.9.16")


@pytest.mark.parametrize(
    "package", ["cudatoolkit=11.3", "r-base", "numpy=1.20|1.21", "numpy[version='>=1']", "libgomp", ""]
)
def test_others_are_not_guessed(package: str) -> None:
    found = read_dependencies([package])
    assert (found.packages, found.others) == ({}, [package])


CONDA = f"dependencies: [python={PYTHON}, scikit-learn=1.2.2, mlflow==9.0, tiny-of-conda=1, {{pip: [tiny==1.0.0]}}]\n"


def test_a_model_of_conda_packages_alone(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", conda_yaml=CONDA.replace(", {pip: [tiny==1.0.0]}", ""))
    (model / "python_env.yaml").unlink()
    (model / "requirements.txt").unlink()
    spec = read_spec(model, UV)
    assert [line.text for line in spec.requirements] == ["mlflow==9.0", "scikit-learn==1.2.2.*"]
    assert "tiny-of-conda=1" in spec.not_covered[0]


def test_what_pip_names_is_not_asked_for_twice(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", "scikit_learn==1.3\ntiny\n", conda_yaml=CONDA)
    assert [line.text for line in read_spec(model, UV).requirements] == ["mlflow==9.0", "scikit-learn==1.3", "tiny"]


def test_a_failed_load_says_what_of_conda_is_missing(gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    import_mlflow()
    source = """
    import mlflow
    class Own(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            import of_conda_alone
        def predict(self, context, model_input, params=None):
            return model_input
    """
    model = save_code_model(tmp_path / "m", source)
    text = (model / "conda.yaml").read_text()
    (model / "conda.yaml").write_text(text.replace("dependencies:\n", "dependencies:\n- of-conda-alone=1.2\n"))
    running = gateway({"models": [{"name": "m", "uri": str(model)}]})
    running.wait_log("No module named 'of_conda_alone' (conda.yaml: conda packages are not installed")
    warned = [line for line in running.log().splitlines() if '"level":"warning"' in line]
    assert any("of-conda-alone=1.2" in line for line in warned)
    reason = running.get(f"{running.admin_url}/status").json()["models"][0]["reason"]
    assert "of-conda-alone=1.2" in reason
