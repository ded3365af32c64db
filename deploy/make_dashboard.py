"""Writes the Grafana dashboard: `python deploy/make_dashboard.py`. The panels and their queries are the table below."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "helm" / "modelhub-serving" / "files" / "dashboard.json"
MODEL = 'model=~"$model"'
PREDICT = f'{MODEL},phase="predict"'
RATE = "$__rate_interval"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel; `queries` are (PromQL, legend)."""

    title: str
    queries: list[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    description: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def quantile(which: float, metric: str, *labels: str) -> str:
    by = ", ".join((*labels, "le"))
    return f"histogram_quantile({which}, sum by ({by}) (rate({metric}_bucket{{{MODEL}}}[{RATE}])))"


def rate(metric: str, *labels: str, where: str = MODEL) -> str:
    return f"sum by ({', '.join(labels)}) (rate({metric}{{{where}}}[{RATE}]))"


def total(metric: str, *labels: str, where: str = MODEL) -> str:
    return f"sum by ({', '.join(labels)}) ({metric}{{{where}}})"


STATES = "UNLOADED|PREPARING|LOADING|WARMING|READY|DRAINING|FAILED"
ROWS: dict[str, list[Panel]] = {
    "Now": [
        Panel("Models ready", [(f"sum(max by (model) (modelhub_model_ready{{{MODEL}}}))", "")], kind="stat", width=4),
        Panel(
            "Versions failed",
            [(f'sum(modelhub_model_state{{{MODEL},state="FAILED"}})', "")],
            kind="stat",
            width=4,
            options={"red_above": 1},
        ),
        Panel("Requests per second", [(f"sum({rate('modelhub_requests_total', 'model')})", "")], "reqps", "stat", 4),
        Panel(
            "Answered with 5xx",
            [
                (
                    f'(sum(rate(modelhub_requests_total{{{MODEL},status=~"5.."}}[{RATE}])) or vector(0)) '
                    f"/ sum(rate(modelhub_requests_total{{{MODEL}}}[{RATE}]))",
                    "",
                )
            ],
            "percentunit",
            "stat",
            4,
            options={"red_above": 0.01},
        ),
        Panel("Latency p99", [(quantile(0.99, "modelhub_request_seconds"), "")], "s", "stat", 4),
        Panel(
            "Workers and fork servers",
            [("count(modelhub_worker_cpu_seconds_total) + count(modelhub_fork_server_cpu_seconds_total)", "")],
            kind="stat",
            width=4,
        ),
    ],
    "Requests": [
        Panel("Requests by model", [(rate("modelhub_requests_total", "model"), "{{model}}")], "reqps", stacked=True),
        Panel(
            "Errors by model and status",
            [
                (
                    rate("modelhub_requests_total", "model", "status", where=f'{MODEL},status!~"2.."'),
                    "{{model}} {{status}}",
                )
            ],
            "reqps",
        ),
        Panel(
            "Errors of any kind, unknown names included",
            [(rate("modelhub_http_errors_total", "status", where=""), "{{status}}")],
            "reqps",
        ),
        Panel("Latency p50", [(quantile(0.5, "modelhub_request_seconds", "model"), "{{model}}")], "s"),
        Panel("Latency p99", [(quantile(0.99, "modelhub_request_seconds", "model"), "{{model}}")], "s"),
        Panel(
            "Where the time goes (mean)",
            [
                (
                    f"{rate('modelhub_request_phase_seconds_sum', 'phase')} / "
                    f"{rate('modelhub_request_phase_seconds_count', 'phase')}",
                    "{{phase}}",
                )
            ],
            "s",
            stacked=True,
            description="queue: in the gateway. batch_wait to encode: in the worker. transfer: the rest.",
        ),
        Panel("By route", [(rate("modelhub_requests_total", "route"), "{{route}}")], "reqps"),
        Panel("Rows per second", [(rate("modelhub_rows_total", "model"), "{{model}}")]),
        Panel(
            "Requests per call of predict",
            [
                (
                    f"{rate('modelhub_request_phase_seconds_count', 'model', where=PREDICT)}"
                    f" / {rate('modelhub_batches_total', 'model')}",
                    "{{model}}",
                )
            ],
        ),
    ],
    "Queues and batches": [
        Panel("Waiting in the gateway", [(total("modelhub_queue_length", "model"), "{{model}}")], width=6),
        Panel(
            "Share of the queue that is taken",
            [(f"max by (model) (modelhub_queue_length{{{MODEL}}} / modelhub_queue_limit{{{MODEL}}})", "{{model}}")],
            "percentunit",
            width=6,
        ),
        Panel("Held by workers", [(total("modelhub_in_flight", "model"), "{{model}}")], width=6),
        Panel(
            "Batching on",
            [(f"min by (model) (modelhub_batching_enabled{{{MODEL}}})", "{{model}}")],
            "bool_on_off",
            width=6,
            description="Requests may be predicted together. /status says why, or why not.",
        ),
    ],
    "Models' lives": [
        Panel(
            "Versions by state",
            [(f'sum by (state) (modelhub_model_state{{{MODEL},state=~"{STATES}"}})', "{{state}}")],
            stacked=True,
        ),
        Panel(
            "Last load, by phase",
            [(f"max by (model, phase) (modelhub_load_seconds{{{MODEL}}})", "{{model}} {{phase}}")],
            "s",
            "bargauge",
        ),
        Panel(
            "Workers that ended by themselves",
            [
                (
                    f"sum by (model, reason) (increase(modelhub_worker_restarts_total{{{MODEL}}}[{RATE}])) > 0",
                    "{{model}} {{reason}}",
                )
            ],
        ),
        Panel(
            "Changes of state",
            [(f"sum by (state) (increase(modelhub_state_changes_total{{{MODEL}}}[{RATE}]))", "{{state}}")],
        ),
        Panel(
            "Versions swapped, or not",
            [(f"sum by (model, result) (increase(modelhub_rolls_total{{{MODEL}}}[{RATE}]))", "{{model}} {{result}}")],
        ),
        Panel(
            "Environments built",
            [
                (f"sum by (result) (increase(modelhub_environment_builds_total[{RATE}]))", "{{result}}"),
                (f"sum(increase(modelhub_environment_build_seconds_total[{RATE}]))", "seconds"),
            ],
        ),
    ],
    "Memory and CPU": [
        Panel(
            "Private memory of workers",
            [(total("modelhub_worker_memory_private_bytes", "model"), "{{model}}")],
            "bytes",
            stacked=True,
        ),
        Panel(
            "Everything, shared pages counted once (PSS)",
            [
                ("sum(modelhub_worker_memory_pss_bytes)", "workers"),
                ("sum(modelhub_fork_server_memory_pss_bytes)", "fork servers"),
                ("sum(process_resident_memory_bytes and on (instance) modelhub_build_info)", "gateway (RSS)"),
            ],
            "bytes",
            stacked=True,
        ),
        Panel(
            "Fork servers, private",
            [(total("modelhub_fork_server_memory_private_bytes", "environment", where=""), "{{environment}}")],
            "bytes",
        ),
        Panel("CPU of workers", [(rate("modelhub_worker_cpu_seconds_total", "model"), "{{model}}")], stacked=True),
        Panel(
            "CPU of the gateway and fork servers",
            [
                (f"sum(rate(process_cpu_seconds_total[{RATE}]) and on (instance) modelhub_build_info)", "gateway"),
                (rate("modelhub_fork_server_cpu_seconds_total", "environment", where=""), "{{environment}}"),
            ],
        ),
        Panel(
            "Lateness of the gateway's event loop, p99",
            [
                (
                    "histogram_quantile(0.99, sum by (instance, le) "
                    f"(rate(modelhub_event_loop_lag_seconds_bucket[{RATE}])))",
                    "{{instance}}",
                )
            ],
            "s",
        ),
    ],
    "Groups": [
        Panel(
            "Share of the budget that is used",
            [
                (
                    "max by (group) (modelhub_group_memory_used_bytes / modelhub_group_memory_budget_bytes)",
                    "{{group}}",
                )
            ],
            "percentunit",
        ),
        Panel(
            "Models loaded",
            [
                ("sum by (group) (modelhub_group_models_loaded)", "{{group}}: loaded"),
                ("sum by (group) (modelhub_group_models)", "{{group}}: all"),
            ],
        ),
        Panel(
            "Evictions, and loads soon after",
            [
                (f"sum by (group) (increase(modelhub_group_evictions_total[{RATE}]))", "{{group}}: evicted"),
                (f"sum by (group) (increase(modelhub_group_early_reloads_total[{RATE}]))", "{{group}}: loaded again"),
            ],
        ),
        Panel(
            "How long evicted models had been loaded (median)",
            [('max by (group) (modelhub_group_eviction_age_seconds{quantile="0.5"})', "{{group}}")],
            "s",
        ),
        Panel(
            "Gateways",
            [
                (
                    "max by (instance, version, python) (modelhub_build_info)",
                    "{{instance}} {{version}} Python {{python}}",
                )
            ],
            kind="stat",
            width=16,
            options={"name": True},
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    top = 0
    for row, contents in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
                "panels": [],
            }
        )
        top += 1
        left = height = 0
        for panel in contents:
            if left + panel.width > 24:
                left, top = 0, top + height
            height = 4 if panel.kind == "stat" else 8
            place = {"x": left, "y": top, "w": panel.width, "h": height}
            panels.append(drawn(panel, len(panels) + 1, place))
            left += panel.width
        top += height
    return {
        "uid": "modelhub-serving",
        "title": "ModelHub Serving",
        "tags": ["modelhub", "mlflow"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables()},
        "panels": panels,
    }


def variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        {
            "name": "model",
            "type": "query",
            "label": "Model",
            "datasource": SOURCE,
            "query": {"query": "label_values(modelhub_model_ready, model)", "refId": "models"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def drawn(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": legend or "__auto",
            "instant": panel.kind != "timeseries",
            "range": panel.kind == "timeseries",
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if "red_above" in panel.options:
        steps.append({"color": "red", "value": panel.options["red_above"]})
    defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    options: dict[str, Any]
    if panel.kind == "timeseries":
        custom: dict[str, Any] = {"fillOpacity": 20 if panel.stacked else 0, "lineWidth": 1, "showPoints": "never"}
        if panel.stacked:
            custom["stacking"] = {"mode": "normal", "group": "A"}
        defaults["custom"] = custom
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        if panel.kind == "stat":
            options["textMode"] = "name" if panel.options.get("name") else "value"
        else:
            options |= {"orientation": "horizontal", "displayMode": "basic"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        **({"description": panel.description} if panel.description else {}),
        "gridPos": place,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"wrote {TARGET}")
