"""What JSON has no form for gets one, the same by every door."""

from __future__ import annotations

import collections
import datetime
import decimal
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.protocol.errors import ModelError
from modelhub.serving.workers.convert.outputs import to_outputs
from modelhub.serving.workers.dialects.invocations import dumps_predictions
from modelhub.serving.workers.dialects.kserve_v1 import V1Dialect
from modelhub.serving.workers.dialects.legacy import legacy_answer
from modelhub.serving.workers.model.call import Call
from support.files import keeping

DAY = datetime.timedelta(days=1, seconds=5)
SAID = "1 day, 0:00:05"
DURATIONS: dict[str, tuple[Any, Any]] = {
    "list": ([DAY], [SAID]),
    "object": ({"a": DAY}, {"a": SAID}),
    "array": (np.array([DAY], dtype="m8[ns]"), [SAID]),
    "array in an object": ({"a": np.array([DAY, "NaT"], dtype="m8[s]")}, {"a": [SAID, None]}),
    "numpy's own": ([{"a": np.timedelta64(86405, "s")}], [{"a": SAID}]),
    "series": (pd.Series([DAY]), [SAID]),
    "table": (pd.DataFrame({"a": [DAY, None]}), [{"a": SAID}, {"a": None}]),
}


@pytest.mark.parametrize("name", DURATIONS)
def test_durations_are_the_same_text_on_all_routes(mlflow_imported: None, name: str) -> None:
    result, said = DURATIONS[name]
    assert json.loads(bytes(legacy_answer(result).body))["data"] == said
    assert json.loads(dumps_predictions(result))["predictions"] == said
    predictions = json.loads(bytes(V1Dialect().encode(keeping()[0], Call("v1_predict", {}, {}, None), result).body))
    rows = [{"a": each} for each in said["a"]] if isinstance(said, dict) and isinstance(said["a"], list) else said
    assert predictions["predictions"] == ([rows] if isinstance(rows, dict) else rows)
    by_v2 = [text for each in to_outputs(result) for text in each.array.ravel().tolist()]
    assert all(SAID in text or text == "" for text in by_v2)


@pytest.mark.parametrize(
    ("result", "said"), [([decimal.Decimal("1.5")], [1.5]), ({"a"}, ["a"]), (collections.deque([1]), [1])]
)
def test_what_mlflows_json_does_not_know_is_as_on_the_other_routes(
    mlflow_imported: None, result: Any, said: Any
) -> None:
    assert json.loads(dumps_predictions(result)) == {"predictions": said}
    with pytest.raises(ModelError, match="object"):
        dumps_predictions([object()])
