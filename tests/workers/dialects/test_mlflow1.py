"""Bodies of MLflow 1 told apart from those of MLflow 2; tests/pythons serves a model of MLflow 1 itself."""

from __future__ import annotations

from typing import Any

import pytest

from modelhub.serving.protocol.errors import NotSupported
from modelhub.serving.workers.dialects.mlflow1 import as_mlflow2, check_params

RECORDS = [{"a": 1}, {"a": 2}]
SPLIT = {"columns": ["a"], "data": [[1], [2]]}


@pytest.mark.parametrize(
    ("body", "read", "old"),
    [
        (RECORDS, {"dataframe_records": RECORDS}, True),
        (SPLIT, {"dataframe_split": SPLIT}, True),
        ({**SPLIT, "index": [0, 1]}, {"dataframe_split": {**SPLIT, "index": [0, 1]}}, True),
        ({"data": [[1]]}, {"dataframe_split": {"data": [[1]]}}, True),
        ({"dataframe_split": SPLIT}, {"dataframe_split": SPLIT}, False),
        ({"instances": [1]}, {"instances": [1]}, False),
        ({"data": [[1]], "params": {}}, {"data": [[1]], "params": {}}, False),
        ("text", "text", False),
    ],
)
def test_bodies(body: Any, read: Any, old: bool) -> None:
    assert as_mlflow2(body) == (read, old)


class Old:
    def predict(self, data: Any) -> Any:
        return data


class New:
    def predict(self, data: Any, params: Any = None) -> Any:
        return data


def test_parameters_are_refused_where_mlflow_knows_none(mlflow_imported: None) -> None:
    with pytest.raises(NotSupported, match="knows no parameters"):
        check_params(Old(), {"k": 1})
    check_params(Old(), {})
    check_params(New(), {"k": 1})
