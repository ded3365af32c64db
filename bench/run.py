"""Side-by-side measurements of this server, of what its libraries alone can do, and of any installed peer.

    python bench/run.py                        throughput and CPU per request   (make bench)
    python bench/run.py latency                waiting times at fixed rates
    python bench/run.py overload               three times what a model can do, and what its neighbour notices
    python bench/run.py lazy                   cost of a request with 1,000 configured models against one

A peer is a command with a V2 endpoint: --peer 'name=command --port {port} --model {name}={model}'. Servers are
measured in turns, round after round, and the medians are shown. CPU is that of the whole process tree; trust
it, and ratios, on a machine that others use too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import load
import report
from cases import CASES, Case, request
from servers import Server, modelhub, start

HERE = Path(__file__).parent
CEILINGS = ("echo", "pyfunc")
#: The queue of the model that is overloaded: about a third of a second of work.
QUEUE = 32
NEIGHBOUR_RATE = 200
#: More connections than a fast model's queue and worker hold.
SATURATING = 512


def measure(server: Server, case: Case, connections: int, seconds: int) -> report.Row:
    """One closed loop, warmed up by a shorter one."""
    sent = request(case, server.url)
    load.closed(sent, connections, 1)
    before = server.cpu()
    found = load.closed(sent, connections, seconds)
    cpu = server.cpu() - before
    return {
        "server": server.name,
        "case": case.name,
        "connections": connections,
        "rps": found["requests"] / found["seconds"],
        "cpu_us": 1e6 * cpu / found["requests"] if found["requests"] else None,
        "p50": found["p50"],
        "p99": found["p99"],
        "bad": found["bad"],
    }


def throughput(args: argparse.Namespace, models: Path, folder: Path) -> None:
    names = ["modelhub", *CEILINGS, *args.peers]
    rows: list[report.Row] = []
    for case in (CASES[name] for name in args.cases):
        with ExitStack() as stack:
            running = []
            for name in names:
                server = start(name, case, models, folder, args.peers)
                if server is not None:
                    stack.enter_context(server).wait(case)
                    running.append(server)
            for number in range(args.rounds):
                # Another order each time: the first of a round meets the quietest machine.
                for server in running[number % len(running) :] + running[: number % len(running)]:
                    for connections in args.connections or case.connections:
                        rows.append({**measure(server, case, connections, args.seconds), "round": number})
                        say(rows[-1])
    keys, values = ("case", "connections", "server"), ("rps", "cpu_us", "p50", "p99", "bad")
    found = sorted(
        report.medians(rows, keys, values), key=lambda row: (list(CASES).index(row["case"]), row["connections"])
    )
    for row in found:
        echo = [each for each in found if each["server"] == "echo" and each["case"] == row["case"]]
        echo = [each for each in echo if each["connections"] == row["connections"]]
        row["of_echo"] = row["rps"] / echo[0]["rps"] if echo and echo[0]["rps"] else None
    columns = {"case": "Case", "connections": "conns", "server": "Server", "rps": "req/s", "of_echo": "× echo"}
    more = {"cpu_us": "cpu µs", "p50": "p50 ms", "p99": "p99 ms", "bad": "bad", "spread": "spread req/s"}
    report.table(f"closed loop, medians of {args.rounds} rounds", found, {**columns, **more})
    file = report.save(args.out, "throughput", rows, medians=found)
    print(f"wrote {file} and {report.plot(file, found)}")


def latency(args: argparse.Namespace, models: Path, folder: Path) -> None:
    rows: list[report.Row] = []
    for case in (CASES[name] for name in args.cases):
        with ExitStack() as stack:
            running = [start(name, case, models, folder, args.peers) for name in ("modelhub", *CEILINGS, *args.peers)]
            servers = [stack.enter_context(server) for server in running if server is not None]
            for server in servers:
                server.wait(case)
                load.closed(request(case, server.url), 8, 1)
            for number in range(args.rounds):
                for rate in args.rates:
                    for server in servers:
                        found = load.generate(request(case, server.url), 64, args.seconds, rate)
                        good = found["statuses"].get("200", {})
                        times = {key: good.get(key) for key in ("p50", "p99", "p99.9", "max")}
                        row = {"case": case.name, "rate": rate, "server": server.name, **times, "round": number}
                        rows.append({**row, "lost": found["requests"] - good.get("count", 0)})
                        say(rows[-1])
    found = report.medians(rows, ("case", "rate", "server"), ("p50", "p99", "p99.9", "max", "lost"))
    columns = {"case": "Case", "rate": "req/s", "server": "Server", "p50": "p50 ms", "p99": "p99 ms"}
    title = f"open loop, from when a request was due; medians of {args.rounds} rounds"
    report.table(title, found, {**columns, "p99.9": "p99.9 ms", "max": "max ms", "lost": "not 200"})
    print(f"wrote {report.save(args.out, 'latency', rows, medians=found)}")


def overload(args: argparse.Namespace, models: Path, folder: Path) -> None:
    slow, fast = Case("ten_ms", "ten_ms", (1, 4), (QUEUE,)), CASES["identity"]
    limits = {"batching": {"enabled": False}, "limits": {"queue": QUEUE}}
    entries = [
        {"name": "ten_ms", "uri": str(models / "ten_ms"), **limits},
        {"name": "identity", "uri": str(models / "identity")},
    ]
    pairs: list[report.Row] = []
    with modelhub(folder, {"models": entries}) as server:
        server.wait(slow)
        server.wait(fast)
        slow_request, fast_request = request(slow, server.url), request(fast, server.url)
        load.closed(fast_request, 8, 2)
        # As many clients as may wait: all of them are accepted, and none finds an empty queue.
        peak = load.generate(slow_request, QUEUE, args.seconds, 0)
        best = peak["statuses"]["200"]
        rate = 3 * best["count"] / peak["seconds"]
        memory = [server.memory()]
        for number in range(args.rounds):
            calm = load.generate(fast_request, 32, args.seconds, NEIGHBOUR_RATE)["statuses"]["200"]
            flood = load.begin(slow_request, 1024, args.seconds, rate)
            busy = load.generate(fast_request, 32, args.seconds, NEIGHBOUR_RATE)["statuses"]["200"]
            found = load.finish(flood)
            memory.append(server.memory())
            good, refused = found["statuses"].get("200", {}), found["statuses"].get("429", {})
            row = {
                "round": number,
                "offered": rate,
                "goodput": good.get("count", 0) / found["seconds"] / (best["count"] / peak["seconds"]),
                "accepted_p99": good.get("p99"),
                "of_peak_p99": good.get("p99", 0) / best["p99"],
                "refused": refused.get("count"),
                "refused_p99": refused.get("p99"),
                "refused_max": refused.get("max"),
                "other": found["requests"] - good.get("count", 0) - refused.get("count", 0),
                "neighbour_p99": busy["p99"],
                "neighbour_ratio": busy["p99"] / calm["p99"],
            }
            pairs.append(row)
            say(row)
        saturated = load.closed(fast_request, SATURATING, args.seconds)
        memory.append(server.memory())
    rate_of_model = rate / 3
    title = f"{rate:.0f} requests/s offered for {args.seconds} s to a model of {rate_of_model:.0f}/s"
    _tell_overload(title, pairs, memory, saturated)
    print(f"wrote {report.save(args.out, 'overload', pairs, peak=peak, memory=memory, saturated=saturated)}")


def _tell_overload(title: str, pairs: list[report.Row], memory: list[int], saturated: dict[str, Any]) -> None:
    columns = {
        "round": "Round",
        "goodput": "goodput × peak",
        "accepted_p99": "accepted p99 ms",
        "of_peak_p99": "× at peak",
    }
    more = {"refused": "429", "refused_p99": "429 p99 ms", "refused_max": "429 max ms", "other": "other"}
    last = {"neighbour_p99": "neighbour p99 ms", "neighbour_ratio": "× calm"}
    report.table(title, pairs, {**columns, **more, **last})
    ratio = statistics.median(row["neighbour_ratio"] for row in pairs)
    sizes = [round(size / 2**20) for size in memory]
    print(f"median of the neighbour's ratio: {ratio:.2f}; memory before and after each round, MiB: {sizes}")
    print(
        f"a fast model at saturation, {SATURATING} connections: {saturated['requests'] / saturated['seconds']:,.0f} "
        f"answered and {saturated['bad'] / saturated['seconds']:,.0f} refused per second, "
        f"p99 {saturated['p99']:.0f} ms, memory after it {sizes[-1]} MiB"
    )


def lazy(args: argparse.Namespace, models: Path, folder: Path) -> None:
    case = CASES["identity"]
    entry = {"name": "identity", "uri": str(models / "identity")}
    others = [{"name": f"other-{number:04}", "uri": str(models / "identity")} for number in range(args.models - 1)]
    contents = {
        "one model": {"groups": [{"name": "all", "load": "lazy", "models": [entry]}]},
        f"{args.models} models": {"groups": [{"name": "all", "load": "lazy", "models": [*others, entry]}]},
    }
    rows: list[report.Row] = []
    with ExitStack() as stack:
        servers = [
            stack.enter_context(modelhub(folder, content, name.replace(" ", "-"))) for name, content in contents.items()
        ]
        for server in servers:
            server.wait(case)
        for number in range(args.rounds):
            for server in servers if number % 2 else servers[::-1]:
                rows.append({**measure(server, case, 32, args.seconds), "round": number})
                say(rows[-1])
    few, many = ([row["cpu_us"] for row in rows if row["server"] == server.name] for server in servers)
    ratios = sorted(b / a for a, b in zip(few, many, strict=True))
    found = report.medians(rows, ("server", "case", "connections"), ("rps", "cpu_us", "p50", "p99"))
    columns = {"server": "Server", "rps": "req/s", "cpu_us": "cpu µs", "p50": "p50 ms", "p99": "p99 ms"}
    report.table(f"lazy models configured, {args.rounds} alternating pairs", found, columns)
    print(f"CPU per request, ratio: median {statistics.median(ratios):.3f}, {ratios[0]:.3f} to {ratios[-1]:.3f}")
    print(f"wrote {report.save(args.out, 'lazy', rows, ratios=ratios)}")


def say(row: dict[str, Any]) -> None:
    print(" ".join(f"{key}={report._text(value)}" for key, value in row.items()), file=sys.stderr, flush=True)


COMMANDS = {"throughput": throughput, "latency": latency, "overload": overload, "lazy": lazy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="throughput")
    parser.add_argument("--cases", type=lambda text: text.split(","), help=f"of {','.join(CASES)}")
    parser.add_argument("--connections", type=lambda text: [int(each) for each in text.split(",")])
    parser.add_argument(
        "--rates", type=lambda text: [float(each) for each in text.split(",")], default=[200, 1000, 2000]
    )
    parser.add_argument("--rounds", type=int, help="default 3; overload 5, lazy 10")
    parser.add_argument("--seconds", type=int, help="of one measurement; default 4, overload 60")
    parser.add_argument("--models", type=int, default=1000, help="how many the command lazy configures")
    parser.add_argument(
        "--peer", action="append", default=[], help="name=command with {port}, {name}, {model}, {folder}"
    )
    parser.add_argument("--work", type=Path, default=HERE.parent / ".bench", help="models, logs and results")
    args = parser.parse_args()
    args.cases = args.cases or (["identity", "iris"] if args.command == "latency" else list(CASES))
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    args.peers = dict(each.split("=", 1) for each in args.peer)
    args.rounds = args.rounds or {"overload": 5, "lazy": 10}.get(args.command, 3)
    args.seconds = args.seconds or {"overload": 60}.get(args.command, 4)
    args.out = args.work / "results"
    models = args.work / "models"
    folder = args.work / "runs" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    if not (models / "iris").exists():
        subprocess.run([sys.executable, str(HERE / "models.py"), str(models)], check=True)
    COMMANDS[args.command](args, models, folder.resolve())


if __name__ == "__main__":
    main()
