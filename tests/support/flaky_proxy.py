"""A TCP proxy before a real server that a test takes away: it closes connections, or takes them and says nothing."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit


class FlakyProxy:
    """Forwards to `url` while `mode` is "there"; "away": connections are closed at once; "stuck": nobody answers."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.mode = "there"
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            if self.mode == "away":
                client.close()
            elif self.mode == "there":
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                self._open.append(server)
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            sink.close()

    def become(self, mode: str) -> None:
        """What connections meet from now on; those that are open end."""
        self.mode = mode
        for each in self._open:
            each.close()
        self._open.clear()

    def __enter__(self) -> FlakyProxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.close()
        self.become("away")
