"""What blockbuster is for blocking calls, for sizes: fails where the gateway works through too much on its event loop.

Some functions cost as much as what they are given is long. On the event loop, called by the gateway's code, they may be
given no more than here; in a thread, anything. It looks at sizes, not at clocks.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import orjson
from rapidfuzz import process

from modelhub.serving.gateway.grpc import inference
from modelhub.serving.protocol.redaction import Redactor

#: Bytes of JSON.
MAX_JSON = 256 << 10
#: Characters of a name that is compared, and names that it is compared with.
MAX_NAME, MAX_NAMES = 200, 2000
#: Characters of text in which secrets are looked for: some microseconds each.
MAX_MASKED = 4096
#: Tensors, dimensions, parameters and single elements of a message that is translated: some microseconds each.
MAX_PARTS = 5000

#: What is counted, how many there are, how many there may be.
Weight = tuple[str, int, int]


@contextmanager
def bounded_sizes() -> Iterator[list[str]]:
    """Until the end of the block; yields what was too much: somebody else's request would have waited for it."""
    found: list[str] = []
    with ExitStack() as stack:

        def watch(owner: Any, name: str, weigh: Callable[..., Weight]) -> None:
            original = getattr(owner, name)

            def checked(*arguments: Any, **options: Any) -> Any:
                if _on_the_loop():
                    what, size, most = weigh(*arguments)
                    if size > most:
                        found.append(f"{name}: {size} {what}, {most} are allowed on the event loop")
                return original(*arguments, **options)

            stack.enter_context(mock.patch.object(owner, name, checked))

        watch(orjson, "loads", lambda text: ("bytes of JSON", len(text), MAX_JSON))
        watch(process, "extract", _names)
        watch(inference, "to_wire", _parts)
        watch(Redactor, "clean", lambda redactor, text: ("characters to mask", len(text), MAX_MASKED))
        yield found


def _on_the_loop() -> bool:
    """Whether the gateway calls a watched function there."""
    if asyncio._get_running_loop() is None:
        return False
    caller = sys._getframe(2).f_globals.get("__name__", "")
    return str(caller).startswith("modelhub.serving.")


def _names(query: str, choices: Any, *_: Any) -> Weight:
    if len(query) > MAX_NAME:
        return "characters of a name", len(query), MAX_NAME
    return "names to compare with", len(choices), MAX_NAMES


def _parts(request: Any) -> Weight:
    count = len(request.inputs) + len(request.outputs) + len(request.parameters)
    for each in request.inputs:
        count += len(each.shape) + len(each.parameters)
        fields = [elements for field, elements in each.contents.ListFields() if not field.name.startswith(("fp", "bo"))]
        count += sum(map(len, fields))
    return "parts of a message", count, MAX_PARTS
