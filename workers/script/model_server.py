"""ModelServer: serves services from a user's own script.

The script's process becomes the fork server of its services, which keep what `load()` loaded; the gateway
is a fresh child of it. See `server.py` for the process, `gateway/script.py` for the other end.
"""

from __future__ import annotations

import gc
import sys
from typing import Any, Dict, List, NoReturn, Optional

from ...protocol.errors import ServingError
from ..services import handover
from ..services.async_executor import AsyncExecutor
from ..services.groups import Collected, collect, load_all
from ..services.rerun import StartReached, rerunning


class ModelServer:
    """Serves models from one port until SIGTERM or Ctrl-C.

    models: services, groups of them, or mappings with the keys of an entry in a configuration file.
    host, port, grpc_port: where to listen; None leaves it to the environment (PORT, MODELHUB_SERVER_HOST, …)
    and the defaults, 0.0.0.0 and 8080.
    """

    def __init__(
        self,
        models: Any = None,
        *,
        host: Optional[str] = None,
        port: Optional[int] = None,
        grpc_port: Optional[int] = None,
    ) -> None:
        self.models: List[Any] = [] if models is None else models
        self._flags: Dict[str, str] = {
            f"server.{name}": str(value)
            for name, value in (("host", host), ("port", port), ("grpc_port", grpc_port))
            if value is not None
        }

    def start(self, models: Any = None) -> NoReturn:
        """Serve `models` (or those given to the constructor); ends the process with the gateway's exit code.

        Services that are not loaded are loaded first, unless their group is lazy; one that cannot be loaded
        stops the script with a message. Call it in the main thread, as the script's last act.
        """
        if rerunning():
            raise StartReached
        from .server import ScriptServer, check_main_thread, why_not_fork

        try:
            check_main_thread()
            found = collect(self.models if models is None else models)
            load_all(service for name, service in found.services.items() if name not in found.lazy)
            AsyncExecutor.close()
            why = why_not_fork()
            if why and found.services:
                _unload(found, why)
            handover.TABLE.update(found.services)
            server = ScriptServer(found.services, why)
            server.start_gateway(self._config(found, why))
        except ServingError as error:
            print(f"modelhub: {error.message}", file=sys.stderr)
            sys.exit(2 if error.code == "config" else 1)
        sys.exit(server.run())

    def _config(self, found: Collected, why: str) -> Dict[str, Any]:
        services = {
            name: {"loaded": service.ready and not why, "path": service.model_path}
            for name, service in found.services.items()
        }
        return {"models": found.models, "groups": found.groups, "flags": self._flags, "services": services}


def _unload(found: Collected, why: str) -> None:
    """Nothing is held twice: what this process has loaded is of no use to workers that are not its forks."""
    print(
        f"modelhub: forking this process is unsafe, so each model is loaded once more, in a process that runs this "
        f"script again as __mp_main__. The reason: {why}",
        file=sys.stderr,
    )
    for service in found.services.values():
        handover.handover(service)  # says now, not in each worker, that it cannot be
        kept = service.__getstate__()
        service.__dict__.clear()
        service.__dict__.update(kept)
    gc.collect()
