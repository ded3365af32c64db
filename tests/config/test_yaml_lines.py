"""YAML with lines: where keys stand, what scalars mean, what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.config.yaml_lines import parse
from modelhub.serving.protocol.errors import ConfigError


def test_every_key_has_its_line() -> None:
    document = parse("a: 1\n\nb:\n  - c: 2\n    d:\n      e: 3\n  - {f: 4, g: 5}\n", "file")
    assert document.value == {"a": 1, "b": [{"c": 2, "d": {"e": 3}}, {"f": 4, "g": 5}]}
    assert document.lines == {
        ("a",): 1,
        ("b",): 3,
        ("b", 0): 4,
        ("b", 0, "c"): 4,
        ("b", 0, "d"): 5,
        ("b", 0, "d", "e"): 6,
        ("b", 1): 7,
        ("b", 1, "f"): 7,
        ("b", 1, "g"): 7,
    }
    assert document.line(("b", 0, "absent")) == 4
    assert document.line(("absent",)) == 1


def test_only_true_and_false_are_booleans_and_dates_are_text() -> None:
    text = "[off, on, yes, no, n, true, False, 2024-01-01, 1:30, 010, 1_000, 1.5, 1e3, ~, null, '', '5', 0x10]"
    assert parse(text, "file").value == [
        *("off", "on", "yes", "no", "n", True, False, "2024-01-01", "1:30", 10, "1_000", 1.5, 1000.0, None, None),
        *("", "5", "0x10"),
    ]


def test_a_key_that_stands_twice_is_a_problem_with_both_lines() -> None:
    (problem,) = parse("server:\n  port: 1\n  host: a\n  port: 2\n", "file").problems
    assert (problem.line, problem.path) == (4, ("server", "port"))
    assert problem.text == "this key stands twice; the first is on line 2"


def test_merge_keys_and_aliases() -> None:
    document = parse("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a\n", "file")
    assert document.value == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}
    assert document.lines["b", "y"] == 4
    assert document.lines["b", "x"] == 1
    assert document.problems == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "alias that contains itself"),
        ("a: &a\n  <<: *a\n", "<< needs a mapping"),
        ("a: !!python/object:os.system 3", "is not understood"),
        ("a: !!int x", "is not of the type"),
        ("[a, b]: 3", "a key must be text"),
    ],
)
def test_what_a_configuration_never_needs_is_a_problem(text: str, message: str) -> None:
    assert any(message in problem.text for problem in parse(text, "file").problems)


def test_aliases_that_explode_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 6)]
    assert any("far too many" in problem.text for problem in parse("\n".join(lines), "file").problems[:1])


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: [\n", 3), ("a: 1\n  b: 2\n", 2), ("a: 'x\n", 2), ("a: *b", 1), ("\tx: 1", 1)]
)
def test_syntax_errors_name_file_and_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"^models\.yaml:{line}: not valid YAML: "):
        parse(text, "models.yaml")


def test_a_tab_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^f:2: not valid YAML: a tab: indent with spaces$"):
        parse("models:\n\t- {name: a}\n", "f")


def test_two_documents_in_one_file_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^f:2: not valid YAML"):
        parse("a: 1\n---\nb: 2\n", "f")


@given(st.text())
def test_any_text_is_a_document_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        document = parse(text, "file")
        assert all(0 < line <= text.count("\n") + text.count("\r") + 3 for line in document.lines.values())
