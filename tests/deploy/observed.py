"""A real gateway with ten models, asked in every way that the dashboard shows: answers, errors, deaths, evictions."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from support.gateway_process import Gateway

#: Plain models: name -> folder of the fixture models.
PLAIN = {
    "iris": "iris",
    "digits": "digits",
    "sentiment": "sentiment",
    "identity": "identity",
    "slow": "slow_predict",
    "fragile": "killed_in_predict",
    "faulty": "raises_in_predict",
}
#: Members of a lazy group that holds one of them at a time.
LAZY = ("invoices", "receipts")

_OWN = """
from prometheus_client import Counter, Histogram

SEEN = Counter("pages_seen", "Pages that the model has read.", ["kind"])
LENGTH = Histogram("page_length_chars", "Characters of a page.", buckets=(10, 100))


class Counting:
    def predict(self, data, params=None):
        SEEN.labels("scan").inc(len(data))
        LENGTH.observe(42)
        return data


def _load_pyfunc(path):
    return Counting()
"""


def save_counting_model(folder: Path) -> Path:
    """A model whose own code counts with prometheus_client; written by hand, as MLflow would."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "counting_loader.py").write_text(_OWN)
    column = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}
    mlmodel = {
        "flavors": {"python_function": {"loader_module": "counting_loader", "code": "code"}},
        "signature": {"inputs": json.dumps([column]), "outputs": json.dumps([column])},
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    return folder


def configuration(models: Path, folder: Path) -> dict[str, Any]:
    """The content of models.yaml: seven plain models, one that counts itself, two in a lazy group."""
    entries: list[dict[str, Any]] = [{"name": name, "uri": str(models / saved)} for name, saved in PLAIN.items()]
    for entry in entries:
        if entry["name"] == "slow":
            entry["limits"] = {"queue": 2}
            entry["timeout"] = "5s"
        if entry["name"] == "fragile":
            entry["retry"] = False
        if entry["name"] == "iris":
            entry["limits"] = {"memory": "2GiB"}
    entries.append({"name": "counting", "uri": str(save_counting_model(folder / "counting"))})
    lazy = []
    for name in LAZY:
        shutil.copytree(models / "identity", folder / name)
        lazy.append({"name": name, "uri": str(folder / name)})
    group = {"name": "documents", "load": "lazy", "max_loaded": 1, "memory_budget": "1GiB", "models": lazy}
    return {"models": entries, "groups": [group]}


def tensor(rows: list[list[float]]) -> dict[str, Any]:
    """A V2 request with one float32 tensor."""
    flat = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])]
    return {"inputs": [{"name": "input-0", "datatype": "FP32", "shape": shape, "data": flat}]}


def ask(gateway: Gateway, model: str, body: dict[str, Any] | None = None) -> int:
    """The status of one inference."""
    return gateway.post(f"/v2/models/{model}/infer", body or tensor([[1.0, 2.0]])).status


def traffic(gateway: Gateway) -> None:
    """Successes, the model's and the client's errors, unknown names, a full queue, evictions."""
    for _ in range(3):
        assert ask(gateway, "identity") == 200
        assert ask(gateway, "counting") == 200
        assert ask(gateway, "faulty") == 500
        assert ask(gateway, "nobody") == 404
        assert gateway.post("/v2/models/identity/infer", b"{").status == 400
    for name in (*LAZY, *LAZY):
        assert ask(gateway, name) == 200
    with ThreadPoolExecutor(12) as pool:
        statuses = set(pool.map(lambda _: ask(gateway, "slow", tensor([[100.0, 100.0]])), range(12)))
    assert 429 in statuses, statuses


def kill(gateway: Gateway) -> None:
    """One request that its worker does not survive; the next one is answered by its successor."""
    assert ask(gateway, "fragile", tensor([[666.0, 0.0]])) == 503
    assert ask(gateway, "fragile") == 200
