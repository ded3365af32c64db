"""Triton's own load generator, unmodified, drives both protocols without an error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.client_scripts import ENVIRONMENTS
from support.gateway_process import Gateway

HOME = ENVIRONMENTS / "perf_analyzer"
#: Milliseconds of one measurement.
WINDOW = 400


def environment() -> dict[str, str]:
    """CUDA's runtime, which it is linked with and does not use here, lies in the environment too."""
    folders = sorted(str(each) for each in Path(HOME).glob("lib/python*/site-packages/nvidia/cuda_runtime/lib"))
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}


@pytest.fixture(scope="module")
def program() -> str:
    found = HOME / "bin/perf_analyzer"
    if sys.platform != "linux":
        pytest.skip("perf_analyzer exists for Linux only")
    assert found.exists(), "no .venvs/perf_analyzer: run `make test-clients`, which makes it"
    linked = subprocess.run(["ldd", str(found)], capture_output=True, text=True, check=True, env=environment()).stdout
    if "not found" in linked:
        pytest.skip("perf_analyzer's libraries are not here: apt-get install libb64-0d")
    return str(found)


# As JSON it writes one element of each tensor, however many it has.
@pytest.mark.parametrize(
    ("protocol", "size", "more"),
    [
        ("http", 16, []),
        ("grpc", 16, []),
        ("grpc", 16, ["--streaming"]),
        ("http", 1, ["--input-tensor-format", "json", "--output-tensor-format", "json"]),
    ],
    ids=["http", "grpc", "grpc-stream", "http-json"],
)
def test_it_measures(shared_gateway: Gateway, program: str, protocol: str, size: int, more: list[str]) -> None:
    address = shared_gateway.grpc_url if protocol == "grpc" else shared_gateway.url.removeprefix("http://")
    command = [program, "-m", "pair", "-i", protocol, "-u", address, *more]
    command += ["--shape", f"left:{size}", "--shape", f"right:{size}", "--concurrency-range", "4", "--verbose"]
    # Whether the figures are stable is not the question: one pass, any spread.
    command += ["--measurement-interval", str(WINDOW), "--stability-percentage", "999", "--max-trials", "3"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment(), stdin=subprocess.DEVNULL
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert not re.search(r"error|fail", output.replace("Failed to obtain stable", ""), re.IGNORECASE), output
    [throughput] = re.findall(r"throughput: ([0-9.]+) infer/sec", output)
    assert float(throughput) > 10, output
    assert re.search(r"Successful request count: [1-9]", output), output
