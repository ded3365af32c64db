"""Is a model row-wise by construction: does each row's prediction depend on that row alone?

True for estimators of the libraries below, all the way down, called by one of the methods below: a
pipeline with a step of the user's own, or `score` over all rows, is not. Called once per model, by
`batching.py`.
"""

from __future__ import annotations

from typing import Any, List

from ..model.served import Served

_PLATFORMS = frozenset({"mlflow_sklearn", "mlflow_xgboost", "mlflow_lightgbm", "mlflow_catboost"})
_LIBRARIES = frozenset({"sklearn", "xgboost", "lightgbm", "catboost"})
_METHODS = frozenset({"predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba", "decision_function"})
#: Where MLflow's wrappers of these flavours keep the library's own object.
_ATTRIBUTES = ("sklearn_model", "xgb_model", "lgb_model", "cb_model")


def is_row_wise(model: Served) -> bool:
    """Whether the flavour and everything in the model are known to be."""
    if model.platform not in _PLATFORMS:
        return False
    pyfunc = model.model
    implementation = getattr(pyfunc, "_PyFuncModel__model_impl", None) or getattr(pyfunc, "_model_impl", None)
    if getattr(getattr(pyfunc, "_predict_fn", None), "__name__", "") not in _METHODS:
        return False
    inner = next((getattr(implementation, name) for name in _ATTRIBUTES if hasattr(implementation, name)), None)
    return inner is not None and _known(inner)


def _known(estimator: Any) -> bool:
    """Is this object, and every estimator in its parameters, one of the libraries'?"""
    waiting: List[Any] = [estimator]
    seen: List[int] = []
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.append(id(each))
        if isinstance(each, (list, tuple)):
            waiting.extend(each)
        elif isinstance(each, dict):
            waiting.extend(each.values())
        elif _is_estimator(each):
            if type(each).__module__.partition(".")[0] not in _LIBRARIES:
                return False
            if type(each).__name__ == "FunctionTransformer" and each.func is not None:
                return False
            if hasattr(each, "get_params"):
                waiting.extend(each.get_params(deep=False).values())
    return True


def _is_estimator(value: Any) -> bool:
    return any(hasattr(value, name) for name in ("predict", "transform", "fit")) and not isinstance(value, type)
