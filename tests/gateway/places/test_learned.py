"""What fork servers import because workers did: real ones, in an environment whose packages note who imports them."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from modelhub.serving.gateway.environments.environments import Environment
from modelhub.serving.gateway.places import fork_server as fork_server_module
from modelhub.serving.gateway.places import fork_servers as fork_servers_module
from modelhub.serving.gateway.places import learned as learned_module
from modelhub.serving.gateway.places.fork_server import ForkServer
from modelhub.serving.gateway.places.fork_servers import ForkServers
from modelhub.serving.gateway.places.learned import MAX_SPOILT, Learned, write
from modelhub.serving.gateway.system.container import PodMemory
from modelhub.serving.protocol.limits import MAX_MODULE_NAMES, MAX_MODULES
from support.environments import make_environment
from support.processes import until

pytestmark = pytest.mark.allow_blocking  # Popen, as the gateway itself does

#: Each notes the process that imports it, in a file beside the environment.
NOTES = """
import os, sys
def note(name):
    with open(os.path.join(os.path.dirname(sys.prefix), name), "a") as file:
        file.write(f"{os.getpid()}\\n")
"""
PACKAGES = {
    "notes.py": NOTES,
    "good/__init__.py": "import notes\nnotes.note('good')\n",
    "good/inner.py": "",
    "last.py": "import notes\nnotes.note('last')\n",
    "absent.py": "import something_that_is_not_there\n",
    "ends.py": "import sys\nsys.exit('not me')\n",
    "threaded.py": "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n",
    "forking.py": "import subprocess\nCHILD = subprocess.Popen(['sleep', '1000'])\n",
    "connected.py": "import socket\nPAIR = socket.socketpair()\n",
    "deadly.py": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "slow.py": "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\ntime.sleep(1000)\n",
    "rude.py": (
        "import os, signal, sys\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nsignal.set_wakeup_fd(-1)\n"
        "os.chdir('/')\nos.environ['RUDE'] = '1'\nsys.stdout = None\n"
    ),
}
SPOIL = ("threaded", "forking", "connected", "deadly")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GATHER", "QUIET", "REST"):
        monkeypatch.setattr(fork_servers_module, name, 0.0)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = make_environment(tmp_path_factory.mktemp("learned") / "environment", PACKAGES)
    return Environment("path:test", folder / "bin" / "python", platform.python_version(), None, "test")


@pytest.fixture
def importers(environment: Environment) -> Callable[[str], list[int]]:
    """The processes that have imported a package, in their order."""
    folder = environment.python.parents[2]

    def read(name: str) -> list[int]:
        return [int(line) for line in (folder / name).read_text().split()] if (folder / name).exists() else []

    return read


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[ForkServers]:
    found = ForkServers(dict(os.environ), tmp_path, tmp_path / "learned")
    yield found
    await asyncio.wait_for(found.close(), 20)


async def one(servers: ForkServers, environment: Environment) -> ForkServer:
    server = await asyncio.wait_for(servers.get(environment), 60)
    assert isinstance(server, ForkServer)
    return server


async def taken_over(servers: ForkServers, environment: Environment, first: ForkServer) -> ForkServer:
    """The one that has taken over from `first`."""
    found = await asyncio.to_thread(until, lambda: [each for each in servers.running()[-1:] if each is not first], 60)
    return found[0]


def file_of(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "learned").glob("*.json")
    return found


async def test_what_a_worker_has_imported_another_fork_server_imports_and_takes_over(
    servers: ForkServers, environment: Environment, importers: Callable[[str], list[int]], tmp_path: Path
) -> None:
    first = await one(servers, environment)
    servers.learn(environment, ["good.inner"], again=True)
    second = await taken_over(servers, environment, first)
    assert second.pid != first.pid
    assert importers("good")[-1] == second.pid
    await asyncio.wait_for(first.ended.wait(), 20)  # it has no worker
    assert json.loads(file_of(tmp_path).read_text())["modules"] == ["good.inner"]


async def test_what_is_learned_while_one_takes_over_has_another_follow(
    servers: ForkServers,
    environment: Environment,
    importers: Callable[[str], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = servers._start

    async def started_and_learned(environment: Environment) -> ForkServer:
        found = await start(environment)
        servers.learn(environment, ["last"], again=True)
        return found

    first = await one(servers, environment)
    monkeypatch.setattr(servers, "_start", started_and_learned)
    servers.learn(environment, ["good"], again=True)
    second = await taken_over(servers, environment, first)
    third = await taken_over(servers, environment, second)
    assert importers("good")[-1] == importers("last")[-1] == third.pid


async def test_a_model_that_stays_has_none_started_and_the_next_gateway_begins_with_what_it_imported(
    servers: ForkServers, environment: Environment, importers: Callable[[str], list[int]], tmp_path: Path
) -> None:
    first = await one(servers, environment)
    servers.learn(environment, ["good"], again=False)
    await servers.close()
    assert importers("good")[-1:] != [first.pid]
    assert len(servers.running()) == 0
    again = ForkServers(dict(os.environ), tmp_path, tmp_path / "learned")
    try:
        server = await one(again, environment)
        assert importers("good")[-1] == server.pid
    finally:
        await again.close()


@pytest.mark.parametrize("name", SPOIL)
async def test_a_module_that_spoils_the_fork_server_costs_nobody_a_worker_and_is_left_to_them(
    servers: ForkServers, environment: Environment, importers: Callable[[str], list[int]], tmp_path: Path, name: str
) -> None:
    first = await one(servers, environment)
    servers.learn(environment, ["good", name, "last"], again=True)
    second = await taken_over(servers, environment, first)
    assert importers("good")[-1] == importers("last")[-1] == second.pid
    running = psutil.Process(second.pid)
    assert running.num_threads() == 1
    assert not running.children()
    await servers.close()
    content = json.loads(file_of(tmp_path).read_text())
    assert content["modules"] == ["good", "last"]
    assert list(content["refused"]) == [name]


async def test_when_too_many_spoil_it_what_came_before_is_imported_and_nothing_behind(
    servers: ForkServers, environment: Environment, importers: Callable[[str], list[int]], tmp_path: Path
) -> None:
    first = await one(servers, environment)
    servers.learn(environment, ["good", *SPOIL[:MAX_SPOILT], "last"], again=True)
    second = await taken_over(servers, environment, first)
    assert importers("good")[-1] == second.pid
    assert second.pid not in importers("last")
    assert second.learned is not None
    assert second.learned.wanted == ["good"]
    assert "came behind connected" in second.learned.refused["last"]


async def test_one_that_takes_too_long_is_left_to_the_workers(
    servers: ForkServers, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server_module, "LEARN_FOR", 1.0)
    first = await one(servers, environment)
    servers.learn(environment, ["good", "slow"], again=True)
    second = await taken_over(servers, environment, first)
    assert second.learned is not None
    assert second.learned.refused == {"slow": "takes too long to import"}


async def test_imports_that_fail_are_not_tried_again(servers: ForkServers, environment: Environment) -> None:
    first = await one(servers, environment)
    servers.learn(environment, ["absent", "ends", "good", "gone.away"], again=True)
    second = await taken_over(servers, environment, first)
    assert second.learned is not None
    assert second.learned.wanted == ["good"]
    assert second.learned.refused["ends"] == "SystemExit: not me"
    assert not second.lacks


async def test_a_module_that_sets_handlers_and_folders_changes_nothing_of_the_fork_server(
    servers: ForkServers, environment: Environment
) -> None:
    first = await one(servers, environment)
    servers.learn(environment, ["rude"], again=True)
    second = await taken_over(servers, environment, first)
    assert psutil.Process(second.pid).cwd() == str(second._cwd)
    servers.learn(environment, ["good"], again=True)
    third = await taken_over(servers, environment, second)
    await asyncio.wait_for(second.ended.wait(), 20)
    assert third.lacks is False


async def test_a_fork_server_without_workers_ends_after_a_while(
    servers: ForkServers, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server_module, "IDLE_FOR", 0.0)
    first = await one(servers, environment)
    await asyncio.wait_for(first.ended.wait(), 20)
    until(lambda: not psutil.pid_exists(first.pid), 5)
    assert not servers.running()
    monkeypatch.setattr(fork_server_module, "IDLE_FOR", 600.0)
    assert (await one(servers, environment)).pid != first.pid


async def test_a_full_container_has_one_without_workers_end_and_starts_none_beside_another(
    servers: ForkServers, environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, content in (("memory.max", 1 << 30), ("memory.current", 1 << 30), ("memory.stat", "inactive_file 0")):
        (tmp_path / name).write_text(str(content))
    monkeypatch.setattr(fork_servers_module, "PodMemory", lambda: PodMemory(tmp_path))
    first = await one(servers, environment)
    servers.learn(environment, ["good"], again=True)
    await asyncio.wait_for(servers._renewals[environment.key], 20)
    assert servers.running() == [first]
    assert servers.spare()
    await asyncio.wait_for(first.ended.wait(), 20)
    assert not servers.spare()


# ---- the file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"modules": 3}', b'{"refused": []}', b"\xff", b'{"spoilt": ""}']
)
def test_a_broken_file_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ab.json").write_bytes(content)
    found = Learned.read(tmp_path, "ab")
    assert (found.modules, found.refused, found.spoilt) == ([], {}, 0)


def test_what_is_written_is_read_again_and_what_is_no_name_is_not_taken(tmp_path: Path) -> None:
    learned = Learned.read(tmp_path, "ab")
    assert learned.add(["torch._dynamo", "a b", "../x", "", "1a", "x" * 500, "ünd.so"])
    assert not learned.add(["torch._dynamo"])
    learned.refuse({"ünd.so": "no"})
    write(learned.path, learned.content())
    again = Learned.read(tmp_path, "ab")
    assert (again.modules, again.refused) == (["torch._dynamo"], {"ünd.so": "no"})
    assert not again.add(["ünd.so"])


def test_neither_a_file_nor_their_number_grows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = Learned.read(tmp_path, "ab")
    learned.add(f"m{number}" for number in range(MAX_MODULES * 2))
    assert len(learned.modules) == MAX_MODULES
    learned = Learned.read(tmp_path, "ab")
    learned.add(f"{'m' * 190}{number}" for number in range(MAX_MODULES))
    assert sum(map(len, learned.modules)) <= MAX_MODULE_NAMES
    monkeypatch.setattr(learned_module, "MAX_ENVIRONMENTS", 2)
    for number in range(4):
        write(tmp_path / f"{number}.json", "{}")
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    write(tmp_path / "file" / "ab.json", "{}")
    assert "cannot be written" in caplog.text
