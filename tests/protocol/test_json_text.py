"""JSON as other programs write it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol.errors import InvalidRequest
from modelhub.serving.protocol.json_text import load


@pytest.mark.parametrize("word", ["NaN", "nan", "NAN", "-nan", "-NaN"])
def test_what_writers_say_for_nan(word: str) -> None:
    found = load(b'{"a": [1, %s], "b": "%s"}' % (word.encode(), word.encode()))
    assert math.isnan(found["a"][1])
    assert found["b"] == word


@pytest.mark.parametrize("word", ["Infinity", "inf", "Inf", "INF", "+Infinity", "infinity"])
def test_what_writers_say_for_infinity(word: str) -> None:
    assert load(f"[{word}]".encode()) == [math.inf]
    assert load(f"[-{word.lstrip('+')}]".encode()) == [-math.inf]


@pytest.mark.parametrize("body", [b'{"a": 1}', b' {"a": 1}', b'{"a": NaN, "a": 1}'])
def test_a_byte_order_mark_says_nothing(body: bytes) -> None:
    assert load(b"\xef\xbb\xbf" + body) == {"a": 1}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[nano]", b"[1inf]", b"[NaN", b"[infinite]", b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf{}"),
        *(b'["\\ud800", NaN]', b"[\xff, NaN]", b"[" * 5000 + b"NaN", b"{NaN: 1}", b"[--inf]"),
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the body is not valid JSON"):
        load(body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_whatever_python_writes_is_read(value: Any) -> None:
    assert json.dumps(load(json.dumps(value).encode())) == json.dumps(value)
