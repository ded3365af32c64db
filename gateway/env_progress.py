"""What the building of environments shows: one line per step; on a terminal also uv's latest lines, live.

Used by `modelhub env build`; the gateway itself logs the steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_TAIL_LINES = 6

#: (report, tail): a line per step, and every line of uv's output where somebody watches.
Reporters = tuple[Callable[[str], None], Callable[[str], None] | None]


@contextmanager
def progress(console: Console) -> Iterator[Reporters]:
    """Yield where `Environments` reports to: printed lines, above a live tail where `console` is a terminal."""
    from rich.text import Text

    if not console.is_terminal:
        yield lambda line: console.print(Text(line), soft_wrap=True), None
        return
    from rich.live import Live

    latest: deque[str] = deque(maxlen=_TAIL_LINES)
    with Live(console=console, transient=True, refresh_per_second=8) as live:

        def report(line: str) -> None:
            latest.clear()
            console.print(Text(line))

        def tail(line: str) -> None:
            if line:
                latest.append(line)
            else:
                latest.clear()  # uv has ended
            shown = Text("\n".join(f"  {item}" for item in latest), style="dim", overflow="ellipsis", no_wrap=True)
            live.update(shown, refresh=True)  # uv may be done before the next refresh by the clock

        yield report, tail
