"""A real MLflow server, four real models and the gateway on this machine; each model is called and the answers shown.

Run by `make demo`. Serves until Ctrl-C; with ONCE=1 it ends after the calls. Everything lies below `.demo/` (or
DEMO_FOLDER), where a second run finds its tracking database and its models again. PORT is the gateway's (8080, or a
free one where that is taken).
"""

from __future__ import annotations

import ctypes
import hashlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import psutil
import yaml
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
DEMO = Path(os.environ.get("DEMO_FOLDER", HERE.parent / ".demo")).resolve()
PORT = int(os.environ.get("PORT", "8080"))
SHADES = " ░▒▓█"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

console = Console(highlight=False)


class DemoFailed(Exception):
    """A step did not come about; the message says where to look."""


# ---- processes -----------------------------------------------------------------------------------


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def start(name: str, command: list[str], **env: str) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C reaches this process alone; output goes to `<name>.log`."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("MODELHUB_")}
    with (DEMO / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            env={**ours, "MLFLOW_DISABLE_TELEMETRY": "true", **env},
            cwd=HERE.parent,
        )


def short(path: Path) -> str:
    """The path as seen from the working directory."""
    return os.path.relpath(path)


def failed(name: str, what: str) -> NoReturn:
    tail = "\n".join((DEMO / f"{name}.log").read_text(errors="replace").splitlines()[-25:])
    raise DemoFailed(f"{what}; the end of {short(DEMO / name)}.log:\n{tail}")


def wait(process: subprocess.Popen[bytes], name: str, happened: Any, timeout: float) -> None:
    """Until `happened()` is true; fails when the process ends before."""
    deadline = time.monotonic() + timeout
    while not happened():
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                failed(name, f"the {name} took more than {timeout:.0f} s")
        else:
            failed(name, f"the {name} ended with code {process.returncode}")


def end_all() -> None:
    """SIGTERM to what this process started; SIGKILL to what is left after 40 seconds, and then to the orphans."""
    children = psutil.Process().children()
    for child in children:
        child.terminate()
    psutil.wait_procs(children, timeout=40)
    left = psutil.Process().children(recursive=True)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)


# ---- MLflow --------------------------------------------------------------------------------------


def start_mlflow() -> str:
    """The tracking URI of a server with sqlite and local artifacts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{DEMO / 'mlflow.db'}"]
    command += ["--serve-artifacts", "--artifacts-destination", str(DEMO / "artifacts")]
    process = start("mlflow", command, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    url = f"http://127.0.0.1:{port}"
    wait(process, "mlflow", lambda: ask(url, "GET", "/health")[0] == 200, 120)
    return url


def logged_models(tracking_uri: str) -> dict[str, Any]:
    """The note of demo_models.py; models are logged only when this database does not hold them yet."""
    sources = [HERE / "demo_models.py", *sorted((HERE / "models").glob("*.py"))]
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + version("mlflow").encode())
    note = DEMO / f"logged-{key.hexdigest()[:12]}.json"
    if not note.exists():
        scratch = note.with_suffix(".new")
        script = [sys.executable, str(HERE / "demo_models.py")]
        process = start("training", [*script, "--tracking-uri", tracking_uri, "--note", str(scratch)])
        if process.wait() != 0:
            failed("training", "the models could not be logged")
        scratch.rename(note)
    return dict(json.loads(note.read_text()))


# ---- the gateway ---------------------------------------------------------------------------------


def write_config(uris: dict[str, str]) -> Path:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken = probe.connect_ex(("127.0.0.1", PORT)) == 0
    file = DEMO / "models.yaml"
    content = {
        "server": {"host": "127.0.0.1", "port": 0 if taken else PORT, "state_dir": "state"},
        "models": [{"name": name, "uri": uri} for name, uri in uris.items()],
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def start_gateway(config: Path, tracking_uri: str) -> tuple[subprocess.Popen[bytes], str]:
    """The process and its URL; every model is ready."""
    command = [str(Path(sys.executable).with_name("modelhub")), "serve", str(config)]
    process = start("gateway", command, MLFLOW_TRACKING_URI=tracking_uri)
    place = DEMO / "state" / "gateways" / f"{process.pid}@{os.uname().nodename}.json"
    wait(process, "gateway", lambda: place.exists() and place.read_bytes().endswith(b"}"), 60)
    url = json.loads(place.read_text())["url"]
    wait(process, "gateway", lambda: ask(url, "GET", "/v2/health/ready")[0] == 200, 300)
    return process, url


def ask(
    url: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, body; status 0 when nobody answers."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    except OSError:
        return 0, {}, b""
    finally:
        connection.close()


# ---- the calls -----------------------------------------------------------------------------------


def infer(url: str, model: str, request: dict[str, Any], tensors: bytes = b"") -> tuple[list[Any], bytes]:
    """The response's outputs and its binary part; prints what was called and how long it took."""
    head = json.dumps(request).encode()
    headers = {"Content-Type": "application/json"}
    if tensors:
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    path = f"/v2/models/{model}/infer"
    began = time.perf_counter()
    status, fields, body = ask(url, "POST", path, head + tensors, headers)
    took = (time.perf_counter() - began) * 1000
    console.print(f"\n[bold]POST {path}[/]  {status}  {took:.1f} ms")
    if status != 200:
        raise DemoFailed(f"{model} answered {status}: {body.decode(errors='replace')}")
    size = int(fields.get("inference-header-content-length", len(body)))
    return json.loads(body[:size])["outputs"], body[size:]


def column(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data}


def call_wine(url: str, sample: dict[str, Any]) -> None:
    outputs, _ = infer(url, "wine", {"inputs": [column(name, "FP64", data) for name, data in sample["rows"].items()]})
    table = Table("wine", "alcohol", "flavanoids", "…", "predicted", "true", box=None)
    values = zip(
        sample["rows"]["alcohol"], sample["rows"]["flavanoids"], outputs[0]["data"], sample["truth"], strict=True
    )
    for number, (alcohol, flavanoids, predicted, true) in enumerate(values, 1):
        table.add_row(str(number), f"{alcohol:.2f}", f"{flavanoids:.2f}", "", str(predicted), str(true))
    console.print("named columns as JSON; accuracy on unseen wines:", f"{sample['accuracy']:.0%}", style="dim")
    console.print(table)


def call_digits(url: str, sample: dict[str, Any]) -> None:
    rows = sample["pixels"]
    raw = struct.pack(f"<{len(rows) * 64}f", *(pixel for row in rows for pixel in row))
    metadata = json.loads(ask(url, "GET", "/v2/models/digits")[2])
    tensor = {"name": metadata["inputs"][0]["name"], "shape": [len(rows), 64], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    outputs, binary = infer(url, "digits", request, raw)
    predicted = struct.unpack(f"<{len(rows)}q", binary[: outputs[0]["parameters"]["binary_data_size"]])
    console.print(f"one binary tensor of {len(raw)} bytes; the answer is binary, too", style="dim")
    for line in range(8):
        pixels = ("".join(SHADES[int(value / 3.3)] * 2 for value in row[line * 8 : line * 8 + 8]) for row in rows)
        console.print("   ".join(pixels))
    pairs = zip(predicted, sample["truth"], strict=True)
    console.print("   ".join(f"predicted {digit}, is {true}".ljust(16) for digit, true in pairs))


def call_sentiment(url: str, sample: dict[str, Any]) -> None:
    outputs, _ = infer(url, "sentiment", {"inputs": [column("text", "BYTES", sample["texts"])]})
    console.print("strings in; a label and two probabilities out", style="dim")
    answers = {output["name"]: output["data"] for output in outputs}
    table = Table("text", *answers, box=None)
    for number, text in enumerate(sample["texts"]):
        cells = [data[number] for data in answers.values()]
        table.add_row(text, *(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells))
    console.print(table)


def call_forecast(url: str, sample: dict[str, Any]) -> None:
    params = {"horizon": 5, "trend": 0.4}
    outputs, _ = infer(url, "forecast", {"inputs": [column("value", "FP64", sample["values"])], "parameters": params})
    values = next(output["data"] for output in outputs if output["name"] == "value")
    console.print(f"a Python function, with the request's parameters {params}", style="dim")
    past = " ".join(f"{value:.0f}" for value in sample["values"])
    console.print(f"{past} → [bold]{' '.join(f'{value:.1f}' for value in values)}[/]")


# ---- the demo ------------------------------------------------------------------------------------


def run() -> None:
    began = time.monotonic()
    console.print(f"[bold]1[/] MLflow tracking server: sqlite and local artifacts below {short(DEMO)}/")
    tracking_uri = start_mlflow()
    console.print("[bold]2[/] four models: trained and logged the first time, found again later")
    note = logged_models(tracking_uri)
    config = write_config(note["uris"])
    console.print(f"[bold]3[/] modelhub serve {short(config)}")
    for name, uri in note["uris"].items():
        console.print(f"    {name:10} {uri}")
    process, url = start_gateway(config, tracking_uri)
    console.print(f"    all models are ready, {time.monotonic() - began:.0f} s after the start")
    for name, call in CALLS.items():
        call(url, note["samples"][name])
    console.print(f"\ngateway  {url}  (models: {url}/v2/models)")
    console.print(f"metrics  {url}/metrics")
    console.print(f"log      {short(DEMO / 'gateway.log')}")
    console.print(f"MLflow   {tracking_uri}")
    if os.environ.get("ONCE", "") not in ("", "0"):
        return
    console.print("serving until Ctrl-C", style="bold")
    failed("gateway", f"the gateway ended with code {process.wait()}")


CALLS = {"wine": call_wine, "digits": call_digits, "sentiment": call_sentiment, "forecast": call_forecast}


def main() -> int:
    DEMO.mkdir(parents=True, exist_ok=True)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = 0
    try:
        run()
    except KeyboardInterrupt:
        pass
    except DemoFailed as error:
        console.print(f"\n{error}", style="red", markup=False)
        code = 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    console.print("\nending the gateway and the MLflow server")
    end_all()
    return code


if __name__ == "__main__":
    sys.exit(main())
