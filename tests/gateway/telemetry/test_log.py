"""The log's two forms, lines for people and objects for machines; and the names in it."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhub.serving.gateway.telemetry.log import configure

log = logging.getLogger("modelhub.models")

ROOT = Path(__file__).parents[3]
#: Loggers of others, which we quieten.
FOREIGN = {"asyncio", "mlflow"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    root, chatty = logging.getLogger(), logging.getLogger("asyncio")
    before = (root.handlers[:], root.level, chatty.level)
    yield
    root.handlers[:], root.level, chatty.level = before
    logging.captureWarnings(False)


def test_json_lines() -> None:
    stream = io.StringIO()
    configure("info", "auto", stream)
    log.info("%s is ready", "iris/3", extra={"model": "iris", "status": 200})
    log.debug("not now")
    [line] = stream.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "info",
        "logger": "modelhub.models",
        "message": "iris/3 is ready",
        "model": "iris",
        "status": 200,
    }


def test_an_exception_stays_one_json_line() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("it failed")
    [line] = stream.getvalue().splitlines()
    event = json.loads(line)
    assert event["level"] == "error"
    assert "ValueError: two\nlines" in event["exception"]


@pytest.mark.parametrize("value", ["\udcff", 1 << 70, object(), {1: "\udcff"}, b"bytes", float("nan")])
def test_any_field_makes_a_json_line(value: object) -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    log.info("odd %s", value, extra={"field": value})
    assert "odd" in json.loads(stream.getvalue())["message"]


def test_text_for_people() -> None:
    stream = io.StringIO()
    configure("debug", "text", stream)
    log.warning("the queue is full", extra={"model": "iris"})
    log.info("step 1 of 3", extra={"source": "iris/3"})
    first, second = stream.getvalue().splitlines()
    assert first.split()[1:] == ["WARNING", "modelhub.models", "the", "queue", "is", "full", "model=iris"]
    assert second.split()[1:] == ["INFO", "[iris/3]", "step", "1", "of", "3"]


def test_a_model_is_named_once_in_a_line_for_people() -> None:
    stream = io.StringIO()
    configure("info", "text", stream)
    fields = {"model": "iris", "version": "3"}
    log.info("iris/3 is ready", extra=fields)
    log.info("step 1", extra={**fields, "source": "iris/3#1"})
    first, second = stream.getvalue().splitlines()
    assert first.endswith("modelhub.models iris/3 is ready")
    assert second.endswith("[iris/3#1] step 1")


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, expected in ((Terminal(), True), (io.StringIO(), False)):
        configure("info", "text", stream)
        log.error("red")
        assert ("\x1b[31m" in stream.getvalue()) is expected
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    configure("info", "auto", plain)
    log.error("red")
    assert "red" in plain.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_nobody_writes_lines_of_their_own() -> None:
    stream = io.StringIO()
    configure("info", "text", stream)
    log.info("no model %s", "x\n12:00:00.000 ERROR   gateway  forged\x1b[2J")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("no model x")
    assert second.startswith("    "), "what goes on is indented"
    assert "\x1b" not in stream.getvalue()


def test_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", "json", first)
    configure("warning", "json", second)
    log.warning("once")
    log.info("not at all")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def made() -> set[str]:
    """The names that the source gives to loggers, as it is written there."""
    names = set()
    for folder in ("src", "config", "gateway", "protocol", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                called = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "getLogger"
                if called and node.args:
                    names.add(ast.unparse(node.args[0]))
    return names


def test_the_names_of_loggers_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    section = text.partition("\n## Logs\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)
    assert sorted(made()) == sorted(repr(name) for name in {*listed, *FOREIGN})
