"""What all tests share: one MLflow server, one folder of fixture models, one warm gateway; and a look at what is left.

`gateway` makes gateways of one's own, for tests that break something or need settings.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

from support.gateway_process import Gateway
from support.mlflow_process import MlflowProcess
from support.model_store import fixture_models
from support.processes import adopt_orphans, descendants, describe, survivors

SHARED = ("iris", "digits", "sentiment", "params", "identity", "pair", "datatypes", "echo")

# Seeds: pytest-randomly prints its own, hypothesis the blob that repeats a failure.
settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_gateways: list[Gateway] = []
_server = pytest.StashKey[MlflowProcess]()
_left = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    adopt_orphans()
    config.addinivalue_line("markers", "allow_blocking: this async test may block the event loop")


# ---- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def models(pytestconfig: pytest.Config) -> Path:
    """The folder of saved fixture models, each in a folder of its name (tests/fixtures/)."""
    assert pytestconfig.cache is not None
    return fixture_models(pytestconfig.cache.mkdir("models"))


@pytest.fixture(scope="session")
def mlflow_server(request: pytest.FixtureRequest) -> str:
    """The tracking URI of a real MLflow server, empty at first."""
    return _start_mlflow(request.config).uri()


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Gateway]]:
    """`gateway(config, env=…, args=…)`: a gateway that is live (its models perhaps not yet ready).

    At the end of the test it is stopped as an operator would, and must leave nothing behind.
    """
    with _gateways_of(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def module_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Gateway]]:
    """As `gateway`, for the tests of one file that share what they start."""
    with _gateways_of(tmp_path_factory) as start:
        yield start


@contextmanager
def _gateways_of(factory: pytest.TempPathFactory) -> Iterator[Callable[..., Gateway]]:
    with ExitStack() as stack:

        def start(config: Any, **options: Any) -> Gateway:
            return stack.enter_context(_running(config, factory.mktemp("gateway"), **options))

        yield start


@pytest.fixture(scope="session")
def shared_gateway(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One warm gateway, with gRPC, that serves the well-behaved fixture models; for tests that break nothing."""
    entries = [{"name": name, "uri": str(models / name)} for name in SHARED]
    config = {"server": {"grpc_port": 0}, "models": entries}
    with _running(config, tmp_path_factory.mktemp("shared_gateway")) as running:
        running.wait_ready()
        yield running


@pytest.fixture(autouse=True)
def _no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """An async test fails when the gateway's code blocks its event loop, or works through too much on it."""
    function = getattr(request, "function", None)
    if not inspect.iscoroutinefunction(function) or request.node.get_closest_marker("allow_blocking"):
        yield
        return
    from support.loop_sizes import bounded_sizes

    with blockbuster_ctx("modelhub.serving.gateway"), bounded_sizes() as found:
        yield
    assert not found, found


# ---- a gateway's life, and its log in reports -----------------------------------------------------


@contextmanager
def _running(config: Any, folder: Path, **options: Any) -> Iterator[Gateway]:
    """A live gateway; stopped as an operator would, and killed with all below it where that fails."""
    gateway = Gateway(config, folder, **options)
    _gateways.append(gateway)
    try:
        gateway.wait_live()
        yield gateway
        if gateway.running:
            gateway.stop()
    finally:
        gateway.kill()
        _gateways.remove(gateway)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = yield
    if report.failed:
        for each in _gateways:
            report.sections.append((f"log of the gateway with process id {each.pid}", each.log()[-6000:]))
    return report


# ---- begin and end of the session ----------------------------------------------------------------


def pytest_collection_finish(session: pytest.Session) -> None:
    """The MLflow server takes a while to start: it begins as soon as a test is known to want it."""
    if session.config.option.collectonly:
        return
    if any("mlflow_server" in getattr(item, "fixturenames", ()) for item in session.items):
        _start_mlflow(session.config)


def _start_mlflow(config: pytest.Config) -> MlflowProcess:
    if _server not in config.stash:
        factory = config._tmp_path_factory  # type: ignore[attr-defined]
        config.stash[_server] = MlflowProcess(factory.mktemp("mlflow"))
    return config.stash[_server]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing may run on after the tests: what does is killed, and fails the session."""
    server = session.config.stash.get(_server, None)
    if server is not None:
        server.stop()
    left = survivors(descendants(), 5)
    if left:
        session.config.stash[_left] = [describe(process) for process in left]
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for process in left:
            process.kill()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash.get(_left, []):
        terminalreporter.write_line(f"ERROR process left behind by the tests: {line}", red=True)
