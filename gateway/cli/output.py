"""How commands print: tables and lines, and what is live while they work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from ..telemetry.display import Display

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def display_on(out: TextIO) -> Iterator[Display]:
    """Shows steps and downloads: printed lines, above what is live where `out` is a terminal."""

    def print_line(line: str, **fields: str) -> None:
        display.stream.write(f"{line}\n")  # in one piece, which goes above what is live
        display.stream.flush()

    display: Display = Display(out, print_line)
    try:
        yield display
    finally:
        display.close()


def new_console() -> Console:
    """Standard output."""
    from rich.console import Console

    return Console(highlight=False)


def say(console: Console, line: str) -> None:
    """A line as it is."""
    console.print(line, markup=False, soft_wrap=True)


def say_error(console: Console, line: str) -> None:
    """A line in red."""
    console.print(line, markup=False, soft_wrap=True, style="red")


def print_table(console: Console, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Only the last column may be wrapped."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number != len(columns) - 1)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table, soft_wrap=not console.is_terminal)
