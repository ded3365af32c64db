"""Files that somebody else wrote, the worst of them too."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol.errors import LoadError
from modelhub.serving.protocol.yaml_files import MAX_DEPTH, MAX_SIZE, MAX_VALUES, load_yaml


def bomb(first: str, form: str) -> str:
    """Thirty values, each of nine times the one before."""
    return f"a0: &a0 {first}\n" + "".join(f"a{i}: &a{i} {form % ', '.join([f'*a{i - 1}'] * 9)}\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 3000 + "]" * 3000, "values inside each other"),
        ("[" * 100_000, "values inside each other"),
        ("{a: " * 3000, "values inside each other"),
        (bomb("[x, x]", "[%s]"), "those behind aliases counted"),
        (bomb("{x: 1}", "{<<: [%s]}"), "those behind aliases counted"),
        ("a: &a {b: [*a]}", "the alias a contains itself"),
        ("*a", "undefined alias"),
        ("- x\n" * (MAX_VALUES + 1), "more than 100000 values"),
        ("#" * (MAX_SIZE + 1), "larger than 16 MiB"),
        (b"\xff\xfea\x00", "no UTF-8 text"),
        (b"a: \xc3(", "no UTF-8 text"),
        ("a: '\ud800'", "no UTF-8 text"),
        ("\x00", "not valid YAML"),
        ("a: 1\nb: }", r"not valid YAML \(line 2\)"),
        ("a\n---\nb", "another document"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("? [1]\n: 2", "unhashable key"),
        ("!!timestamp soon", "not valid YAML"),
        ("!!int ''", "not valid YAML"),
        ("!!bool maybe", "not valid YAML"),
        ("a: 2026-99-99", "month must be in 1"),
    ],
)
def test_what_is_refused(content: bytes | str, says: str) -> None:
    with pytest.raises(LoadError, match=says) as caught:
        load_yaml(content, "/m/conda.yaml")
    assert caught.value.message.startswith("/m/conda.yaml is ")


def test_what_is_just_within() -> None:
    assert load_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x")
    assert load_yaml("a: &a [1, 2]\nb: [*a, *a]\nc: &c 3\nd: *c", "x") == {
        "a": [1, 2],
        "b": [[1, 2], [1, 2]],
        "c": 3,
        "d": 3,
    }
    assert load_yaml(b"\xef\xbb\xbfa: \xc3\xa9", "x") == {"a": "é"}
    assert load_yaml("", "x") is None


def test_numbers_as_they_are_written() -> None:
    text = "a: 3.10\nb: true\nc: null\nd: 2020-01-01\ne: 010"
    assert load_yaml(text, "x", numbers=False) == {"a": "3.10", "b": True, "c": None, "d": "2020-01-01", "e": "010"}
    assert load_yaml(text, "x")["a"] == 3.1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_was_written_is_read(value: object) -> None:
    assert load_yaml(yaml.safe_dump(value), "x") == value


@given(st.binary(max_size=200) | st.text("[]{}:,&*a- \n!<'\"|>#%@", max_size=200))
def test_anything_is_a_value_or_an_error_of_ours(content: bytes | str) -> None:
    with contextlib.suppress(LoadError):
        load_yaml(content, "x")
