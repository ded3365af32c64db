"""Metrics that a model's own code keeps with prometheus_client, as the gateway passes them on.

A worker sends its default registry as text. Every series gets the labels model, version and replica; a label
of the model's own by such a name becomes `exported_<name>`, as Prometheus itself does. What a worker says is
not trusted: text that cannot be parsed, names of ours, and more than MAX_SERIES of one worker are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

log = logging.getLogger("modelhub.metrics")

#: Series of one worker that are passed on at most.
MAX_SERIES = 1000
#: Names that prometheus_client fills in by itself in every process, and the gateway's own.
RESERVED = ("python_", "process_", "modelhub_")


@dataclass(frozen=True)
class OwnMetrics:
    """What one worker answered last."""

    labels: dict[str, str]
    text: bytes


def merge(own: Iterable[OwnMetrics], taken: set[str]) -> Iterator[Metric]:
    """One family per name, with the series of all workers; a name keeps the type that was met first."""
    families: dict[str, Metric] = {}
    for each in own:
        if not each.text:
            continue
        try:
            _add(each, families, taken)
        except (ValueError, KeyError, IndexError) as error:
            log.debug("the own metrics of %s cannot be read: %s", each.labels, error)
    yield from families.values()


def _add(own: OwnMetrics, families: dict[str, Metric], taken: set[str]) -> None:
    count = 0
    for family in list(text_string_to_metric_families(own.text.decode("utf-8", "replace"))):
        name = family.name
        if name.startswith(RESERVED) or name.endswith("_created") or name in taken:
            continue
        known = families.setdefault(name, Metric(name, family.documentation, family.type))
        if known.type != family.type:
            continue
        for sample in family.samples:
            count += 1
            if count > MAX_SERIES:
                return
            labels = {f"exported_{key}" if key in own.labels else key: value for key, value in sample.labels.items()}
            known.add_sample(sample.name, {**own.labels, **labels}, sample.value)
