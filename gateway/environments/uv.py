"""Running uv: its environment variables, its output as masked lines, its failures as errors, its end with ours.

Called by the environment builder, the kit and the search for interpreters. uv gets an allowlist of our
environment, because building a source distribution runs that package's own code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import uv

from ...protocol.redaction import Redactor

_PASSED_NAMES = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}
_PASSED_NAMES |= {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"}
_PASSED_NAMES |= {"SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "PKG_CONFIG_PATH"}
_PASSED_PREFIXES = ("UV_", "PIP_", "LC_", "XDG_", "PYENV_")
#: These would point uv at another environment or project than the one being built.
_NEVER_PASSED = frozenset(("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR"))
#: Credentials of uploads: nothing that is installed needs them.
_FOR_UPLOADS = "UV_PUBLISH_"
_KEPT_LINES = 2000
_SHOWN_LINES = 40
#: Bytes of a line: what it says beyond them is not shown.
_LONGEST_LINE = 4096
_TIMED_OUT = 124  # as timeout(1)
_NOTHING: Mapping[str, str] = MappingProxyType({})

# Run before uv in its own process: uv must not go on writing when its builder was killed.
_DIE_WITH_PARENT = (
    "import ctypes,os,sys;"
    "ctypes.CDLL(None).prctl(1,9,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);"
    "os.execv(sys.argv[2],sys.argv[2:])"
)


class UvFailed(Exception):
    """uv (or a program in an environment) ended with a failure; `said` is its masked output."""

    def __init__(self, returncode: int, said: str) -> None:
        super().__init__(f"{_ending(returncode)}:\n{said}" if said else _ending(returncode))
        self.returncode = returncode
        self.said = said

    @property
    def last_line(self) -> str:
        """What an import error or a resolver says in the end."""
        return next((line.strip() for line in reversed(self.said.splitlines()) if line.strip()), str(self))


class Uv:
    """The `uv` that is installed beside us, with the index settings of UV_* and PIP_*.

    `tail` is given every masked line of output as it comes (a live display), and "" when uv has ended; None where
    nobody watches.
    """

    def __init__(
        self,
        binary: Path | None = None,
        environ: Mapping[str, str] | None = None,
        tail: Callable[[str], None] | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        self.mask = Redactor(environ).clean
        self._environ = dict(environ)
        self._tail = tail
        self._binary = binary

    @property
    def binary(self) -> Path:
        """The executable; looked for on the first use. Blocking, as everything here that is not `run`."""
        if self._binary is None:
            self._binary = Path(uv.find_uv_bin())
        return self._binary

    @property
    def environ(self) -> Mapping[str, str]:
        """Our environment, of which uv sees a part."""
        return self._environ

    def environment(self) -> dict[str, str]:
        """The environment that uv is started with."""
        return uv_environment(self._environ)

    def index_flags(self) -> list[str]:
        """Flags for pip settings that uv has no variable for."""
        return ["--no-index"] if _true(self._environ.get("PIP_NO_INDEX")) else []

    async def run(
        self,
        *arguments: str,
        cwd: Path | None = None,
        secrets: Iterable[str] = (),
        settings: Mapping[str, str] = _NOTHING,
        whole: bool = False,
    ) -> str:
        """Run uv and return what it printed, masked, these `secrets` too. Raises UvFailed. Cancelling kills it.

        `settings`: UV_* variables in place of those that there are; "" takes one away. `whole`: as in `run_program`.
        """
        redactor = Redactor(self._environ)
        for secret in secrets:
            redactor.add(secret)
        binary, env = await asyncio.to_thread(lambda: (self.binary, self.environment()))
        env = {name: value for name, value in {**env, **settings}.items() if value or name not in settings}
        try:
            return await run_program(
                [str(binary), *arguments], env=env, cwd=cwd, mask=redactor.clean, tail=self._tail, whole=whole
            )
        finally:
            if self._tail is not None:
                self._tail("")


async def run_program(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    mask: Callable[[str], str] | None = None,
    tail: Callable[[str], None] | None = None,
    timeout: float | None = None,
    whole: bool = False,
) -> str:
    """Run a program that dies with us; return its output (stdout and stderr), masked. Raises UvFailed.

    `whole`: what it prints is an answer to be read, and shown to nobody: neither masked nor cut, unless it fails.
    """
    mask = mask or Redactor().clean
    process = await _start(command, env, cwd)
    said: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        following = _keep(process, said) if whole else _follow(process, mask, said, tail)
        returncode = await asyncio.wait_for(following, timeout)
    except asyncio.TimeoutError:
        if whole:
            said = deque((mask(line[:_LONGEST_LINE]) for line in said), _SHOWN_LINES)
        raise UvFailed(_TIMED_OUT, "\n".join([*said, f"no end within {timeout:g} s"])) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    if returncode != 0:
        last = list(said)[-_SHOWN_LINES:]
        if whole:
            last = [mask(line[:_LONGEST_LINE]) for line in last]
        raise UvFailed(returncode, "\n".join(last).strip())
    return "\n".join(said)


async def _start(command: Sequence[str], env: Mapping[str, str], cwd: Path | None) -> asyncio.subprocess.Process:
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
    return await asyncio.create_subprocess_exec(
        *command,
        env=dict(env),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=1 << 20,
    )


async def _keep(process: asyncio.subprocess.Process, said: deque[str]) -> int:
    """Keep its lines in `said` as they are; its exit code."""
    assert process.stdout is not None
    while raw := await _line(process.stdout):
        said.append(raw.decode(errors="replace").rstrip("\r\n"))
    return await process.wait()


async def _follow(
    process: asyncio.subprocess.Process,
    mask: Callable[[str], str],
    said: deque[str],
    tail: Callable[[str], None] | None,
) -> int:
    """Keep its masked lines in `said` until it ends; its exit code."""
    assert process.stdout is not None
    while raw := await _line(process.stdout):
        line = mask(raw[:_LONGEST_LINE].decode(errors="replace").rstrip("\r\n"))
        said.append(line)
        if tail is not None and line.strip():
            tail(line.strip())
        await asyncio.sleep(0)  # masking costs some microseconds per character, and much may have come at once
    return await process.wait()


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What uv sees of `environ`: the allowlist, and pip's index settings under uv's names where those are unset."""
    env = {
        name: value
        for name, value in environ.items()
        if (name in _PASSED_NAMES or name.startswith(_PASSED_PREFIXES) or name.lower().endswith("_proxy"))
        and not (name in _NEVER_PASSED or name.startswith(_FOR_UPLOADS))
    }

    def take(target: str, value: str | None, *others: str) -> None:
        if value and not any(env.get(name) for name in (target, *others)):
            env[target] = value

    take("UV_DEFAULT_INDEX", environ.get("PIP_INDEX_URL"), "UV_INDEX_URL")
    take("UV_INDEX", environ.get("PIP_EXTRA_INDEX_URL"), "UV_EXTRA_INDEX_URL")
    links = [link for link in environ.get("PIP_FIND_LINKS", "").split() if "://" in link or Path(link).exists()]
    take("UV_FIND_LINKS", ",".join(links))
    take("UV_INSECURE_HOST", environ.get("PIP_TRUSTED_HOST"))
    take("UV_HTTP_TIMEOUT", environ.get("PIP_DEFAULT_TIMEOUT"))
    take("ALL_PROXY", environ.get("PIP_PROXY"))
    take("UV_PRERELEASE", "allow" if _true(environ.get("PIP_PRE")) else None)
    env["UV_NO_PROGRESS"] = "1"
    env["UV_PYTHON_DOWNLOADS"] = env.get("UV_PYTHON_DOWNLOADS", "never")
    env["NO_COLOR"] = "1"
    return env


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:
        return b"(a line too long to show)\n"


def _true(value: str | None) -> bool:
    return (value or "").strip().lower() in {"1", "true", "yes", "on"}


def _ending(returncode: int) -> str:
    if returncode < 0:
        number = -returncode
        out_of_memory = ", perhaps out of memory" if number == signal.SIGKILL else ""
        return f"killed by signal {number}{out_of_memory}"
    return f"exit code {returncode}"
