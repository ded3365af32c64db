"""Services by their names, as a configuration gives them, and those of a script."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving import (
    ConfigError,
    LoadError,
    ModelhubModelService,
    ModelServiceGroup,
)
from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.services.find import find_service
from modelhub.serving.workers.services.groups import collect, load_all
from support.service_calls import Model, spec


class Text(ModelhubModelService):
    def predict_text(self, request: Any, headers: Any = None) -> Any:
        return {
            "statusCode": 200,
            "data": {"text": request["text"].upper(), "agent": (headers or {}).get("user-agent")},
        }


SERVICE = """
from modelhub.serving import ModelhubModelService

class Good(ModelhubModelService):
    def __init__(self, name, run_uri, factor=2):
        super().__init__(name, run_uri)
        self.factor = factor

    def load(self):
        self.loaded_model = self

class Refuses(Good):
    def load(self):
        return False

class Wants(ModelhubModelService):
    def __init__(self, name, bucket):
        super().__init__(name, "")

class Forgets(ModelhubModelService):
    def __init__(self, name):
        self.name = name

class Plain:
    pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], WorkerSpec]:
    name = f"services_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SERVICE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda cls: spec(service=f"{name}:{cls}", model_path="/models/m")


def test_a_class_by_its_name(module: Callable[[str], WorkerSpec]) -> None:
    service = find_service(module("Good"))
    assert (service.name, service.run_uri, service.model_path, service.ready) == ("m", "/models/m", "/models/m", True)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        ("Refuses", "returned False"),
        ("Wants", "wants bucket"),
        ("Forgets", "does not call super"),
        ("Plain", "no ModelhubModelService"),
        ("Goood", "has no Goood; its classes: .*Good"),
    ],
)
def test_classes_that_cannot_be_used(module: Callable[[str], WorkerSpec], cls: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        find_service(module(cls))


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(LoadError, match="no module nowhere_at_all; set pythonpath"):
        find_service(spec(service="nowhere_at_all:Service"))


# ---- groups --------------------------------------------------------------------------------------


def test_collect_makes_a_configuration() -> None:
    first, second = ModelhubModelService("a", "runs:/x/m"), Text("b", "")
    second.settings = {"timeout": "5s"}
    group = ModelServiceGroup([second, {"name": "c", "uri": "models:/c/1"}], load="lazy", memory_budget="1GiB")
    found = collect([first, group])
    assert found.models == [
        {"name": "a", "service": "modelhub.serving.workers.services.base:ModelhubModelService", "uri": "runs:/x/m"}
    ]
    assert found.groups == [
        {
            "name": "models",
            "load": "lazy",
            "memory_budget": "1GiB",
            "models": [
                {"name": "b", "service": f"{__name__}:Text", "timeout": "5s"},
                {"name": "c", "uri": "models:/c/1"},
            ],
        }
    ]
    assert (set(found.services), found.lazy) == ({"a", "b"}, ["b"])


def test_collect_refuses_what_it_cannot_serve() -> None:
    service = ModelhubModelService("a", "")
    for wrong, message in (
        ([], "nothing to serve"),
        ([service, service], "given twice"),
        ([service, Text("a", "")], "two services are called 'a'"),
        (["runs:/a/b"], "str is no model"),
    ):
        with pytest.raises(ConfigError, match=message):
            collect(wrong)


def test_a_group_loads_all_and_names_each_failure() -> None:
    group = ModelServiceGroup([ModelhubModelService("a", "/no/a"), ModelhubModelService("b", "/no/b")])
    with pytest.raises(LoadError, match=r"(?s)model a could not be loaded: .*model b could not be loaded: "):
        group.load_models()
    ModelServiceGroup([ModelhubModelService("a", "/no/a")], load="lazy").load_models()
    with pytest.raises(ValueError, match="eager or lazy"):
        ModelServiceGroup([], load="sometimes")


# ---- a load of one's own -------------------------------------------------------------------------


class Loads(ModelhubModelService):
    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self.count = 0
        self.settings = {"timeout": "5s"}

    def load(self) -> None:  # type: ignore[override]
        self.count += 1
        self.handle = threading.Lock()  # cannot be pickled
        self.loaded_model = Model()


def test_a_load_of_its_own_is_called_once() -> None:
    service = Loads("a")
    service.load()
    assert service.ready
    load_all([service])
    assert service.count == 1


def test_what_load_made_is_not_handed_to_another_process() -> None:
    service = Loads("a")
    service.load()
    service.label = "later"  # type: ignore[attr-defined]
    copy = pickle.loads(pickle.dumps(service))  # noqa: S301
    assert (copy.ready, copy.loaded_model, copy.count, copy.settings, copy.label) == (
        False,
        None,
        0,
        {"timeout": "5s"},
        "later",
    )
    assert not hasattr(copy, "handle")
