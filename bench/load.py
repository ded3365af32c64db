"""Load of two kinds, each from a process of its own.

closed   so many connections, each sends when it has its answer: how much can the server do? `wrk` where it
         is installed, else the generator of `open_loop.py` without a rate.
open     so many requests a second whatever the server does: how long do clients wait? A latency counts from
         the moment at which the request was due, not from when a connection was free for it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cases import Request

HERE = Path(__file__).parent

_LUA = """
local file = assert(io.open({body!r}, "rb"))
wrk.method, wrk.body = "POST", file:read("*all")
file:close()
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nRESULT {{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "bad": %d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status + e.connect + e.read + e.write + e.timeout))
end
"""


def closed(request: Request, connections: int, seconds: int) -> dict[str, Any]:
    """requests, seconds, p50 and p99 in ms, bad (answers that are not 2xx, and failures)."""
    if shutil.which("wrk") is None:
        found = generate(request, connections, seconds, rate=0)
        good = found["statuses"].get("200", {})
        bad = found["requests"] - good.get("count", 0)
        times = {name: good.get(name) for name in ("p50", "p99")}
        return {"requests": good.get("count", 0), "seconds": found["seconds"], **times, "bad": bad}
    with tempfile.TemporaryDirectory() as scratch:
        body, script = Path(scratch, "body"), Path(scratch, "load.lua")
        body.write_bytes(request.body)
        headers = "\n".join(f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in request.headers.items())
        script.write_text(_LUA.format(body=str(body), headers=headers))
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script)]
        command = ["wrk", *options, request.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    match = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"wrk gave no result: {done.stdout[-500:]} {done.stderr[-500:]}")
    found = json.loads(match[1])
    return {**found, "requests": found["requests"] - found["bad"]}


def generate(request: Request, connections: int, seconds: float, rate: float) -> dict[str, Any]:
    """Our generator, to its end; `rate` 0: closed loop."""
    return finish(begin(request, connections, seconds, rate))


def begin(request: Request, connections: int, seconds: float, rate: float) -> subprocess.Popen[bytes]:
    """Our generator as a process; `finish` gives what it saw."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "open_loop.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    head = {"url": request.url, "headers": request.headers, "connections": connections}
    assert process.stdin is not None
    process.stdin.write(json.dumps({**head, "seconds": seconds, "rate": rate}).encode() + b"\n" + request.body)
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """requests, seconds, and by status: count, p50, p99, p99.9, max in ms."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the generator ended with code {process.returncode}")
    return dict(json.loads(output))
