"""Answers in ModelHub's own form: what a handler returns, and data of any library."""

from __future__ import annotations

import base64
import datetime
import decimal
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from modelhub.serving.protocol.errors import ModelError
from modelhub.serving.workers.convert.plain import dumps
from modelhub.serving.workers.dialects.legacy import legacy_answer
from modelhub.serving.workers.model.served import ServedModel
from support.files import form, image_file, pdf_file, send

Served = Callable[[str], ServedModel]


def test_what_a_handler_returns_in_this_form_is_passed_on() -> None:
    answer = legacy_answer({"statusCode": 200, "data": 1, "took": 2})
    assert (answer.status, json.loads(bytes(answer.body))) == (0, {"statusCode": 200, "data": 1, "took": 2})
    answer = legacy_answer({"statusCode": 400, "message": "Missing text input"})
    expected = {"statusCode": 400, "message": "Missing text input", "error": "Missing text input"}
    assert (answer.status, json.loads(bytes(answer.body))) == (400, expected)
    answer = legacy_answer({"statusCode": "503", "message": "later", "error": {"code": 7}})
    assert (answer.status, json.loads(bytes(answer.body))["error"]) == (503, {"code": 7})
    assert legacy_answer({"statusCode": 201}).status == 201
    answer = legacy_answer({"statusCode": 204, "data": "x"})
    assert (answer.status, answer.body) == (204, b"")


@pytest.mark.parametrize("status", [None, "ok", 0, 99, 600, [200], float("inf")])
def test_a_status_that_is_none(status: Any) -> None:
    with pytest.raises(ModelError, match="statusCode must be an HTTP status"):
        legacy_answer({"statusCode": status})


@dataclass
class Point:
    x: Any


class Eager:
    """As TensorFlow's tensors: no list by itself."""

    dtype = "float32"

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array([[0.1, 2.5]], dtype="f4")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.1), 0.1),
        (Eager(), [[0.1, 2.5]]),
        ({"a": Eager(), "b": [Eager()]}, {"a": [[0.1, 2.5]], "b": [[[0.1, 2.5]]]}),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.arange(4).reshape(2, 2).T, [[0, 2], [1, 3]]),
        (np.array([0.5], dtype="float16"), [0.5]),
        (np.array([1.5, np.nan, np.inf]), [1.5, None, None]),
        (np.array(["a", 1, None], dtype=object), ["a", 1, None]),
        (np.array(["a"]), ["a"]),
        (np.array(["2024-01-31", "NaT"], dtype="datetime64[D]"), ["2024-01-31", None]),
        (np.timedelta64(5, "s"), "0:00:05"),
        (pd.DataFrame({"a": [1, 2], 3: ["x", None]}), [{"a": 1, "3": "x"}, {"a": 2, "3": None}]),
        (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])), None),
        (pd.Series([1, 2], name="s"), [1, 2]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Timestamp("2024-01-31T12:00:00"), "2024-01-31T12:00:00"),
        (pd.Series(pd.to_datetime(["2024-01-31", None])), None),
        (pd.Series(pd.to_datetime(["2024-01-31T12:00", None])), ["2024-01-31T12:00:00", None]),
        (pd.Series(pd.to_datetime(["2024-01-31T12:00"], utc=True)), ["2024-01-31T12:00:00+00:00"]),
        (pd.Series(pd.PeriodIndex(["2024-01"], freq="M")), ["2024-01"]),
        (pd.Series(pd.interval_range(0, 1)), ["(0, 1]"]),
        (np.array([[0.5, 1.5]]).view(np.matrix), [[0.5, 1.5]]),
        (np.ma.array([0.5, 1.5], mask=[False, True]), [0.5, None]),
        (np.array([0.5, np.nan], dtype=np.longdouble), [0.5, None]),
        (np.longdouble(0.5), 0.5),
        (pd.NaT, None),
        (pd.NA, None),
        (datetime.date(2024, 1, 31), "2024-01-31"),
        (datetime.time(12, 30), "12:30:00"),
        (datetime.timedelta(seconds=90), "0:01:30"),
        (decimal.Decimal("1.25"), 1.25),
        (b"\x89PNG", base64.b64encode(b"\x89PNG").decode()),
        ({1: {"a"}, "b": (1, 2), "r": range(2)}, {"1": ["a"], "b": [1, 2], "r": [0, 1]}),
        ({"a": 1}.keys(), ["a"]),
        ((each for each in "ab"), ["a", "b"]),
        (Point(np.int64(3)), {"x": 3}),
        (SimpleNamespace(model_dump=lambda: {"x": 1}), {"x": 1}),
        (1 + 2j, "(1+2j)"),
        (None, None),
    ],
)
def test_data_of_any_library(value: Any, expected: Any) -> None:
    found = json.loads(bytes(legacy_answer(value).body))["data"]
    if isinstance(value, pd.DataFrame) and expected is None:
        assert found == [{"('a', 'b')": 1, "('a', 'c')": 2}]
    elif expected is None and isinstance(value, pd.Series):
        assert [str(each)[:10] for each in found] == ["2024-01-31", "None"]
    elif isinstance(expected, float):
        assert found == pytest.approx(expected)
    else:
        assert found == expected


def test_arrays_in_a_file(tmp_path: Path) -> None:
    array = np.memmap(tmp_path / "array", "f8", "w+", shape=(2,))
    array[:] = 0.5, 1.5
    assert json.loads(dumps(array)) == [0.5, 1.5]


def test_images_in_an_answer_are_png() -> None:
    found = json.loads(dumps({"mask": Image.new("L", (3, 2), 7)}))["mask"]
    with Image.open(io.BytesIO(base64.b64decode(found))) as image:
        assert (image.size, image.getpixel((0, 0))) == ((3, 2), 7)


def test_what_cannot_be_sent_is_the_models_error() -> None:
    with pytest.raises(ModelError, match=r"cannot be sent as JSON.*object"):
        dumps(object())
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ModelError):
        dumps(loop)


# ---- uploads of all sorts, to one model ----------------------------------------------------------


def test_every_way_to_send_an_image(served: Served) -> None:
    raw = image_file("PNG", (8, 8), "white")
    encoded = base64.b64encode(raw).decode()
    body, content_type = form(("file", raw, "a.png", "image/png"))
    for each, media in (
        (raw, "application/octet-stream"),
        (raw, "image/png"),
        (raw, "application/x-www-form-urlencoded"),
        (body, content_type),
        ({"image": encoded}, "application/json"),
        ({"image": f"data:image/png;base64,{encoded}"}, ""),
        ({"images": [encoded]}, "application/json"),
    ):
        status, answer = send(served("digits"), each, media)
        assert status == 200, answer
        assert len(answer["data"]) == 1
    assert len(send(served("digits"), pdf_file("white", "black"), "application/pdf")[1]["data"]) == 2
