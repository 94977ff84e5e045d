"""The charts of REPORT.md: charts.py FIGURES.json DIRECTORY. Of those whose rows were not run, old ones are removed."""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update(
    {"svg.fonttype": "none", "svg.hashsalt": "sessiond", "font.family": "sans-serif", "font.size": 9}
)

from matplotlib import pyplot  # noqa: E402

CLIENTS = (1, 8, 50, 500)
COLOURS = {
    "sessiond": "#1b6ac9",
    "SessiondSession": "#1b6ac9",
    "Redis, no": "#e8b4a0",
    "Redis, everysec": "#d9714e",
    "Redis, always": "#a63c1c",
    "RedisSession, everysec": "#d9714e",
    "RedisSession, always": "#a63c1c",
    "SQLiteSession": "#5a8f3d",
}
OTHERS = "#999999"

Results = dict[str, dict[str, list[dict[str, Any] | None]]]


def median(results: Results, row: str, case: str, column: str) -> float | None:
    found = [figures[column] for figures in results.get(row, {}).get(case, []) if figures and figures.get(column)]
    return statistics.median(found) if found else None


def save(path: pathlib.Path) -> None:
    pyplot.tight_layout()
    pyplot.savefig(path, metadata={"Date": None})
    pyplot.close()


def by_clients(results: Results, path: pathlib.Path, kind: str, title: str) -> None:
    """Lines: the rate against the number of clients."""
    names = dict.fromkeys(case for n in CLIENTS for case in results.get(f"{kind}-{n}", {}) if case != "one fdatasync")
    _, axes = pyplot.subplots(figsize=(6.4, 3.4))
    for name in names:
        points = [(n, median(results, f"{kind}-{n}", name, "rate")) for n in CLIENTS]
        points = [(n, rate) for n, rate in points if rate]
        if len(points) > 1:
            dashes = "--" if name.startswith("limit") or "keys" in name else "-"
            colour = COLOURS.get(name, COLOURS["sessiond"] if name.startswith("sessiond") else OTHERS)
            axes.plot(*zip(*points, strict=True), dashes, marker="o", markersize=3, color=colour, label=name)
    axes.set_xscale("log")
    axes.set_xticks(CLIENTS, [str(n) for n in CLIENTS])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("clients")
    axes.set_ylabel("requests/s")
    axes.set_title(title)
    axes.legend(fontsize=7, frameon=False)
    save(path)


def bars(
    results: Results, path: pathlib.Path, rows: dict[str, str], columns: dict[str, str], title: str, scale: str
) -> None:
    """Groups of bars: for each row and column one group, in it a bar for each case."""
    groups = [(f"{rows[row]}{columns[column]}", row, column) for row in rows for column in columns if row in results]
    cases = list(dict.fromkeys(case for _, row, _ in groups for case in results[row]))
    _, axes = pyplot.subplots(figsize=(6.4, 3.4))
    width = 0.8 / len(cases)
    for i, case in enumerate(cases):
        heights = [median(results, row, case, column) or 0 for _, row, column in groups]
        at = [group + (i - (len(cases) - 1) / 2) * width for group in range(len(groups))]
        axes.bar(at, heights, width, label=case, color=COLOURS.get(case, pyplot.get_cmap("tab20")(i)))
    axes.set_xticks(range(len(groups)), [name for name, _, _ in groups])
    axes.set_yscale(scale)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title(title)
    axes.legend(fontsize=7, frameon=False)
    save(path)


def main() -> int:
    results: Results = json.loads(pathlib.Path(sys.argv[1]).read_text())
    where = pathlib.Path(sys.argv[2])
    for name in ("get", "add", "turns", "latency"):
        (where / f"{name}.svg").unlink(missing_ok=True)
    if "get-1" in results and "get-50" in results:
        by_clients(results, where / "get.svg", "get", "reads of 100 items of 500 bytes")
    if "add-1" in results and "add-50" in results:
        by_clients(results, where / "add.svg", "add", "appends of 1 item of 500 bytes")
    if "turn-1" in results:
        turns = {"turn-1": "1 process", "turn-8": "8 processes"}
        bars(results, where / "turns.svg", turns, {"rate": ""}, "runs of an agent a second, in Python", "linear")
    if "get-beside" in results:
        times = {"median": "median", "p99": "p99", "worst": "worst"}
        bars(
            results,
            where / "latency.svg",
            {"get-beside": ""},
            times,
            "a get beside a client that scans and writes, µs",
            "log",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
