"""Category columns of LightGBM and XGBoost, which no request and no MLflow signature can name.

A model that was fitted on a table with pandas' categories takes nothing else, but MLflow's signature says that such a
column holds texts or numbers, and so it comes to `predict` as that. The booster knows which columns they are:

    LightGBM      `pandas_categorical`, the categories of each, in the order of its categorical features
    XGBoost 3.1+  `feature_types`; it keeps the categories, and finds them again whatever their order. MLflow makes a
                  DMatrix without categories for a Booster, so this is done here.

So such columns become categories again on their way in; what the model was not fitted with is missing there, as in
these libraries. Where that cannot be done it is said when the model is loaded.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

#: Of each column that is a category: all of them in their order, or None where those of the request do.
Categories = Dict[str, Optional[List[Any]]]

_WRAPPED = ("lgb_model", "xgb_model", "sklearn_model")


def restore_categories(model: Any) -> None:
    """Let this loaded pyfunc model make its category columns again, if it has any."""
    inner = getattr(model, "_model_impl", None)
    predict = getattr(model, "_predict_fn", None)
    wrapped = next((getattr(inner, name) for name in _WRAPPED if hasattr(inner, name)), None)
    if wrapped is None or predict is None:
        return
    try:
        categories, why_not = _categories_of(wrapped)
    except Exception as error:
        categories, why_not = {}, f"{type(error).__name__}: {error}"
    if why_not:
        print(f"the model has columns of categories that cannot be made again: {why_not}", file=sys.stderr)
    if not categories:
        return

    answers = _of_booster(wrapped, predict) if _is_xgboosts(wrapped) else predict

    @functools.wraps(predict)
    def with_categories(data: Any, *args: Any, **kwargs: Any) -> Any:
        return answers(_restored(data, categories), *args, **kwargs)

    model._predict_fn = with_categories


def _of_booster(booster: Any, predict: Callable[..., Any]) -> Callable[..., Any]:
    """`predict` of MLflow for this Booster of XGBoost, with the categories of tables."""
    known = inspect.signature(booster.predict).parameters

    def predict_with_categories(data: Any, params: Optional[Dict[str, Any]] = None) -> Any:
        if not hasattr(data, "columns"):
            return predict(data, params=params)
        import xgboost

        options = {name: value for name, value in (params or {}).items() if name in known}
        return booster.predict(xgboost.DMatrix(data, enable_categorical=True), **options)

    return predict_with_categories


def _restored(data: Any, categories: Categories) -> Any:
    if not hasattr(data, "columns"):
        return data
    import pandas as pd

    found = {
        name: pd.Categorical(_known(data[name], known), categories=known)
        for name, known in categories.items()
        if name in data.columns and not isinstance(data[name].dtype, pd.CategoricalDtype)
    }
    return data.assign(**found) if found else data


def _known(column: Any, known: Optional[List[Any]]) -> Any:
    """The values that are categories; a newer pandas takes no others."""
    return column if known is None else column.astype(object).where(column.isin(known), None)


def _categories_of(wrapped: Any) -> Tuple[Categories, str]:
    """The categories of an estimator or a booster, and why they cannot be had."""
    if hasattr(wrapped, "get_booster"):
        return _of_xgboost(wrapped.get_booster())
    if _is_xgboosts(wrapped):
        return _of_xgboost(wrapped)
    booster = getattr(wrapped, "booster_", wrapped)
    return _of_lightgbm(booster) if hasattr(booster, "pandas_categorical") else ({}, "")


def _of_lightgbm(booster: Any) -> Tuple[Categories, str]:
    known: List[List[Any]] = booster.pandas_categorical or []
    if not known:
        return {}, ""
    names = booster.feature_name()
    said = booster.params.get("categorical_feature") or booster.params.get("categorical_column") or []
    if isinstance(said, str):
        said = [int(each) for each in said.split(",") if each.strip().isdigit()]
    places = sorted(names.index(each) if isinstance(each, str) else each for each in said)
    columns = [names[each] for each in places]  # as LightGBM pairs them: in the order of the table
    if len(columns) != len(known):
        return {}, f"LightGBM knows {len(known)} of them and says of {len(columns)} columns that they are such"
    return dict(zip(columns, known)), ""


def _is_xgboosts(wrapped: Any) -> bool:
    """Is this a Booster of XGBoost?"""
    return all(hasattr(wrapped, name) for name in ("feature_types", "feature_names", "predict")) and not hasattr(
        wrapped, "get_booster"
    )


def _of_xgboost(booster: Any) -> Tuple[Categories, str]:
    names, types = booster.feature_names or [], booster.feature_types or []
    columns = [name for name, kind in zip(names, types) if kind == "c"]
    if not columns:
        return {}, ""
    listed = ", ".join(columns[:20])
    if not hasattr(booster, "get_categories"):
        return {}, f"{listed}: XGBoost before 3.1 does not keep categories; send their codes"
    return dict.fromkeys(columns, None), ""
