"""What a soak says: a line of progress while it runs, the tables and the verdict at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter

from ledger import Ledger
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from samples import BOUNDS, UNITS, Samples

#: Seconds between two lines where no terminal shows one that changes.
EVERY = 10.0
#: Kinds in which a single failure fails the soak. What probes miss fails nothing: workers of those models are killed.
#: Nor do looks without an answer, which say nothing wrong.
STRICT = (
    *("base", "gRPC", "gRPC stream", "stream", "big", "print", "abort", "poison", "roll", "load", "alias"),
    *("load without MLflow", "attack", "unread", "held", "log", "the soak itself"),
)


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 120)


class Progress:
    """One line: on a terminal it changes, elsewhere there is a new one every ten seconds."""

    def __init__(self, ledger: Ledger, samples: Samples, seconds: float, seed: int) -> None:
        self._ledger = ledger
        self._samples = samples
        self._seconds = seconds
        self._seed = seed
        self._live = Live(console=console(), auto_refresh=False, transient=True) if sys.stdout.isatty() else None
        self._said = self._begin = time.monotonic()
        self.doing = ""

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self) -> None:
        now = time.monotonic()
        if self._live is not None:
            self._live.update(Text(self._line(now)), refresh=True)
        elif now - self._said >= EVERY:
            self._said = now
            print(self._line(now), flush=True)

    def _line(self, now: float) -> str:
        ledger, last = self._ledger, self._samples.all[-1:]
        failed = sum(ledger.failed[kind] for kind in STRICT)
        parts = [
            f"{now - self._begin:.0f} of {self._seconds:.0f} s (seed {self._seed})",
            f"base {ledger.requests['base']} asked, {ledger.failed['base']} failed",
            f"{sum(ledger.events.values())} events, {failed} failures, {len(ledger.violations)} said ready wrongly",
            *(f"{each.rss:.0f} MiB, {each.fds:.0f} files, {each.threads:.0f} threads" for each in last),
            *filter(None, [self.doing]),
        ]
        return "; ".join(parts)


def verdict(ledger: Ledger, samples: Samples, warm_up: float, seconds: float) -> list[str]:
    """What is not as it has to be; nothing: the soak has held."""
    counts = [(kind, ledger.failed[kind], ledger.requests[kind]) for kind in STRICT]
    wrong = [f"{kind}: {failed} of {asked} failed" for kind, failed, asked in counts if failed]
    if ledger.violations:
        wrong.append(f"ready was said {len(ledger.violations)} times of models that answered nothing")
    if not ledger.requests["base"] or not ledger.looks:
        wrong.append("nobody asked")
    return wrong + samples.grown(warm_up, seconds)


def show(ledger: Ledger, samples: Samples, warm_up: float, seconds: float) -> None:
    """The tables, and the first texts of whatever failed."""
    out = console()
    counted = Table(title="what happened, and what was asked")
    for heading, justify in (("kind", "left"), ("events", "right"), ("requests", "right"), ("failed", "right")):
        counted.add_column(heading, justify=justify)  # type: ignore[arg-type]
    kills: Counter[str] = Counter({name: n for name, n in ledger.events.items() if name.startswith("kill ")})
    events = {**{name: n for name, n in ledger.events.items() if name not in kills}, "kill": kills.total()}
    for kind in [*sorted({*events, *ledger.requests} - {"base"}, key=str.lower), "base"]:
        asked = str(ledger.requests[kind]) if kind in ledger.requests else ""
        counted.add_row(kind, str(events.get(kind, "")), asked, str(ledger.failed[kind]) if asked else "")
    out.print(counted)
    out.print("killed: " + ", ".join(f"{name[5:]} {n}" for name, n in sorted(kills.items())))
    unanswered = ", ".join(f"{name} {n}" for name, n in sorted(ledger.unanswered.items())) or "none"
    out.print(f"probes: {ledger.probes.total()}, unanswered: {unanswered}")
    p50, p99, longest = (ledger.latency(part) for part in (0.5, 0.99, 1))
    out.print(f"base load: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {longest:.0f} ms")
    out.print(
        f"ready: {ledger.looks} looks, {len(ledger.violations)} violations of the rule; {ledger.late} answers to looks "
        f"came too late to count; who looked was late by {ledger.lag:.2f} s at most"
    )
    out.print(_flat(samples, warm_up, seconds))
    texts = [f"{kind}: {text}" for kind in STRICT for text in ledger.texts[kind]] + ledger.violations[:20]
    for text in texts:
        out.print(text, style="red", markup=False, highlight=False)


def _flat(samples: Samples, warm_up: float, seconds: float) -> Table:
    """Medians of single minutes, of the one after the warm-up and of the last, and the slope."""
    last = int(seconds // 60)
    minutes = sorted({min(max(each, 1), max(last, 1)) for each in (1, 5, 10, last)})
    table = Table(title="the gateway, medians")
    table.add_column("")
    for heading in [*(f"minute {each}" for each in minutes), "after warm-up", "last", "per minute", "bound"]:
        table.add_column(heading, justify="right")
    for what, unit in UNITS.items():
        spans = [((each - 1) * 60, each * 60) for each in minutes] + [(warm_up, warm_up + 60), (seconds - 60, seconds)]
        found = [samples.median(what, *span) for span in spans]
        part, more = BOUNDS[what]
        bound = f"+{part:.0%} + {more:g}" if part else f"+{more:g}"
        cells = ["-" if each is None else f"{each:.0f}" for each in found]
        table.add_row(unit, *cells, f"{samples.slope(what, warm_up):+.2f}", bound)
    return table
