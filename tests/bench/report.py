"""REPORT.md, from what a run has measured: the goals first, then a table for each row.

Nothing in it is typed by hand but notes.md beside this file, where there is one: what was tried where a goal is not
reached, and what stands in the way.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rows import Goal, Row, all_rows, goals
from systems import BUILD, HERE, INSTRUCTION_REQUESTS, PYTHON, TOP

Rounds = list[dict[str, Any] | None]
Results = dict[str, dict[str, Rounds]]
FUNCTIONS_SHOWN = 15


class About(NamedTuple):
    rounds: int
    seconds: float
    whole: bool
    patterns: list[str]


# ---- figures as text ----


def time_text(us: float) -> str:
    if us >= 10_000_000:
        return f"{us / 1_000_000:,.1f} s"
    return f"{us / 1000:,.1f} ms" if us >= 10_000 else f"{us:,.0f} µs"


class Column(NamedTuple):
    heading: str
    text: Callable[[float], str]
    over_rounds: Callable[[list[float]], float] = statistics.median


COLUMNS = {
    "rate": Column("requests/s", lambda value: f"{value:,.0f}"),
    "median": Column("median", time_text),
    "p99": Column("p99", time_text),
    "worst": Column("worst", time_text, max),
    "cpu": Column("CPU s per 1,000", lambda value: f"{value:.3f}"),
    "written": Column("written per byte", lambda value: f"{value:.1f}"),
    "failed": Column("calls that failed", lambda value: f"{value:,.0f}", sum),
    "idle": Column("bytes of an idle connection", lambda value: f"{value:,.0f}"),
    "ready": Column("ready", time_text),
    "first": Column("first answer", time_text),
}


def values(rounds: Rounds, column: str) -> list[float]:
    return [figures[column] for figures in rounds if figures and figures.get(column) is not None]


def cell(rounds: Rounds, column: str) -> str:
    found = values(rounds, column)
    return COLUMNS[column].text(COLUMNS[column].over_rounds(found)) if found else "–"


def ratio(ours: Rounds, others: Iterable[Rounds], column: str) -> float | None:
    """The median over the rounds in which all were measured."""
    found = []
    for mine, *theirs in zip(ours, *others, strict=True):
        if mine and all(theirs):
            found.append(mine[column] / sum(figures[column] for figures in theirs if figures))
    return statistics.median(found) if found else None


# ---- the goals ----


def bound_text(goal: Goal) -> str:
    sign = "≤" if goal.most else "≥"
    if goal.beside:
        others = " + ".join(case for _, case in goal.beside)
        return f"{sign} {goal.bound:g} × " + (f"({others})" if len(goal.beside) > 1 else others)
    return f"{sign} {COLUMNS[goal.column].text(goal.bound)}"


def reached(goal: Goal, results: Results) -> tuple[str, str]:
    """What the run gave, and whether that is enough; two empty texts if it was not measured."""
    cases = results.get(goal.row, {})
    ours = cases.get(goal.case, [])
    if goal.beside:
        value = ratio(ours, [results[row][case] for row, case in goal.beside], goal.column) if ours else None
        text = f"{value:.2f} ×" if value is not None else ""
    else:
        found = values(ours, goal.column)
        value = statistics.median(found) if found else None
        text = COLUMNS[goal.column].text(value) if value is not None else ""
    if value is None:
        return "", ""
    shown = [
        f"{case}: {COLUMNS[goal.column].text(statistics.median(values(cases[case], goal.column)))}"
        for case in goal.shown
        if values(cases[case], goal.column)
    ]
    enough = value <= goal.bound if goal.most else value >= goal.bound
    short = abs(value / goal.bound - 1)
    return text + "".join(f" ({part})" for part in shown), "yes" if enough else f"**no**, by {short:.0%}"


def goal_lines(results: Results, about: About) -> list[str]:
    rows = {row.name: row for row in all_rows(about.whole)}
    head = ["## The goals", "", "| | goal | this run | reached | row |", "|---|---|---|---|---|"]
    lines = []
    for goal in goals(about.whole):
        if about.patterns and goal.row not in results:
            continue
        text, verdict = reached(goal, results)
        reduced = rows[goal.row].reduced
        if text and reduced:
            text += f" with {reduced}"
            verdict = f"not judged ({verdict})"
        lines.append(f"| {goal.text} | {bound_text(goal)} | {text or 'not run'} | {verdict or '–'} | {goal.row} |")
    return [*head, *lines, ""] if lines else []


# ---- the tables ----


def command_of(row: Row, about: About) -> str:
    whole = " WHOLE=1" if about.whole and (row.costly or not same_in_both(row.name)) else ""
    rounds = "" if row.rounds else f" ROUNDS={about.rounds} SECONDS={about.seconds:g}"
    return f"make bench ROWS={row.name}{rounds}{whole}"


def same_in_both(name: str) -> bool:
    return not next(row for row in all_rows(False) if row.name == name).reduced


def row_lines(row: Row, cases: dict[str, Rounds]) -> list[str]:
    columns = row.columns.split()
    with_ratio = "rate" in columns
    headings = [COLUMNS[name].heading for name in columns]
    if with_ratio:
        headings[1:1] = ["least and most"]
        headings.append(f"{row.cases[0].name} / this")
    lines = ["| | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    base = cases[row.cases[0].name]
    for name, rounds in cases.items():
        cells = [cell(rounds, column) for column in columns]
        if with_ratio:
            rates = values(rounds, "rate")
            cells[1:1] = [f"{min(rates):,.0f} to {max(rates):,.0f}" if rates else "–"]
            relation = ratio(base, [rounds], "rate")
            cells.append(f"{relation:.2f}" if relation is not None else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    texts = {text for rounds in cases.values() for figures in rounds if figures for text in figures.get("errors", [])}
    return [*lines, *([""] if texts else []), *(f"Failed: `{text}`" for text in sorted(texts))]


def many_lines(_row: Row, cases: dict[str, Rounds]) -> list[str]:
    lines = ["| | | calls/s | seconds | median | worst | calls that failed | lost | doubled |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    texts = set()
    for name, rounds in cases.items():
        for r in (r for figures in rounds if figures for r in figures["many"]):
            failed = f"{r['errors'] + r['not_made']:,}"
            times = f"{time_text(r['median_ms'] * 1000)} | {time_text(r['worst_ms'] * 1000)}"
            lines.append(
                f"| {name} | {r['case']} | {r['rate']:,} | {r['seconds']:,} | {times} | {failed} | {r['lost']} |"
                f" {r['doubled']} |"
            )
            texts.update(r["error_texts"])
    return [*lines, "", *(f"Failed: `{text}`" for text in sorted(texts))]


def instruction_lines(_row: Row, cases: dict[str, Rounds]) -> list[str]:
    """The sums, then the functions that take most."""
    lines = []
    for figures in (figures for rounds in cases.values() for figures in rounds if figures):
        threads = {name: functions for name, functions in figures["threads"].items() if functions}
        sums = {name: sum(functions.values()) for name, functions in threads.items()}
        parts = ", ".join(f"{name} {n:,.0f}" for name, n in sums.items())
        lines += [f"**{sum(sums.values()):,.0f} instructions**: {parts}.", ""]
        for name, functions in threads.items():
            top = sorted(functions.items(), key=lambda item: -item[1])[:FUNCTIONS_SHOWN]
            lines.append(f"{name}: " + ", ".join(f"`{function}` {n / sums[name]:.1%}" for function, n in top) + "  ")
    return lines


def table(row: Row, results: Results) -> list[str]:
    if row.name.startswith("instructions"):
        return instruction_lines(row, results[row.name])
    return (many_lines if row.name == "many" else row_lines)(row, results[row.name])


CHARTS = {
    "Reads": ("get.svg", "reads by clients"),
    "Appends": ("add.svg", "appends by clients"),
    "Turns: what the SDK's runner asks for": ("turns.svg", "turns by processes"),
    "Who else is there": ("latency.svg", "median, p99 and worst"),
}


def sections(rows: list[Row], results: Results, about: About, where: pathlib.Path) -> list[str]:
    lines, section = [], ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines += [f"## {section}", ""]
            chart, text = CHARTS.get(section, ("", ""))
            if chart and (where / chart).exists():
                lines += [f"![{text}]({chart})", ""]
        reduced = f" ({row.reduced}: WHOLE=1)" if row.reduced else ""
        lines += [f"### {row.name}: {row.title}{reduced}", "", *table(row, results), ""]
        lines += [f"`{command_of(row, about)}`", ""]
    return lines


# ---- where and when ----


def output(*command: str | pathlib.Path) -> str:
    """The first line, or nothing if there is no such command or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOP)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (done.stdout.splitlines() or [""])[0]


def disk(where: pathlib.Path) -> str:
    device = f"/sys/dev/block/{os.major(where.stat().st_dev)}:{os.minor(where.stat().st_dev)}"
    name = pathlib.Path(device).resolve()
    queue = next((d / "queue" for d in (name, name.parent) if (d / "queue").exists()), None)
    if not queue:
        return "an unknown disk"
    facts = {
        fact: (queue / fact).read_text().strip() for fact in ("rotational", "write_cache") if (queue / fact).exists()
    }
    return f"{name.name} (" + ", ".join(f"{fact}: {text}" for fact, text in facts.items()) + ")"


def machine(file_system: str) -> str:
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return (
        f"{os.cpu_count()} x {cpu or platform.machine()}, {memory / 2**20:.0f} GiB, {platform.system()}"
        f" {platform.release()}, data with {file_system} on {disk(HERE)}"
    )


def versions() -> str:
    code = "import agents.version, sqlite3, sys; print(agents.version.__version__, sqlite3.sqlite_version,"
    agents, sqlite, python = (output(PYTHON, "-c", code + " sys.version.split()[0])") or "? ? ?").split()
    redis = (output("redis-server", "--version") or "? ? v=?").split()[2].removeprefix("v=")
    sdk = f"openai-agents {agents} on Python {python} with SQLite {sqlite}"
    return f"{output(BUILD / 'sessiond', '--version')}, Redis {redis}, {sdk}"


def commit() -> str:
    changed = output(
        "git", "status", "--porcelain", "--untracked-files=no", "--", ":!tests/bench/*.svg", ":!tests/bench/REPORT.md"
    )
    return (output("git", "rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if changed else "")


NOTES = """\
How to read this: medians over {rounds} rounds of {seconds:g} s for each case, in turns; `worst` is the worst of all
rounds; ratios are taken within each round. Only ratios within one run mean anything.

* **The load.** One program in C (generate.c) loads sessiond, Redis and the limits over Unix sockets: one process, one
  request under way on each connection, every connection with a session of its own where nothing else is said.
* **Durable** before the answer are sessiond's appends, those of Redis with `always`, of SQLiteSession, and of the log.
  Redis with `everysec` may lose what it acknowledged in the last second or two, with `no` what the kernel had not
  written. Redis keeps no receipts: "with keys" is sessiond with a key on every append, as its client libraries send
  them. Reads do not depend on `appendfsync`.
* **Limits.** *Echo* is a bare libuv server that answers with as many bytes; *log* the same before a file that is made
  beforehand and overwritten, one write and one fdatasync for all requests that waited (both in limit.c).
* **CPU seconds** are those of the server for 1,000 requests, the work that it does afterwards included; in the rows
  through Python and Node those of the client processes are in it.
* **Written per byte** is what came to the disk until all was there, for each byte of the items.
* **A turn** is one run of an agent with one tool call as the SDK's runner makes it: a get of all, an add of the input,
  an add of call and output, an add of the answer.
* **Instructions** are those of the daemon for one request, under callgrind: the difference of {n} and {twice} requests.
  What the kernel does is not in them. Libraries without symbols have functions without names.
"""


def given(about: About) -> str:
    names = ("WHOLE", "ROWS", "ROUNDS", "SECONDS")
    return " ".join(["make bench", *(f'{name}="{os.environ[name]}"' for name in names if os.environ.get(name))])


def not_run(rows: list[Row], about: About) -> list[str]:
    names = {row.name for row in rows}
    left = [row.name for row in all_rows(about.whole) if row.name not in names and not about.patterns]
    reduced = [f"{row.name} ({row.reduced})" for row in rows if row.reduced]
    lines = []
    if left:
        lines += [f"Not run: {', '.join(left)}."]
    if reduced:
        lines += [f"Smaller than with WHOLE=1: {'; '.join(reduced)}."]
    return [*lines, ""] if lines else []


def make(
    rows: list[Row], results: Results, troubles: dict[str, str], about: About, where: pathlib.Path, file_system: str
) -> str:
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    notes = HERE / "notes.md"
    lines = [
        "# sessiond, measured",
        "",
        f"{date}, commit {commit()}, `{given(about)}`.",
        f"Machine: {machine(file_system)}. Versions: {versions()}.",
        "",
        *goal_lines(results, about),
        *not_run(rows, about),
        *(f"Trouble with {name}: {text}" for name, text in troubles.items()),
        *([""] if troubles else []),
        *([notes.read_text()] if notes.exists() and not about.patterns else []),
        NOTES.format(
            rounds=about.rounds, seconds=about.seconds, n=INSTRUCTION_REQUESTS, twice=2 * INSTRUCTION_REQUESTS
        ),
        *sections(rows, results, about, where),
    ]
    return "\n".join(lines)
