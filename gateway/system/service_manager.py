"""What systemd is told of this service, and by whom else sd_notify(3) is understood: one datagram, some lines."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping

#: Seconds between two looks at what it waits for.
LOOK_EVERY = 0.2
#: Characters of a line of status.
_LONGEST = 500


class ServiceManager:
    """Who started this process and wants to know how it is; `told` is False where nobody does."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Takes its variables out of `environ`: nobody who is started by this process speaks for it."""
        self._address = environ.pop("NOTIFY_SOCKET", "")
        interval, whose = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = not whose or whose == str(os.getpid())
        #: Seconds in which a sign of life is wanted; 0: none is.
        self.watchdog = int(interval) / 1e6 if interval.isdecimal() and ours else 0.0

    @property
    def told(self) -> bool:
        return self._address.startswith(("/", "@"))

    def tell(self, *lines: str) -> None:
        """Such as `READY=1`. Never waits, never fails: a service runs on without its manager."""
        if not self.told:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        text = "\n".join(line.replace("\n", " ")[:_LONGEST] for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as ours:
                ours.sendto(text.encode(), address)
        except OSError:
            pass

    async def tell_when_ready(self, waits_for: Callable[[], str]) -> None:
        """READY once `waits_for` says "", and until then what it says."""
        if not self.told:
            return
        said = ""
        while why := waits_for():
            if why != said:
                self.tell(f"STATUS={why}")
                said = why
            await asyncio.sleep(LOOK_EVERY)
        self.tell("READY=1", "STATUS=ready")

    async def feed_watchdog(self) -> None:
        """A sign of life from the event loop, for ever, where one is wanted."""
        while self.told and self.watchdog:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 3)
