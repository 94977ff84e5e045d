"""What is measured, as one table of rows; and the goals, which are ratios between what the rows give.

A row is a question, such as "50 clients read a history". Its cases are those who answer it, and a case is a system with
the load that is put on it. Nothing here runs anything: `systems.py` does.
"""

from __future__ import annotations

import fnmatch
from typing import NamedTuple


class Load(NamedTuple):
    """What is asked. Without `sessions` every client has one of its own."""

    workload: str  # get, add, turn; or one of those that are no load but a look: start, memory, instructions, many
    clients: int = 50
    items: int = 1  # in a request to add, or in an answer
    bytes: int = 500
    prefix: str = ""  # of the sessions' names; default: the row's name
    sessions: int = 0
    history: int = 0  # items that each session has before; 0: none
    keys: bool = False
    store: str = ""
    processes: int = 1  # of Python
    beside: str = ""  # what else goes on: "mix", or "idle" connections
    receipts: int = 0  # kept in the store before


class Case(NamedTuple):
    name: str
    system: str  # of systems.py
    load: Load


class Row(NamedTuple):
    name: str
    section: str
    title: str
    cases: list[Case]
    columns: str = "rate median p99 worst cpu"
    costly: bool = False  # measured with WHOLE=1 alone
    reduced: str = ""  # how this is smaller than what WHOLE=1 measures; "": it is not
    rounds: int | None = None  # other than the run's


class Goal(NamedTuple):
    """The `column` of a case, or its ratio to others' (their sum); with `most`, the bound is above."""

    text: str
    row: str
    case: str
    column: str
    bound: float
    beside: tuple[tuple[str, str], ...] = ()  # (row, case), whose columns are summed
    most: bool = False
    shown: tuple[str, ...] = ()  # cases of the row whose figures are shown beside, for comparison


LIMIT_GET = "limit: echo"
LIMIT_ADD = "limit: log with fdatasync"
REDIS = {f"Redis, {fsync}": f"redis-{fsync}" for fsync in ("no", "everysec", "always")}
EVERYSEC, ALWAYS = "Redis, everysec", "Redis, always"
WRITES = "rate median p99 worst cpu written"


# ---- reads ----


def get_row(name: str, title: str, clients: int, items: int, *, costly: bool = False) -> Row:
    load = Load("get", clients, items, history=items)
    systems = {"sessiond": "sessiond", EVERYSEC: "redis-everysec", LIMIT_GET: "echo"}
    return Row(name, "Reads", title, [Case(case, system, load) for case, system in systems.items()], costly=costly)


def plural(n: int, word: str) -> str:
    return f"{n:,} {word}" + ("" if n == 1 else "es" if word.endswith("s") else "s")


def get_rows() -> list[Row]:
    by_clients = [
        get_row(f"get-{n}", f"{plural(n, 'client')}, histories of 100 items of 500 bytes", n, 100)
        for n in (1, 8, 50, 500)
    ]
    by_items = [
        get_row(f"get-{n}-items", f"50 clients, histories of {n:,} items of 500 bytes", 50, n) for n in (10, 1000)
    ]
    return by_clients + by_items


# ---- appends ----


def add_row(name: str, clients: int, items: int, size: int, *, costly: bool = False) -> Row:
    load = Load("add", clients, items, size)
    cases = [Case("sessiond", "sessiond", load), Case("sessiond, with keys", "sessiond", load._replace(keys=True))]
    cases += [Case(case, system, load) for case, system in REDIS.items()]
    cases.append(Case(LIMIT_ADD, "log", load))
    if clients == 1:
        cases += [Case(LIMIT_GET, "echo", load), Case("one fdatasync", "disk", load)]
    what = "1 item of 500 bytes" if items == 1 else f"{items} items of 1 KB in one step"
    return Row(name, "Appends", f"{plural(clients, 'client')}, {what}", cases, WRITES, costly)


def add_rows() -> list[Row]:
    small = [add_row(f"add-{n}", n, 1, 500) for n in (1, 8, 50, 500)]
    large = [add_row(f"add4-{n}", n, 4, 1024, costly=n in (8, 500)) for n in (1, 8, 50, 500)]
    return small + large


# ---- how much is kept ----


def sessions_row(workload: str, whole: bool) -> Row:
    """Each number of sessions is in a store of its own. (Redis has one, and no use for more.)"""
    most = 100_000 if whole else 20_000
    items = 10 if workload == "get" else 1
    cases = [
        Case(
            f"sessiond, {plural(n, 'session')}",
            "sessiond",
            Load(
                workload,
                50,
                items,
                sessions=n,
                history=items,
                prefix=f"{workload}-over-{n}",
                store=f"{workload}-sessions-{n}",
            ),
        )
        for n in (1, 1000, most)
    ]
    redis = [c._replace(name=c.name.replace("sessiond", EVERYSEC), system="redis-everysec") for c in cases]
    what = "one item of 500 bytes is added" if workload == "add" else "10 items of 500 bytes are read"
    reduced = "" if whole else f"{most:,} sessions, not 100,000"
    columns = WRITES if workload == "add" else "rate median p99 worst cpu"
    title = f"50 clients, {what}, each time in one of so many sessions"
    return Row(f"{workload}-sessions", "How much is kept", title, cases + redis, columns, reduced=reduced)


def long_row(workload: str, whole: bool) -> Row:
    most = 1_000_000 if whole else 50_000
    cases = []
    for n in (1000, most):
        load = Load(workload, 8, 100 if workload == "get" else 1, sessions=1, history=n, prefix=f"{workload}-long-{n}")
        load = load._replace(store=load.prefix)
        cases += [
            Case(f"sessiond, {n:,} items", "sessiond", load),
            Case(f"{EVERYSEC}, {n:,} items", "redis-everysec", load),
        ]
    what = "the last 100 items are read from" if workload == "get" else "one item of 500 bytes is added to"
    reduced = "" if whole else f"{most:,} items, not 1,000,000"
    columns = WRITES if workload == "add" else "rate median p99 worst cpu"
    title = f"8 clients, {what} one session that has so many"
    return Row(
        f"{workload}-long",
        "How much is kept",
        title,
        sorted(cases, key=lambda c: c.system, reverse=True),
        columns,
        reduced=reduced,
    )


def receipts_row(whole: bool) -> Row:
    receipts = 4_000_000 if whole else 50_000
    load = Load("add", 50)
    keyed = load._replace(keys=True, store="receipts", receipts=receipts)
    cases = [
        Case("sessiond, no keys", "sessiond", load),
        Case(f"sessiond, keys, {receipts:,} receipts", "sessiond", keyed),
    ]
    reduced = "" if whole else f"{receipts:,} receipts, not 4,000,000"
    title = "50 clients, 1 item of 500 bytes, a key on every request"
    return Row("receipts", "How much is kept", title, cases, WRITES, reduced=reduced)


def start_row(whole: bool) -> Row:
    megabytes = 2000 if whole else 100
    load = Load("start", 8, 100, sessions=8, history=megabytes * 1000 // 4, prefix="start")
    cases = [
        Case("sessiond, stopped before", "start-sessiond", load),
        Case("sessiond, killed while it wrote", "start-sessiond-killed", load),
        Case(EVERYSEC, "start-redis", load),
    ]
    reduced = "" if whole else f"{megabytes} MB, not 2 GB"
    title = f"from its start until the server is ready, and until the first get is answered, with {megabytes:,} MB kept"
    return Row("start", "How much is kept", title, cases, "ready first", reduced=reduced)


# ---- who else is there ----


def beside_row() -> Row:
    load = Load("get", 1, 100, history=100)
    busy = load._replace(beside="mix")
    cases = [Case("sessiond, alone", "sessiond", load), Case("sessiond, beside it", "sessiond", busy)]
    cases += [
        Case(f"{EVERYSEC}, alone", "redis-everysec", load),
        Case(f"{EVERYSEC}, beside it", "redis-everysec", busy),
    ]
    title = (
        "1 client reads 100 items of 500 bytes, while another scans 50,000 items and appends 100 at a time, all it can"
    )
    return Row("get-beside", "Who else is there", title, cases)


def idle_row(workload: str) -> Row:
    items = 100 if workload == "get" else 1
    load = Load(workload, 50, items, history=100 if workload == "get" else 0, prefix=f"idle-{workload}")
    cases = [
        Case("sessiond, nobody else", "idle-sessiond", load),
        Case("sessiond, 10,000 idle", "idle-sessiond", load._replace(beside="idle")),
    ]
    what = "read 100 items" if workload == "get" else "append 1 item"
    title = f"50 clients {what} of 500 bytes, while 10,000 connections that have each asked once are idle"
    return Row(f"idle-{workload}", "Who else is there", title, cases, "rate median p99 worst cpu idle")


# ---- through the client libraries ----

PYTHON = {
    "SessiondSession": "python-sessiond",
    "SQLiteSession": "python-sqlite",
    "RedisSession, everysec": "python-redis-everysec",
    "RedisSession, always": "python-redis-always",
}
NODE = {"sessiond's Client": "node-sessiond", "ioredis, everysec": "node-everysec", "ioredis, always": "node-always"}


def turn_row(name: str, processes: int, history: int, *, costly: bool = False) -> Row:
    load = Load("turn", 1, history, processes=processes)
    title = f"runs of an agent, {plural(processes, 'process')}"
    title += f", conversations of {history:,} items and more" if history else ", conversations of up to 100 items"
    cases = [Case(case, system, load) for case, system in PYTHON.items()]
    return Row(name, "Turns: what the SDK's runner asks for", title, cases, "rate median p99 worst cpu failed", costly)


def library_rows(kind: str, systems: dict[str, str]) -> list[Row]:
    loads = {"get": Load("get", 1, 100, history=100), "add": Load("add", 1), "add4": Load("add", 1, 4, 1024)}
    what = {
        "get": "a get of 100 items of 500 bytes",
        "add": "an add of 1 item of 500 bytes",
        "add4": "an add of 4 items of 1 KB",
    }
    rows = []
    for name, load in loads.items():
        for clients in (1, 50, 500) if (kind, name) == ("Node", "add") else (1, 50):
            cases = [Case(case, system, load._replace(clients=clients)) for case, system in systems.items()]
            title = f"{kind}, one process, {plural(clients, 'client')}, {what[name]}"
            columns = "rate median p99 worst cpu"
            costly = name == "add4" or clients == 500 or (clients == 1 and name == "get")
            rows.append(Row(f"{kind.lower()}-{name}-{clients}", f"Through {kind}", title, cases, columns, costly))
    return rows


def many_row() -> Row:
    load = Load("many", 64, 1, 450)
    cases = [Case("SessiondSession", "many-sessiond", load), Case("SQLiteSession", "many-sqlite", load)]
    title = "64 processes that append 1,000 single items each"
    return Row("many", "Through Python", title, cases, "", costly=True, rounds=1)


# ---- figures that noise does not touch ----


def instruction_rows() -> list[Row]:
    loads = {
        "get": ("one get of 100 items of 500 bytes", Load("get", 1, 100, history=100)),
        "add": ("one durable add of 1 item of 500 bytes", Load("add", 1)),
        "add-keyed": ("the same with a key", Load("add", 1, keys=True)),
        "add-50": ("the same as 50 clients make it, without a key (how many share a commit varies)", Load("add", 50)),
        "add4": ("one durable add of 4 items of 1 KB", Load("add", 1, 4, 1024)),
    }
    return [
        Row(
            f"instructions-{name}",
            "Instructions",
            title,
            [Case("sessiond", "callgrind", load._replace(workload=f"instructions-{load.workload}"))],
            "",
            rounds=1,
        )
        for name, (title, load) in loads.items()
    ]


def all_rows(whole: bool) -> list[Row]:
    return [
        *get_rows(),
        *add_rows(),
        turn_row("turn-1", 1, 0),
        turn_row("turn-8", 8, 0),
        turn_row("turn-1-long", 1, 1000, costly=True),
        beside_row(),
        idle_row("get"),
        idle_row("add"),
        *(sessions_row(workload, whole) for workload in ("get", "add")),
        *(long_row(workload, whole) for workload in ("get", "add")),
        receipts_row(whole),
        start_row(whole),
        *library_rows("Python", PYTHON),
        many_row(),
        *library_rows("Node", NODE),
        *instruction_rows(),
    ]


def choose(rows: list[Row], patterns: list[str]) -> list[Row]:
    """Those that one of the patterns names: `get-50`, `add*`."""
    return [row for row in rows if any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns)]


# ---- the goals ----


def first(rows: dict[str, Row], row: str, word: str) -> str:
    """The row's first case of sessiond whose name has the word: those names have figures in them."""
    return next(case.name for case in rows[row].cases if word in case.name and case.name.startswith("sessiond"))


def goals(whole: bool) -> list[Goal]:
    rows = {row.name: row for row in all_rows(whole)}
    add = "add, 1 item of 500 bytes, durable, 50 clients: rate"
    add4 = "add, 4 items of 1 KB, durable, 50 clients: rate"
    busy = "add under 50 clients, checkpoints and following included"
    most_items = [rows[f"{name}-long"].cases[1].name for name in ("get", "add")]
    most_sessions = [rows[f"{name}-sessions"].cases[2].name for name in ("get", "add")]
    return [
        Goal(
            "get, 100 items of 500 bytes, 50 clients: rate",
            "get-50",
            "sessiond",
            "rate",
            0.7,
            (("get-50", LIMIT_GET),),
            shown=(EVERYSEC,),
        ),
        Goal("get, 1 client: median", "get-1", "sessiond", "median", 0.7, (("get-1", EVERYSEC),), most=True),
        Goal(add, "add-50", "sessiond", "rate", 1.5, (("add-50", ALWAYS),)),
        Goal(add, "add-50", "sessiond", "rate", 1.0, (("add-50", EVERYSEC),)),
        Goal(add, "add-50", "sessiond", "rate", 0.75, (("add-50", LIMIT_ADD),)),
        Goal(add4, "add4-50", "sessiond", "rate", 1.5, (("add4-50", ALWAYS),)),
        Goal(add4, "add4-50", "sessiond", "rate", 1.0, (("add4-50", EVERYSEC),)),
        Goal(add4, "add4-50", "sessiond", "rate", 0.5, (("add4-50", LIMIT_ADD),)),
        Goal(
            "add, durable, 1 client: median",
            "add-1",
            "sessiond",
            "median",
            1.5,
            (("add-1", "one fdatasync"), ("add-1", LIMIT_GET)),
            most=True,
        ),
        Goal(f"{busy}: p99", "add-50", "sessiond", "p99", 10_000, most=True, shown=(ALWAYS,)),
        Goal(f"{busy}: worst", "add-50", "sessiond", "worst", 50_000, most=True, shown=(ALWAYS,)),
        Goal(
            "the same with a key on every request and 4 million receipts kept: rate",
            "receipts",
            first(rows, "receipts", "receipts"),
            "rate",
            0.8,
            (("receipts", "sessiond, no keys"),),
        ),
        Goal(
            "turn, Python client, 1 process: rate",
            "turn-1",
            "SessiondSession",
            "rate",
            5,
            (("turn-1", "SQLiteSession"),),
        ),
        Goal(
            "turn, Python client, 1 process: rate",
            "turn-1",
            "SessiondSession",
            "rate",
            1.5,
            (("turn-1", "RedisSession, everysec"),),
        ),
        Goal("the same, 8 processes: rate", "turn-8", "SessiondSession", "rate", 10, (("turn-8", "SQLiteSession"),)),
        *(
            Goal(
                f"{word}, Node client beside ioredis, {what}, 50 clients: rate",
                f"node-{word}-50",
                "sessiond's Client",
                "rate",
                bound,
                ((f"node-{word}-50", "ioredis, everysec"),),
            )
            for word, what, bound in (("get", "100 items of 500 bytes", 1.5), ("add", "1 item of 500 bytes", 1.0))
        ),
        Goal(
            "get while another client scans and writes all it can: p99",
            "get-beside",
            "sessiond, beside it",
            "p99",
            3,
            (("get-beside", "sessiond, alone"),),
            most=True,
        ),
        *(
            Goal(
                f"1,000,000 items in a session, {word}: rate",
                f"{word}-long",
                case,
                "rate",
                0.8,
                ((f"{word}-long", "sessiond, 1,000 items"),),
            )
            for word, case in zip(("get", "add"), most_items, strict=True)
        ),
        *(
            Goal(
                f"100,000 sessions in a store, {word}: rate",
                f"{word}-sessions",
                case,
                "rate",
                0.8,
                ((f"{word}-sessions", "sessiond, 1,000 sessions"),),
            )
            for word, case in zip(("get", "add"), most_sessions, strict=True)
        ),
        Goal("10,000 idle connections: bytes of each", "idle-get", "sessiond, 10,000 idle", "idle", 8192, most=True),
        *(
            Goal(
                f"10,000 idle connections, 50 active, {word}: rate",
                f"idle-{word}",
                "sessiond, 10,000 idle",
                "rate",
                0.9,
                ((f"idle-{word}", "sessiond, nobody else"),),
            )
            for word in ("get", "add")
        ),
        Goal("start with a 2 GB store: ready", "start", "sessiond, stopped before", "ready", 100_000, most=True),
        Goal(
            "start with a 2 GB store after a kill: ready",
            "start",
            "sessiond, killed while it wrote",
            "ready",
            100_000,
            most=True,
        ),
    ]
