"""A pyfunc model's own code called as pyfunc calls it, without the checks that our decoding has already made.

`PyFuncModel.predict` compares the data with the signature, asks `inspect` what the model's function takes,
and only then calls it. Where the arrays have exactly the signature's names, order, dtypes and shapes its
checks return the data as they are, and the answers to the other questions never change: they are asked once
here. `direct_predict` gives None for whatever is not familiar - other classes than PyFuncModel, type hints,
columns of nested types, a newer mlflow whose `predict` does more - and `served.py` calls pyfunc then.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, FrozenSet, List, Optional, Tuple

from ...protocol.datatypes import DATATYPES
from ...protocol.signature import Field, Signature
from ..convert.inputs import fits

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def _words(text: str) -> FrozenSet[str]:
    return frozenset(text.split())


#: All that PyFuncModel.predict and _predict of the versions 2.9 to 3.17 speak of. More means: not familiar.
_PREDICT_NAMES = _words(
    "MLFLOW_OPENAI_RETRIES_ENABLED _MLFLOW_TESTING openai_auto_retry_patch mlflow.openai.retry sys modules Exception "
    "_enforce_schema _validate_params _try_get_prediction_context Context set_prediction_context model_id update "
    "_get_dependencies_schema_from_model _model_meta _predict metadata get_input_schema input_schema params_schema "
    "get_params_schema _is_signature_from_type_hint _enforce_params_schema _validate_prediction_input loader_module "
    "isinstance pandas DataFrame _is_type_hint_from_example input_example _convert_dataframe_to_example_format "
    "inspect signature _predict_fn parameters get kind Parameter VAR_KEYWORD _logger "
    "_log_warning_if_params_not_in_predict_signature"
)
#: The same of _PythonModelPyfuncWrapper.predict.
_WRAPPER_NAMES = _words(
    "inspect signature python_model predict parameters get context _convert_input _logger "
    "_log_warning_if_params_not_in_predict_signature _is_context_in_predict_function_signature"
)
#: Column types that numpy calls otherwise, and the dtypes that pyfunc passes on as they are.
_COLUMNS = {"string": "O", "binary": "O", "datetime": "datetime64[ns]"}

Predict = Callable[[Any, Optional[Dict[str, Any]]], Any]


class DirectPredict:
    """The shorter way into one model; `accepts` says for which inputs it is the same."""

    def __init__(self, fields: List[Field], predict: Predict, enforce: Optional[Callable[[Any], Any]]) -> None:
        """`enforce`: params to what the model is given, with the schema's defaults; None: it has no params schema."""
        import numpy as np

        self._predict = predict
        self._enforce = enforce
        self._wanted: List[Tuple[str, Any, Tuple[int, ...], bool]] = []
        for each in fields:
            column = _COLUMNS.get(each.type) if each.kind == "column" else None
            dtype = np.dtype(column or DATATYPES[each.datatype].numpy)
            self._wanted.append((each.name, dtype, each.shape, each.required))

    def accepts(self, inputs: Dict[str, Array]) -> bool:
        """Do these arrays have the signature's names, in its order, and its dtypes and shapes?"""
        given = list(inputs.items())
        at = 0
        for name, dtype, shape, required in self._wanted:
            if at == len(given) or given[at][0] != name:
                if required:
                    return False
                continue
            array = given[at][1]
            if array.dtype != dtype or not fits(array.shape, shape):
                return False
            at += 1
        return at == len(given)

    def __call__(self, data: Any, params: Dict[str, Any]) -> Any:
        """What `PyFuncModel.predict(data, params=params)` returns for accepted inputs."""
        if self._enforce is not None:
            return self._predict(data, self._enforce(params))
        return self._predict(data, None)


def direct_predict(model: Any, signature: Signature) -> Optional[DirectPredict]:
    """The direct way into this loaded model, if it is one that is understood."""
    pyfunc = sys.modules.get("mlflow.pyfunc")
    if pyfunc is None or type(model) is not getattr(pyfunc, "PyFuncModel", None):
        return None
    try:
        return _direct(model, signature)
    except (AttributeError, ImportError, TypeError, ValueError):
        return None  # an mlflow that is built otherwise


def _direct(model: Any, signature: Signature) -> Optional[DirectPredict]:
    from mlflow.models import utils

    if not _is_familiar(model, signature):
        return None
    schema = model.metadata.get_params_schema()
    if (schema is None) != (not signature.params):
        return None
    enforce = utils._enforce_params_schema if schema is not None else None
    takes_params = inspect.signature(model._predict_fn).parameters.get("params")
    if takes_params is not None and takes_params.kind is inspect.Parameter.VAR_KEYWORD:
        return None
    if takes_params is None and schema is not None:
        return None  # pyfunc warns of each request's
    inner = _python_model(model) if takes_params is not None else None
    if inner is None:
        function = model._predict_fn
        inner = (lambda data, params: function(data, params=params)) if takes_params is not None else _first(function)
    context = _context(model)
    return DirectPredict(
        signature.inputs,
        inner if context is None else _within(context, inner),
        None if enforce is None else lambda params: enforce(params, schema),
    )


def _is_familiar(model: Any, signature: Signature) -> bool:
    """Does pyfunc do with this model's inputs nothing but what is known here?"""
    cls, metadata = type(model), model.metadata
    names = _names(cls.predict) | (_names(cls._predict) if hasattr(cls, "_predict") else frozenset())
    hinted = [getattr(metadata, name, None) for name in ("_is_signature_from_type_hint", "_is_type_hint_from_example")]
    if not names <= _PREDICT_NAMES or any(asked is not None and asked() for asked in hinted):
        return False
    if "openai_auto_retry_patch" in names and "openai" in sys.modules:
        return False
    return metadata.get_input_schema() is not None and all(_passes_unchanged(each) for each in signature.inputs)


def _passes_unchanged(each: Field) -> bool:
    import numpy as np

    if each.kind == "column":
        return not each.holds_json
    return each.datatype not in ("BYTES", "BF16") and np.dtype(each.type) == np.dtype(DATATYPES[each.datatype].numpy)


def _names(function: Any) -> FrozenSet[str]:
    return frozenset(function.__code__.co_names)


def _first(function: Callable[[Any], Any]) -> Predict:
    return lambda data, params: function(data)


def _within(context: Callable[[], ContextManager[Any]], predict: Predict) -> Predict:
    def call(data: Any, params: Optional[Dict[str, Any]]) -> Any:
        with context():
            return predict(data, params)

    return call


def _python_model(model: Any) -> Optional[Predict]:
    """Past the wrapper of a PythonModel, which asks `inspect` again; None for other flavours."""
    from mlflow.pyfunc import model as pyfunc_model

    wrapper: Any = getattr(model._predict_fn, "__self__", None)
    cls: Any = getattr(pyfunc_model, "_PythonModelPyfuncWrapper", None)
    if cls is None or type(wrapper) is not cls or model._predict_fn.__name__ != "predict":
        return None
    if not _names(cls.predict) <= _WRAPPER_NAMES:
        return None
    python_model, convert, context = wrapper.python_model, wrapper._convert_input, wrapper.context
    parameters = inspect.signature(python_model.predict).parameters
    takes_context = getattr(pyfunc_model, "_is_context_in_predict_function_signature", None)
    with_context = takes_context is None or takes_context(parameters=parameters)
    if "params" not in parameters:
        if with_context:
            return lambda data, params: python_model.predict(context, convert(data))
        return lambda data, params: python_model.predict(convert(data))
    if with_context:
        return lambda data, params: python_model.predict(context, convert(data), params=params)
    return lambda data, params: python_model.predict(convert(data), params=params)


def _context(model: Any) -> Optional[Callable[[], ContextManager[Any]]]:
    """What makes the context that traces of this model belong to; None in an mlflow that has none."""
    if "set_prediction_context" not in _names(type(model).predict):
        return None
    from mlflow.models import dependencies_schemas
    from mlflow.pyfunc import context

    known = dependencies_schemas._get_dependencies_schema_from_model(model._model_meta) or {}
    if model.model_id:
        known["model_id"] = model.model_id
    return lambda: context.set_prediction_context(context.Context(**known))
