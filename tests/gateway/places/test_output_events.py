"""What a worker prints as events of the log: real tracebacks in one piece, progress bars at their last state."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.gateway.places.output import LINES_PER_SECOND, LOOKED_AT, PAUSE, OutputReader
from modelhub.serving.gateway.places.output_events import (
    MAX_LINE,
    MAX_TRACE,
    OPEN,
    PARTIAL,
    REWRITTEN,
    SETTLE,
    Event,
    Events,
)
from modelhub.serving.gateway.telemetry.log import configure


def plain() -> None:
    raise ValueError("no such column")


def many_lines() -> None:
    raise ValueError("2 errors\nrows\n  a number is missing\n\nlabels\n  too short")


def caused() -> None:
    try:
        plain()
    except ValueError as error:
        raise RuntimeError("predict failed\non row 3") from error


def in_handling() -> None:
    try:
        caused()
    except RuntimeError:
        many_lines()


def grouped() -> None:
    problems = []
    for each in (plain, caused):
        try:
            each()
        except Exception as error:
            problems.append(error)
    raise sys.modules["builtins"].ExceptionGroup("both", problems)


def misspelt() -> None:
    compile("a b", "model.py", "exec")


def endless() -> None:
    endless()


RAISING: list[Callable[[], None]] = [plain, many_lines, caused, in_handling, misspelt, endless]
if sys.version_info >= (3, 11):
    RAISING.append(grouped)


def trace_of(raising: Callable[[], None]) -> str:
    try:
        raising()
    except Exception:
        return "\n".join(line.rstrip() for line in traceback.format_exc().splitlines()) + "\n"
    raise AssertionError


def events(*chunks: bytes, seconds: float = 0.0) -> list[Event]:
    """The events of these bytes, each chunk so much later than the one before."""
    found = Events()
    now = 0.0
    seen: list[Event] = []
    for chunk in chunks:
        seen += found.expire(now)
        seen += found.feed(chunk, now)
        now += seconds
    return [*seen, *found.end()]


@pytest.mark.parametrize("raising", RAISING, ids=lambda each: each.__name__)
def test_a_traceback_is_one_event(raising: Callable[[], None]) -> None:
    trace = trace_of(raising)
    read = Events()
    seen = list(read.feed(b"before\n", 0))
    for line in trace.encode().splitlines(keepends=True):  # as the interpreter writes it: line by line
        seen += read.feed(line, 1)
    assert seen == [Event("before")]
    seen += read.expire(1 + OPEN)
    assert seen[1:] == [Event(trace.rstrip(), len(trace.splitlines()), trace=True)]
    assert list(read.feed(b"after\n", 2 + OPEN)) == [Event("after")]
    assert read.due is None


def test_two_tracebacks_are_two_events() -> None:
    first, second = trace_of(caused), trace_of(many_lines)
    found = events((first + second).encode())
    assert [(event.text, event.trace) for event in found] == [(first.rstrip(), True), (second.rstrip(), True)]


def test_a_dump_of_all_threads_is_one_event() -> None:
    script = "import faulthandler, threading as t; t.Thread(target=t.Event().wait, daemon=True).start(); "
    for ending in ("faulthandler.dump_traceback()", "faulthandler.enable(); faulthandler._sigsegv()"):
        done = subprocess.run([sys.executable, "-c", script + ending], stderr=subprocess.PIPE, check=False)
        found = events(b"before\n" + done.stderr, trace_of(plain).encode())
        assert [event.trace for event in found] == [False, True, True]
        assert found[1].text == done.stderr.decode().rstrip()
        assert "most recent call first" in found[1].text


def test_what_is_printed_a_little_later_is_no_part_of_the_traceback() -> None:
    trace = trace_of(many_lines)
    assert [event.text for event in events(trace.encode(), b"next\n", seconds=SETTLE)] == [trace.rstrip(), "next"]


def test_what_is_not_whole_comes_out_in_time() -> None:
    trace = Events()
    assert not list(trace.feed(b"Traceback (most recent call last):\n  File", 5))
    assert trace.due == 5 + min(OPEN, PARTIAL)
    assert [event.text for event in trace.expire(6)] == ["Traceback (most recent call last):\n  File"]
    line = Events()
    assert not list(line.feed(b"loading the model ", 5))
    assert not list(line.feed(b"(a large one)", 5.5))
    assert line.due == 5 + PARTIAL
    assert list(line.expire(5 + PARTIAL)) == [Event("loading the model (a large one)")]
    assert list(line.feed(b" done\n", 7)) == [Event(" done")]
    assert line.due is None


@pytest.mark.parametrize(
    "bar", ["\r{:3}% of the weights", "{:3}% of the weights\r", "\x1b[32m\r{:3}% of the weights\x1b[0m"]
)
def test_of_a_progress_bar_the_last_state_counts(bar: str) -> None:
    states = [bar.format(percent).encode() for percent in range(101)]
    assert events(*states, b"\nready\n") == [Event("100% of the weights"), Event("ready")]
    assert events(b"".join(states) + b"\r\n") == [Event("100% of the weights")]
    slow = events(*states, b"\n", seconds=1.0)
    assert len(slow) == pytest.approx(100 / REWRITTEN, abs=2), "a slow one says now and then how far it is"
    assert slow[-1].text == "100% of the weights"


def test_a_traceback_is_bounded() -> None:
    frames = [f'  File "model.py", line {number}, in predict\n' for number in range(10_000)]
    text = "Traceback (most recent call last):\n" + "".join(frames) + "ValueError: the end\n"
    (event,) = events(text.encode())
    assert len(event.text) < MAX_TRACE + 100
    assert event.lines == 10_002
    shown = event.text.splitlines()
    (gap,) = [line for line in shown if "more lines" in line]
    assert gap == f"  … {10_002 - len(shown) + 1} more lines …"
    assert (shown[0], shown[-1]) == ("Traceback (most recent call last):", "ValueError: the end")


def test_lines_are_bounded_ended_or_not() -> None:
    (ended,) = events(b"x" * MAX_LINE * 3 + b"\n")
    assert ended.text == "x" * MAX_LINE + f"… ({MAX_LINE * 2} more characters)"
    endless = Events()
    assert sum(len(list(endless.feed(b"x" * 1000, 0))) for _ in range(1000)) > 10
    assert len(endless._partial) <= MAX_LINE * 4


def test_what_moves_a_terminals_cursor_is_left_out() -> None:
    assert events(b"\x1b[1;31mred\x1b[0m\x1b[K\n\x1b[A\n\x1b]0;title\x07text\n") == [Event("red"), Event("text")]


pieces = st.lists(
    st.sampled_from(
        [
            b"a line",
            b"\n",
            b"\r",
            b"\r\n",
            b" 50%",
            b"Traceback (most recent call last):\n",
            b"  File\n",
            b"E: x\n",
            b"\n\n",
        ]
    )
    | st.binary(max_size=8)
)


@given(pieces, st.lists(st.integers(0, 200)))
def test_where_the_pipe_cuts_makes_no_difference(parts: Sequence[bytes], cuts: Sequence[int]) -> None:
    text = b"".join(parts)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    chunks = [text[begin:end] for begin, end in itertools.pairwise(places)]
    assert events(*chunks) == events(text)


@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)))
def test_every_line_is_an_event(lines: list[str]) -> None:
    assert [event.text for event in events("".join(f"{line}\n" for line in lines).encode())] == lines


# ---- the pipe, and the log ------------------------------------------------------------------------


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the log writes, as JSON lines."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    configure("info", "json", stream)
    yield stream
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


class Told(logging.Logger):
    """A logger whose events can be waited for."""

    def __init__(self) -> None:
        super().__init__("modelhub.output")
        self.parent = logging.getLogger()
        self.arrived: asyncio.Queue[logging.LogRecord] = asyncio.Queue()

    def handle(self, record: logging.LogRecord) -> None:
        super().handle(record)
        self.arrived.put_nowait(record)


async def test_a_traceback_is_one_json_object_with_the_models_name(written: io.StringIO) -> None:
    log = Told()
    reader = OutputReader("wine/3#1", log, {"model": "wine", "version": "3"})
    trace = trace_of(in_handling)
    os.write(reader.write_fd, trace.encode())
    record = await asyncio.wait_for(log.arrived.get(), OPEN * 10)  # while the pipe is open
    assert record.levelno == logging.WARNING
    os.write(reader.write_fd, b"and no end of line")
    await asyncio.wait_for(log.arrived.get(), PARTIAL * 10)
    reader.close()
    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert (first["message"], second["message"]) == (trace.rstrip(), "and no end of line")
    for event in (first, second):
        assert (event["model"], event["version"], event["source"]) == ("wine", "3", "wine/3#1")


async def test_the_last_words_before_the_end_are_not_lost(written: io.StringIO) -> None:
    log = Told()
    reader = OutputReader("wine/3", log)
    os.write(reader.write_fd, trace_of(plain).encode() + b"\r 10%\r 20%")
    reader.close()
    assert list(reader.tail)[-2:] == ["ValueError: no such column", " 20%"]
    assert "ValueError: no such column" in written.getvalue()
    assert "10%" not in written.getvalue()


async def test_a_flood_of_tracebacks_is_cut_and_said(written: io.StringIO) -> None:
    reader = OutputReader("wine/3", logging.getLogger("modelhub.output"))
    trace = trace_of(plain).encode()
    for _ in range(LINES_PER_SECOND):
        os.write(reader.write_fd, trace)
    reader.close()
    found = [json.loads(line) for line in written.getvalue().splitlines()]
    assert sum(len(each["message"].splitlines()) for each in found) < LINES_PER_SECOND * 2 + 20
    assert any("more lines were printed" in each["message"] for each in found)


async def test_a_process_that_prints_without_end_leaves_the_gateway_its_time(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much is read after pauses only, and mostly skipped; each second begins with some whole reads."""
    log, fed = Told(), []
    reader = OutputReader("wine/3", log)
    feed = reader._events.feed
    monkeypatch.setattr(reader._events, "feed", lambda data, now: fed.append(len(data)) or feed(data, now))
    code = "import os\nwhile True: os.write(1, b'a line of some length, again and again\\n' * 1000)"
    began = time.monotonic()
    endless = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=reader.write_fd)
    reader.close_writer()
    while "more lines were printed" not in (await asyncio.wait_for(log.arrived.get(), 20)).getMessage():
        pass
    seconds = time.monotonic() - began
    endless.kill()
    await endless.wait()
    whole = [size for size in fed if size > LOOKED_AT * 2]
    assert len(whole) <= 3 * (seconds + 2)
    assert 2 <= len(fed) <= seconds / PAUSE + len(whole) + 2
    reader.close()
    assert reader.tail[-2] == "a line of some length, again and again"  # the last one may have been cut
