"""Category columns are made again by what the booster says of them; tests/flavours asks real ones."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.workers.load.categories import restore_categories


class Booster:
    """As LightGBM's, fitted on numbers x, and on categories of city and of code."""

    def __init__(self, known: Any, features: Any) -> None:
        self.pandas_categorical, self.params = known, {"categorical_feature": features}

    def feature_name(self) -> list[str]:
        return ["x", "city", "code"]


class Xgb:
    feature_names, feature_types = ["x", "city"], ["float", "c"]

    def get_categories(self) -> None: ...


class OldXgb:
    feature_names, feature_types = ["x", "city"], ["float", "c"]

    def predict(self, data: Any) -> Any: ...


class Estimator:
    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def get_booster(self) -> Any:
        return self._booster


class Loaded:
    """As a PyFuncModel: gives back what its model is called with."""

    def __init__(self, **inner: Any) -> None:
        self._model_impl = type("Impl", (), inner)()
        self._predict_fn: Any = lambda data, params=None: data


FRAME = pd.DataFrame({"x": [0.5, 1.0], "city": ["oslo", "paris"], "code": [20, 10]})
KNOWN = [["oslo", "rome"], [10, 20]]


@pytest.mark.parametrize("features", [[1, 2], [2, 1], "1,2", ["city", "code"]])
def test_lightgbms_categories_in_its_order(features: Any) -> None:
    model = Loaded(lgb_model=Booster(KNOWN, features))
    restore_categories(model)
    got = model._predict_fn(FRAME)
    assert [list(got[name].cat.categories) for name in ("city", "code")] == KNOWN
    assert got["city"].cat.codes.tolist() == [0, -1]  # as LightGBM: what it was not fitted with is missing
    assert (got["code"].tolist(), got["x"].dtype) == ([20, 10], np.dtype("float64"))
    assert FRAME["city"].tolist() == ["oslo", "paris"]


def test_xgboosts_are_found_again_by_itself() -> None:
    model = Loaded(xgb_model=Estimator(Xgb()))
    restore_categories(model)
    got = model._predict_fn(FRAME, params=None)
    assert (str(got["city"].dtype), got["city"].tolist(), got["code"].tolist()) == (
        "category",
        ["oslo", "paris"],
        [20, 10],
    )


def test_a_booster_of_xgboost_is_given_a_matrix_with_categories(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow makes one without."""

    class Booster(Xgb):
        def predict(self, data: Any, *, output_margin: bool = False) -> Any:
            return data, output_margin

    matrix = types.SimpleNamespace(DMatrix=lambda data, enable_categorical: (data, enable_categorical))
    monkeypatch.setitem(sys.modules, "xgboost", matrix)
    model = Loaded(xgb_model=Booster())
    restore_categories(model)
    (got, with_categories), margin = model._predict_fn(FRAME, params={"output_margin": True, "other": 1})
    assert (str(got["city"].dtype), with_categories, margin) == ("category", True, True)
    assert model._predict_fn("text") == "text"


def test_categories_that_come_as_such_and_other_data_stay() -> None:
    model = Loaded(lgb_model=Booster(KNOWN, [1, 2]))
    restore_categories(model)
    given = FRAME.astype({"city": "category", "code": "category"})
    assert model._predict_fn(given) is given
    assert model._predict_fn("text") == "text"


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ({"xgb_model": Estimator(OldXgb())}, "city: XGBoost before 3.1 does not keep categories"),
        ({"xgb_model": OldXgb()}, "city: XGBoost before 3.1 does not keep categories"),
        ({"lgb_model": Booster(KNOWN, [0, 1, 2])}, "LightGBM knows 2 of them and says of 3 columns"),
        ({"lgb_model": Booster(KNOWN, 5)}, "TypeError"),
    ],
)
def test_what_cannot_be_made_again_is_said_at_load(
    inner: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Loaded(**inner)
    predict = model._predict_fn
    restore_categories(model)
    assert said in capsys.readouterr().err
    assert model._predict_fn is predict


def test_models_without_categories_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for model in (Loaded(lgb_model=Booster(None, [])), Loaded(sklearn_model=object()), Loaded()):
        predict = model._predict_fn
        restore_categories(model)
        assert model._predict_fn is predict
    assert not capsys.readouterr().err
