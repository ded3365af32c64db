"""Models from code: a source file whose class `Own` is saved as MLflow saves one, in this process."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from .quiet_mlflow import import_mlflow, quiet


def save_code_model(folder: Path, source: str, **options: Any) -> Path:
    """Save the model of this source, which defines a class `Own`; returns its folder."""
    import_mlflow()
    import mlflow.pyfunc

    folder.parent.mkdir(parents=True, exist_ok=True)
    code = folder.with_suffix(".py")
    code.write_text(f"{textwrap.dedent(source)}\nimport mlflow\nmlflow.models.set_model(Own())\n")
    with quiet():
        mlflow.pyfunc.save_model(folder, python_model=code, **{"pip_requirements": ["mlflow"], **options})
    return folder
