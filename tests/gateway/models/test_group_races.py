"""What happens to a group when loads, evictions, unloads, deaths and new versions meet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from support.gateway_process import Gateway
from support.group_configs import copies, group, models_of, one, rewrite, states
from support.processes import until

Start = Callable[..., Gateway]


def test_requests_that_meet_an_eviction_are_neither_lost_nor_run_twice(gateway: Start, models: Path) -> None:
    """Two models take turns in one place; `retry: false` shows a request whose worker was ended under it."""
    running = gateway(group(copies(models, 2, "slow_predict", retry=False), max_loaded=1, parallel_loads=4))
    numbers = iter(range(10_000))
    lock = threading.Lock()

    def ask(name: str) -> tuple[int, bytes]:
        with lock:
            value = float(next(numbers) % 20)
        answer = running.infer(name, one(value))
        assert answer.status != 200 or answer.json()["outputs"][0]["data"] == [value]
        return answer.status, answer.body

    def client(first: int) -> list[tuple[int, bytes]]:
        return [ask(f"m{(first + turn) % 2}") for turn in range(12)]

    with ThreadPoolExecutor(4) as pool:
        answers = [answer for done in pool.map(client, range(4)) for answer in done]
    assert {status for status, _ in answers} == {200}, [answer for answer in answers if answer[0] != 200][:3]
    evictions = [line for line in metrics_of(running) if line.startswith("modelhub_group_evictions_total")]
    assert float(evictions[0].split()[-1]) >= 2


def metrics_of(running: Gateway) -> list[str]:
    return running.get("/metrics").body.decode().splitlines()


def test_a_model_that_is_given_up_leaves_its_room_to_others(gateway: Start, models: Path) -> None:
    running = gateway(group(copies(models, 2), max_loaded=1))
    assert running.infer("m0", one(1)).status == 200

    def given_up() -> bool:
        for process in running.processes():
            with suppress(psutil.Error):
                if "worker m0" in " ".join(process.cmdline()):
                    process.kill()
        return states(running)["m0"] == "FAILED"

    until(given_up, 60)
    assert running.infer("m1", one(1)).status == 200
    assert states(running) == {"m0": "FAILED", "m1": "READY"}


def test_a_load_that_is_called_off_gives_its_room_back(gateway: Start, models: Path) -> None:
    """The first load of a content is alone in its group: called off, it must not keep others out."""
    entries = copies(models, 2, "slow_load")
    running = gateway(group(entries, max_loaded=1, memory_budget="1GiB"))
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(running.post, "/v2/repository/models/m0/load")
        until(lambda: states(running)["m0"] == "LOADING")
        assert running.post("/v2/repository/models/m0/unload").status == 200
        answer = loading.result()
        assert (answer.status, "it was unloaded" in answer.json()["error"]) == (503, True)
    assert states(running)["m0"] == "UNLOADED"
    assert running.infer("m1", one(1)).status == 200


def test_a_model_that_is_removed_while_it_loads_answers_who_waits_and_goes(gateway: Start, models: Path) -> None:
    running = gateway(group([*copies(models, 1), {"name": "slow", "uri": str(models / "slow_load")}]))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(running.infer, "slow", one(5))
        until(lambda: states(running)["slow"] == "LOADING")
        rewrite(running, lambda content: content["groups"][0]["models"].pop())
        assert waiting.result().status == 200
    until(lambda: running.infer("slow", one(1)).status == 404)
    until(lambda: not [process for process in running.processes() if "worker slow" in " ".join(process.cmdline())])


def test_a_group_that_becomes_eager_loads_what_is_missing(gateway: Start, models: Path) -> None:
    running = gateway(group(copies(models, 2)))
    rewrite(running, lambda content: content["groups"][0].update(load="eager"))
    assert "configuration reloaded: 1 changed" in running.log()
    until(lambda: set(states(running).values()) == {"READY"})


def test_an_eager_group_that_does_not_fit_loads_the_rest_by_requests(gateway: Start, models: Path) -> None:
    running = gateway(group(copies(models, 4), "eager", max_loaded=2, preload_order=["m3", "m1"]))
    running.wait_ready()
    running.wait_log("not all that is to be loaded at start has room")
    assert states(running) == {"m0": "UNLOADED", "m1": "READY", "m2": "UNLOADED", "m3": "READY"}
    for name in ("m0", "m2", "m3"):
        assert running.infer(name, one(1)).status == 200, "what was evicted comes back"
    running.wait_log("leaves: evicted to make room for m0")
    assert running.get("/v2/models/m1/ready").status == 200


def test_a_lazy_group_loads_its_preload_order_at_start(gateway: Start, models: Path) -> None:
    running = gateway(group(copies(models, 3), preload_order=["m2", "m0"], parallel_loads=1))
    until(lambda: list(states(running).values()).count("READY") == 2)
    assert states(running)["m1"] == "UNLOADED"
    ready = [line for line in running.log().splitlines() if "is ready after" in line]
    assert ["m2/1" in ready[0], "m0/1" in ready[1]] == [True, True]


# ---- a new version beside the old one --------------------------------------------------------------


def versioned(content: dict[str, Any], version: str, uri: Path | None = None) -> None:
    entry = content["groups"][0]["models"][0]
    entry["version"] = version
    if uri is not None:
        entry["uri"] = str(uri)


def test_a_new_version_takes_over_in_a_group_with_one_place(gateway: Start, models: Path) -> None:
    """The two count as one for as long as they are both there; who asks meanwhile is answered by the old one."""
    running = gateway(group(copies(models, 1), max_loaded=1))
    assert running.infer("m0", one(1)).json()["model_version"] == "1"
    rewrite(running, lambda content: versioned(content, "2", models / "slow_load"))
    assert running.infer("m0", one(1)).json()["model_version"] == "1"
    until(lambda: running.infer("m0", one(1)).json()["model_version"] == "2")
    until(lambda: [each["version"] for each in models_of(running)] == ["2"])


def test_a_new_version_that_finds_no_room_takes_over_when_the_old_one_leaves(gateway: Start, models: Path) -> None:
    running = gateway(group(copies(models, 1), memory_budget="14MiB", idle_timeout="4s"))
    assert running.infer("m0", one(1)).status == 200
    rewrite(running, lambda content: versioned(content, "2"))
    running.wait_log("no room for m0/2")
    assert running.infer("m0", one(1)).json()["model_version"] == "1", "what serves goes on"
    until(lambda: [each["version"] for each in models_of(running)] == ["2"])
    assert running.infer("m0", one(1)).json()["model_version"] == "2"


def test_a_candidate_is_unloaded_and_loaded_by_itself(gateway: Start, models: Path) -> None:
    running = gateway({"defaults": {"environment": "shared"}, "models": copies(models, 1)})
    running.wait_ready()

    def change(content: dict[str, Any]) -> None:
        content["models"][0].update(version="2", uri=str(models / "slow_load"))

    rewrite(running, change)
    assert running.post("/v2/repository/models/m0/versions/2/unload").status == 200
    assert running.infer("m0", one(1)).json()["model_version"] == "1"
    assert {each["version"]: each["state"] for each in models_of(running)} == {"1": "READY", "2": "UNLOADED"}
    assert running.post("/v2/repository/models/m0/versions/2/load").status == 200
    assert running.infer("m0", one(1)).json()["model_version"] == "2", "loaded is swapped in"


def test_a_change_that_is_taken_back_leaves_what_serves_alone(gateway: Start, models: Path) -> None:
    running = gateway({"defaults": {"environment": "shared"}, "models": copies(models, 1)})
    running.wait_ready()
    pid = models_of(running)[0]["replicas"][0]["pid"]
    rewrite(running, lambda content: content["models"][0].update(uri=str(models / "slow_load")))
    assert len(models_of(running)) == 2
    rewrite(running, lambda content: content["models"][0].update(uri=str(models / "identity")))
    until(lambda: len(models_of(running)) == 1)
    assert models_of(running)[0]["replicas"][0]["pid"] == pid


def test_a_load_whose_override_fails_leaves_what_serves_alone(gateway: Start, models: Path) -> None:
    server = {"load_overrides": ["uri"]}
    running = gateway({"server": server, "defaults": {"environment": "shared"}, "models": copies(models, 1)})
    running.wait_ready()
    config = {"parameters": {"config": f'{{"uri": "{models / "raises_on_load"}"}}'}}
    answer = running.post("/v2/repository/models/m0/load", config)
    assert (answer.status, "refuses to load" in answer.json()["error"]) == (503, True)
    assert running.infer("m0", one(1)).status == 200
    until(lambda: len(models_of(running)) == 1)
