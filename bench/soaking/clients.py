"""How the soak asks the gateway: V2 bodies, and one HTTP client."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

JSON = {"Content-Type": "application/json"}


def body_of(*values: float) -> bytes:
    """One row of these values, as a V2 JSON request."""
    tensor = {"name": "input-0", "shape": [1, len(values)], "datatype": "FP32", "data": list(values)}
    return json.dumps({"inputs": [tensor]}).encode()


def raw_answer_of(*values: float) -> bytes:
    """The same, to be answered with binary tensors: large ones cost a worker no time."""
    return body_of(*values)[:-1] + b', "parameters": {"binary_data_output": true}}'


def values_of(answer: bytes) -> list[float]:
    """The first output of a V2 JSON answer."""
    found: list[float] = json.loads(answer)["outputs"][0]["data"]
    return found


@dataclass(frozen=True)
class Place:
    """Where a gateway is, and what operators show to it."""

    url: str
    grpc: str
    token: str

    @staticmethod
    def of(note: Path) -> Place:
        """Of the note that a gateway leaves in its state directory."""
        said = json.loads(note.read_bytes())
        return Place(said["url"], said["grpc_url"], Path(said["token_file"]).read_text().strip())


class Client:
    """HTTP with an operator's token. Each request has a connection of its own, so that none is left open by it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.operator = {"Authorization": f"Bearer {place.token}"}
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))

    async def ask(
        self, method: str, path: str, data: bytes = b"", headers: dict[str, str] | None = None, timeout: float = 60
    ) -> tuple[int, bytes]:
        """Status and body; 0 and the error's text where there was none."""
        limit = aiohttp.ClientTimeout(timeout)
        try:
            url = self.place.url + path
            async with self.session.request(method, url, data=data or None, headers=headers, timeout=limit) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return 0, repr(error).encode()

    async def infer(self, model: str, *values: float, timeout: float = 60) -> tuple[int, bytes]:
        return await self.ask("POST", f"/v2/models/{model}/infer", body_of(*values), JSON, timeout)

    async def control(self, path: str, timeout: float = 60) -> tuple[int, bytes]:
        """An operator's POST: `/admin/reload`, `/v2/repository/models/{name}/load`."""
        return await self.ask("POST", path, b"", self.operator, timeout)

    async def models(self) -> dict[str, dict[str, Any]]:
        """The rows of `/status` by name; empty where it did not answer."""
        status, body = await self.ask("GET", "/status", headers=self.operator, timeout=10)
        return by_name(json.loads(body)["models"]) if status == 200 else {}

    async def workers(self, model: str) -> list[int]:
        """Process ids of its workers that answer."""
        replicas = (await self.models()).get(model, {}).get("replicas", [])
        return [each["pid"] for each in replicas if each["state"] == "ready" and each["pid"]]

    async def close(self) -> None:
        await self.session.close()


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One row for each model: of two versions, during a roll, the one that is READY."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["name"] not in found or row["state"] == "READY":
            found[row["name"]] = row
    return found
