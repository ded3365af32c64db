"""conda.yaml of a model: its Python, its pip part, and the conda packages that PyPI has too, as requirements.

Environments are built with pip's packages alone. A well-known library has the same versions in both worlds and is taken
from PyPI at the version that conda.yaml names; what else there is (CUDA, R, system libraries) is said to be missing.
Called by `spec.py`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

#: Libraries of one name and one numbering in both.
_SAME_NAMES = """
    accelerate aiohttp arrow beautifulsoup4 bokeh boto3 botocore catboost category-encoders click cloudpickle cython
    dask databricks-sdk datasets dill distributed eli5 fastapi feature-engine flask fsspec gcsfs gensim gluonts
    google-cloud-storage h5py httpx huggingface-hub hyperopt imbalanced-learn jax jaxlib jinja2 joblib keras langchain
    lifelines lightgbm lime llvmlite lxml markdown matplotlib mlflow mlflow-skinny mlxtend networkx nltk numba numexpr
    numpy onnx onnxruntime openpyxl optuna orjson packaging pandas patsy pillow plotly pmdarima polars prophet protobuf
    psutil pyarrow pydantic pymongo pymysql pyspark python-dateutil pytorch-lightning pytz pyyaml regex requests s3fs
    safetensors scikit-image scikit-learn scikit-optimize scipy seaborn sentence-transformers sentencepiece shap six
    skl2onnx sktime spacy sqlalchemy statsmodels sympy tensorboard tensorflow tensorflow-cpu tensorflow-hub textblob
    threadpoolctl tokenizers torchaudio torchmetrics torchvision tqdm transformers typing-extensions ujson xgboost
"""
_SAME = frozenset(_SAME_NAMES.split())
#: conda's name -> PyPI's.
_RENAMED = {
    "faiss": "faiss-cpu",
    "faiss-cpu": "faiss-cpu",
    "h2o-py": "h2o",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "psycopg2": "psycopg2-binary",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "py-xgboost-gpu": "xgboost",
    "pytables": "tables",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "redis-py": "redis",
    "tensorflow-base": "tensorflow",
    "tensorflow-gpu": "tensorflow",
    "torchaudio-cpu": "torchaudio",
    "torchvision-cpu": "torchvision",
}
#: Every environment has these in its own way.
_TOOLS = frozenset({"pip", "python", "setuptools", "wheel"})
_PARTS = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)\s*(?P<version>[^\[]*)")
_SHOWN = 20


@dataclass
class Conda:
    """What conda.yaml says."""

    #: As it is written, "3.9.16"; "" where it says nothing.
    python: str = ""
    #: Lines of the pip part.
    pip: list[str] = field(default_factory=list)
    #: Requirements, by canonical name, for conda packages that PyPI has too.
    packages: dict[str, str] = field(default_factory=dict)
    #: The others, as they are written.
    others: list[str] = field(default_factory=list)

    def not_covered(self, file: str) -> str:
        """A sentence about the packages that cannot be had, for people; "" where there is none."""
        if not self.others:
            return ""
        more = f" and {len(self.others) - _SHOWN} more" if len(self.others) > _SHOWN else ""
        return (
            f"{file}: conda packages are not installed, except for well-known libraries that PyPI has too: "
            f"{', '.join(self.others[:_SHOWN])}{more} (name what the model needs under pip, or give it an environment "
            "of its own with `environment: <path>`)"
        )


def read_dependencies(dependencies: Iterable[Any]) -> Conda:
    """The `dependencies` of conda.yaml without its pip part, which is a mapping among them."""
    found = Conda()
    for item in dependencies:
        if isinstance(item, Mapping):
            continue
        package = str(item).split("::")[-1].strip()
        parts = _PARTS.fullmatch(package)
        name = canonicalize_name(parts["name"]) if parts else ""
        if name == "python" and parts:
            found.python = parts["version"].lstrip("=<>~! ").split(",")[0]
        if name in _TOOLS:
            continue
        requirement = _requirement(name, parts["version"].strip()) if parts else ""
        if requirement:
            found.packages.setdefault(canonicalize_name(Requirement(requirement).name), requirement)
        else:
            found.others.append(package)
    return found


def _requirement(name: str, version: str) -> str:
    """A conda package as pip would ask for it; "" where PyPI is not known to have it.

    conda's `=1.2` means any 1.2; `==1.2`, `1.2` and whatever has a build (`=1.2=py39_0`) mean that version.
    """
    known = name if name in _SAME else _RENAMED.get(name, "")
    if not known:
        return ""
    if version.startswith("=") and not version.startswith("=="):
        number, _, build = version[1:].partition("=")
        number = number.strip().removesuffix("*").rstrip(".")
        asked = f"=={number}" if build else f"=={number}.*"
    elif version[:1].isdigit():
        asked = f"=={version.split()[0]}"
    elif version.startswith("=="):
        asked = f"=={version[2:].partition('=')[0].strip()}"
    else:
        asked = version
    try:
        return str(Requirement(f"{known}{asked}"))
    except InvalidRequirement:
        return ""
