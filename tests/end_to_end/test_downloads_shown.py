"""How far a download is: a bar on a terminal, lines elsewhere; of the gateway, and of `modelhub env build`."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from support.gateway_process import Gateway
from support.processes import guarded
from support.slow_source import SlowSource

Start = Callable[..., Gateway]

#: The command, with less than ten seconds between two lines about a download.
OFTEN = (
    "import sys; from modelhub.serving.gateway.cli.main import main;"
    "from modelhub.serving.gateway.telemetry import display; display.LOG_EVERY = 0.05; sys.exit(main())"
)
#: Half of the model and all of it; how fast it comes is not for a test.
HALF = r"(2(\.\d+)?) MiB of (4(\.\d+)?) MiB, [\d.]+ (B|KiB|MiB|GiB)/s"


@pytest.fixture
def source(models: Path, tmp_path: Path) -> Iterator[SlowSource]:
    """The model iris, with four megabytes more."""
    shutil.copytree(models / "iris", tmp_path / "iris")
    (tmp_path / "iris" / "weights.bin").write_bytes(os.urandom(4 << 20))
    with SlowSource(tmp_path / "iris") as running:
        yield running


def often(*arguments: str) -> list[str]:
    return [sys.executable, "-c", OFTEN, *arguments]


def configuration(source: SlowSource) -> dict[str, object]:
    return {"models": [{"name": "iris", "uri": source.uri, "version": "3", "environment": "shared"}]}


def test_elsewhere_the_log_says_now_and_then_how_far_it_is(gateway: Start, source: SlowSource) -> None:
    running = gateway(configuration(source), wrap=lambda command: guarded(often(*command[1:])))
    running.wait_log("fetching iris/3: 2")
    source.go_on()
    running.wait_ready()
    lines = [json.loads(line) for line in running.log().splitlines()]
    told = [line for line in lines if line["message"].startswith("fetching")]
    assert {(line["logger"], line["level"], line["model"], line["version"]) for line in told} == {
        ("gateway.progress", "info", "iris", "3")
    }
    assert [line for line in told if re.fullmatch(f"fetching iris/3: {HALF}", line["message"])]


def test_a_terminal_shows_a_bar_below_the_log_until_it_is_done(source: SlowSource, tmp_path: Path) -> None:
    server = {"host": "127.0.0.1", "port": 0, "state_dir": str(tmp_path / "state")}
    config = tmp_path / "models.yaml"
    config.write_text(yaml.safe_dump({"server": server, **configuration(source)}))
    with on_a_terminal("serve", str(config)) as (process, read):
        shown = read(lambda text: re.search(HALF, text))
        assert re.search(f"fetching iris/3 ━+╺+ {HALF}", shown)
        source.go_on()
        shown = read(lambda text: "iris/3 is ready after" in text)
        process.send_signal(signal.SIGTERM)
        shown = read(lambda text: False)
    assert process.returncode == 0, shown
    after = shown[shown.index("iris/3 is ready after") :]
    assert "fetching" not in after, "what is done is shown no more"


def test_env_build_shows_it_too(source: SlowSource, tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    config.write_text(yaml.safe_dump(configuration(source)))
    with on_a_terminal("env", "build", str(config), "--state-dir", str(tmp_path / "state")) as (process, read):
        shown = read(lambda text: re.search(HALF, text))
        assert re.search(f"fetching iris/3 ━+╺+ {HALF}", shown)
        source.go_on()
        shown = read(lambda text: False)
    assert process.returncode == 0, shown
    assert shown.rindex("iris/3: shared, Python") > shown.rindex("fetching iris/3")


def test_env_build_in_a_pipe_prints_lines(source: SlowSource, tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    config.write_text(yaml.safe_dump(configuration(source)))
    command = often("env", "build", str(config), "--state-dir", str(tmp_path / "state"))
    with subprocess.Popen(guarded(command), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if re.fullmatch(f"fetching iris/3: {HALF}\n", line):
                source.go_on()
    assert process.returncode == 0, lines
    assert lines[-1].startswith("iris/3: shared, Python")


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[..., str]]]:
    """The command on a terminal of its own; `read(until)` gives what that has shown so far."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = guarded(often(*arguments))
    shown = b""

    def read(until: Callable[[str], object]) -> str:
        nonlocal shown
        while not until(shown.decode(errors="ignore")):
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end of a terminal is gone
                break
        return shown.decode(errors="ignore")

    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            yield process, read
        except BaseException:
            process.kill()
            raise
    os.close(ours)
