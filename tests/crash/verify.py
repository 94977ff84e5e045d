#!/usr/bin/env python3
"""Were the promises kept? The one verifier of every crash harness.

    verify.py --histories FILE [--snapshot FILE AT]... LOG...        exit status 0: all kept, 1: not, 2: usage

It compares what clients were told (a log each) with what the daemon holds in the end (the histories), and with
snapshots: the histories of backups, each taken after the moment AT. All three are text, a word between spaces a field,
"-" for an absent one. Times are microseconds of one monotonic clock. OP is CLIENT.NUMBER, numbered as sent.

    log        sent OP AT METHOD SESSION KEY N_ITEMS FROM_SEQ IF_REVISION IF_EPOCH       before it is sent
               again OP AT                                        repeated by the program: the library did not know
               done OP AT REVISION EPOCH FIRST_SEQ LAST_SEQ REMOVED [ITEM]               the answer to a change;
                                                   of a pop with the ITEM's name, "-" (none) or "erased"
               read OP AT REVISION EPOCH HEAD_SEQ FIRST_SEQ LAST_SEQ N_ITEMS ITEM...     the answer to get_items,
                                                   with the names of its last items, up to five
               failed OP AT CODE                                  refused, hence certainly not made
    histories  session ID COUNT HEAD_SEQ REVISION EPOCH
               item SEQ ITEM                                      of the session above, oldest first

An ITEM's name is OP.INDEX/OF: whose batch it is from, and where it stood in it. "altered" stands for bytes that nobody
sent. Every change in the logs must have its answer in the end; a harness that kills its clients starts them again with
their logs, to have them ask.

Each change names the revision that it made, so the logs tell the one order in which everything happened, whoever
asked. The verifier replays it and compares every answer, every read, every snapshot and the end. So that a failure has
a name, the promises are also checked one by one:

    lost        acknowledged, but neither stored nor removed by anyone
    doubled     stored or given away more than once
    foreign     stored, but never sent, or altered, or refused
    torn        a batch that is not whole, not contiguous or not in its order
    reordered   a change that took effect before one that was acknowledged before it was sent, or before an earlier
                one of its own client
    returned    an item that was popped, and is there again
    gap         a missing seq where nothing was ever removed
    key         two changes with one key
    differs     an answer, a read or a history that the replay contradicts
    open        a change without an answer: the harness is not finished
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

SHOWN = 5
"""Violations of a kind that are printed; all are counted."""


class Malformed(Exception):
    """A log or a history that is none."""


# ---- what is read ----


@dataclass(slots=True)
class Op:
    """A call of a client, and what became of it."""

    name: str
    sent_at: int
    method: str
    session: str
    key: str
    n_items: int
    from_seq: int | None
    if_revision: int | None
    if_epoch: int | None
    outcome: str = "open"
    """open, done, read or failed"""
    again: bool = False
    done_at: int = 0
    revision: int = 0
    epoch: int = 0
    first_seq: int = 0
    last_seq: int = 0
    removed: int = 0
    head_seq: int = 0
    n_read: int = 0
    items: tuple[str, ...] = ()
    """The names of items that were popped or read."""

    @property
    def is_change(self) -> bool:
        return self.method != "get_items"

    @property
    def has_effect(self) -> bool:
        """Whether it is a change that made a revision."""
        if self.outcome != "done":
            return False
        if self.method == "add_items":
            return self.n_items > 0
        if self.method == "pop_item":
            return self.removed > 0
        return self.revision > 0

    @property
    def client(self) -> str:
        return self.name.partition(".")[0]

    @property
    def number(self) -> int:
        return int(self.name.partition(".")[2])

    def item(self, index: int) -> str:
        return f"{self.name}.{index}/{self.n_items}"


@dataclass(slots=True)
class History:
    """A session as it was read from a daemon."""

    session: str
    count: int
    head_seq: int
    revision: int
    epoch: int
    items: list[tuple[int, str]] = field(default_factory=list)
    where: str = "in the end"


def number(word: str) -> int | None:
    return None if word == "-" else int(word)


def read_log(path: str) -> Iterator[Op]:
    """The calls of one client in the order in which it sent them."""
    ops: dict[str, Op] = {}
    with open(path) as log:
        for line in log:
            words = line.split()
            try:
                take_line(ops, words)
            except (KeyError, ValueError, IndexError) as error:
                raise Malformed(f"{path}: {line.strip()!r}: {error!r}") from error
    return iter(ops.values())


def take_line(ops: dict[str, Op], words: list[str]) -> None:
    what, name, at = words[0], words[1], int(words[2])
    if what == "sent":
        method, session, key, n_items, *conditions = words[3:]
        from_seq, if_revision, if_epoch = map(number, conditions)
        ops[name] = Op(name, at, method, session, key, int(n_items), from_seq, if_revision, if_epoch)
        return
    op = ops[name]
    if what == "again":
        op.again = True
        return
    if op.outcome != "open":
        raise ValueError("a second answer")
    op.outcome, op.done_at = what, at
    if what == "done":
        op.revision, op.epoch, op.first_seq, op.last_seq, op.removed = map(int, words[3:8])
        op.items = tuple(words[8:])
    elif what == "read":
        op.revision, op.epoch, op.head_seq, op.first_seq, op.last_seq, op.n_read = map(int, words[3:9])
        op.items = tuple(words[9:])
    elif what != "failed":
        raise ValueError("no such line")


def read_histories(path: str) -> dict[str, History]:
    histories: dict[str, History] = {}
    history: History | None = None
    with open(path) as file:
        for line in file:
            words = line.split()
            if words[0] == "session":
                count, head_seq, revision, epoch = map(int, words[2:])
                history = History(words[1], count, head_seq, revision, epoch)
                histories[words[1]] = history
            elif words[0] == "item" and history:
                history.items.append((int(words[1]), words[2]))
            else:
                raise Malformed(f"{path}: {line.strip()!r}")
    return histories


# ---- what is found ----


class Verdict:
    """The violations, by kind, and how much was looked at."""

    def __init__(self) -> None:
        self.violations: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
        self.counts: collections.Counter[str] = collections.Counter()

    def add(self, kind: str, text: str) -> None:
        self.violations[kind].append(text)

    @property
    def good(self) -> bool:
        return not self.violations

    def lines(self) -> Iterator[str]:
        yield ", ".join(f"{count:,} {what}" for what, count in sorted(self.counts.items()))
        for kind, texts in sorted(self.violations.items()):
            yield f"{kind.upper()}: {len(texts)}"
            yield from (f"    {text}" for text in texts[:SHOWN])
        yield "every promise was kept" if self.good else "NOT every promise was kept"


# ---- the replay ----


@dataclass(slots=True)
class Model:
    """A session as it must be, after some of its changes."""

    items: list[tuple[int, str]] = field(default_factory=list)
    head_seq: int = 0
    revision: int = 0
    epoch: int = 0

    def _append(self, op: Op) -> None:
        self.items += [(self.head_seq + 1 + index, op.item(index)) for index in range(op.n_items)]
        self.head_seq += op.n_items

    def _remove_from(self, seq: int) -> int:
        keep = len(self.items)
        while keep and self.items[keep - 1][0] >= seq:
            keep -= 1
        removed = len(self.items) - keep
        del self.items[keep:]
        return removed

    def apply(self, op: Op) -> str | None:
        """Make the change, and say what is wrong with its answer."""
        if op.if_revision not in (None, self.revision) or op.if_epoch not in (None, self.epoch):
            return f"it was made in spite of its precondition, at revision {self.revision} and epoch {self.epoch}"
        first, removed = self.head_seq + 1, 0
        if op.method == "pop_item":
            if not self.items:
                return "it popped an item where none was"
            first, item = self.items.pop()
            removed = 1
            if op.items not in ((item,), ("erased",)):
                return f"it popped {op.items}, where {item} was last"
        elif op.method != "add_items":
            removed = self._remove_from(op.from_seq or 0)
        if op.method in ("add_items", "replace_items"):
            self._append(op)
        last = first if op.method == "pop_item" else self.head_seq
        expected = (first, last, removed) if first <= last else (0, 0, removed)
        if (op.first_seq, op.last_seq, op.removed) != expected:
            return f"it answered {(op.first_seq, op.last_seq, op.removed)} and not {expected}"
        if self.revision and not (op.epoch > self.epoch if removed else op.epoch == self.epoch):
            return f"it removed {removed} items and the epoch went from {self.epoch} to {op.epoch}"
        self.revision, self.epoch = op.revision, op.epoch
        return None

    def contradicts_answer(self, op: Op) -> str | None:
        """What a call that changed nothing was told, at this revision."""
        if op.epoch != self.epoch:
            return f"epoch {op.epoch} and not {self.epoch}"
        if op.method == "pop_item" and self.items:
            return f"a pop of nothing, where {len(self.items)} items are"
        return self._contradicts_read(op) if op.method == "get_items" else None

    def _contradicts_read(self, op: Op) -> str | None:
        if op.head_seq != self.head_seq:
            return f"head_seq {op.head_seq} and not {self.head_seq}"
        if op.n_read not in (len(self.items), min(len(self.items), SHOWN)):
            return f"{op.n_read} items, where {len(self.items)} are"
        tail = self.items[len(self.items) - len(op.items) :]
        if op.items != tuple(name for _, name in tail):
            return f"{op.items} and not {tail}"
        if op.n_read and (op.first_seq, op.last_seq) != (self.items[-op.n_read][0], self.items[-1][0]):
            return f"seq {op.first_seq} to {op.last_seq}"
        return None

    def contradicts_history(self, history: History) -> str | None:
        seen = (history.count, history.head_seq, history.revision, history.epoch)
        expected = (len(self.items), self.head_seq, self.revision, self.epoch)
        if seen != expected:
            return f"count, head_seq, revision and epoch are {seen} and not {expected}"
        for mine, theirs in zip(self.items, history.items, strict=False):
            if mine != theirs:
                return f"{theirs} where {mine} must be"
        return None if len(history.items) == len(self.items) else f"{len(history.items)} items"


class Session:
    """All that is known of one session."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ops: list[Op] = []
        self.end = History(name, 0, 0, 0, 0)
        self.snapshots: list[History] = []

    def changes(self) -> list[Op]:
        return [op for op in self.ops if op.has_effect]

    def replay(self, verdict: Verdict) -> None:
        """Run through all revisions; the first thing that cannot be ends it."""
        made = {op.revision: op for op in self.changes()}
        told: collections.defaultdict[int, list[Op]] = collections.defaultdict(list)
        for op in self.ops:
            if op.outcome in ("done", "read") and not op.has_effect:
                told[op.revision].append(op)
        seen: collections.defaultdict[int, list[History]] = collections.defaultdict(list)
        for history in (*self.snapshots, self.end):
            seen[history.revision].append(history)

        model = Model()
        last = max((0, *made, *told, *seen))
        for revision in range(last + 1):
            if revision and revision not in made:
                verdict.add("differs", f"{self.name}: nobody knows who made revision {revision} of {last}")
                return
            wrong = model.apply(made[revision]) if revision else None
            if wrong:
                verdict.add("differs", f"{self.name}, revision {revision}, {made[revision].name}: {wrong}")
                return
            for op in told[revision]:
                if wrong := model.contradicts_answer(op):
                    verdict.add("differs", f"{self.name}, revision {revision}, {op.name} was told: {wrong}")
            for history in seen[revision]:
                if wrong := model.contradicts_history(history):
                    verdict.add("differs", f"{self.name}, {history.where}: {wrong}")


# ---- the promises one by one ----


def check_changes_are_there(session: Session, verdict: Verdict) -> None:
    """Of two changes with one revision, only one can still be there; of one beyond the last revision, nothing is."""
    by_revision: dict[int, Op] = {}
    for op in session.changes():
        other = by_revision.setdefault(op.revision, op)
        if other is not op:
            verdict.add("lost", f"{session.name}: {other.name} and {op.name} were both told revision {op.revision}")
        if op.revision > session.end.revision:
            last = session.end.revision
            verdict.add("lost", f"{session.name}: {op.name} made revision {op.revision}, but {last} is the last")


def check_items_are_there(session: Session, verdict: Verdict) -> None:
    """What was acknowledged is stored, unless a later removal took it."""
    stored = {name for _, name in session.end.items}
    popped = {op.first_seq for op in session.changes() if op.method == "pop_item"}
    cuts = sorted(
        (op.revision, op.from_seq or 0) for op in session.changes() if op.method in ("clear_session", "replace_items")
    )
    lowest = lowest_cuts(cuts)
    for op in session.changes():
        if op.method not in ("add_items", "replace_items"):
            continue
        cut = lowest(op.revision)
        for index in range(op.n_items):
            seq = op.first_seq + index
            if op.item(index) not in stored and seq not in popped and (cut is None or seq < cut):
                verdict.add("lost", f"{session.name}: {op.item(index)}, acknowledged with seq {seq}")


def lowest_cuts(cuts: list[tuple[int, int]]) -> Callable[[int], int | None]:
    """A function that says for a revision the lowest seq from which a later change removed everything."""
    revisions = [revision for revision, _ in cuts]
    lowest = [0] * len(cuts)
    so_far = sys.maxsize
    for i in range(len(cuts) - 1, -1, -1):
        so_far = min(so_far, cuts[i][1])
        lowest[i] = so_far

    def after(revision: int) -> int | None:
        low, high = 0, len(revisions)
        while low < high:
            middle = (low + high) // 2
            if revisions[middle] > revision:
                high = middle
            else:
                low = middle + 1
        return lowest[low] if low < len(lowest) else None

    return after


def check_items_were_sent(session: Session, all_ops: dict[str, Op], verdict: Verdict) -> None:
    for seq, name in session.end.items:
        op_name, _, place = name.rpartition(".")
        op = all_ops.get(op_name)
        index, _, of = place.partition("/")
        if op is None or op.session != session.name or op.n_items != int(of) or int(index) >= op.n_items:
            verdict.add("foreign", f"{session.name}: {name} with seq {seq}")
        elif op.outcome == "failed":
            verdict.add("foreign", f"{session.name}: {name} with seq {seq}, which was refused")


def check_once(session: Session, verdict: Verdict) -> None:
    where: dict[str, str] = {}
    stored = [(name, f"seq {seq}") for seq, name in session.end.items]
    popped = [(op.items[0], f"popped by {op.name}") for op in session.changes() if op.method == "pop_item"]
    for name, place in (*stored, *popped):
        other = where.setdefault(name, place)
        if other is not place and name != "erased":
            verdict.add("doubled", f"{session.name}: {name}: {other} and {place}")
    for op in session.changes():
        if op.method in ("add_items", "replace_items"):
            place = where.get(op.item(0), "") if op.n_items else ""
            if place.startswith("seq") and place != f"seq {op.first_seq}":
                verdict.add("doubled", f"{session.name}: {op.item(0)}: {place}, acknowledged with seq {op.first_seq}")


def check_batches_are_whole(session: Session, verdict: Verdict) -> None:
    """Removals take from the end: of a batch there is a beginning, without holes; and all of it where none were."""
    batches: collections.defaultdict[str, list[tuple[int, int, int]]] = collections.defaultdict(list)
    for seq, name in session.end.items:
        op_name, _, place = name.rpartition(".")
        index, _, of = place.partition("/")
        if op_name:
            batches[op_name].append((seq, int(index), int(of)))
    removals = any(op.removed for op in session.changes())
    for op_name, items in batches.items():
        first = items[0][0]
        if any((seq - first, index) != (i, i) for i, (seq, index, _) in enumerate(items)):
            verdict.add("torn", f"{session.name}: {op_name} stands at {[(seq, index) for seq, index, _ in items]}")
        elif len(items) != items[0][2] and not removals:
            verdict.add("torn", f"{session.name}: of {op_name}, {len(items)} items of {items[0][2]}")


def check_order_of_answers(session: Session, verdict: Verdict) -> None:
    """Real time: what is sent after an answer comes after what was answered, whoever asks."""
    answered = [op for op in session.ops if op.outcome in ("done", "read")]
    sent = [(op.sent_at, False, op.name, op) for op in answered]
    done = [(op.done_at, True, op.name, op) for op in answered]
    floor, by = 0, ""
    for _, is_answer, _, op in sorted(sent + done):
        if is_answer:
            if op.revision > floor:
                floor, by = op.revision, op.name
        elif op.revision < floor + op.has_effect:
            was = f"{op.name} at revision {op.revision}"
            verdict.add("reordered", f"{session.name}: {was} was sent after the answer to {by}, revision {floor}")
    for history in session.snapshots:
        at = int(history.where.rpartition(" ")[2])
        known = max((op.revision for op in answered if op.done_at < at), default=0)
        if history.revision < known:
            was = f"revision {history.revision}, after {known} was acknowledged"
            verdict.add("lost", f"{session.name}: {history.where} it has {was}")


def check_order_of_clients(session: Session, verdict: Verdict) -> None:
    """Pipelined calls of one client take effect as sent. What its program had to repeat may come later."""
    latest: dict[str, Op] = {}
    for op in sorted(session.ops, key=lambda op: op.number):
        if op.outcome not in ("done", "read") or op.again:
            continue
        before = latest.get(op.client)
        if before and op.revision < before.revision + op.has_effect:
            was = f"{before.name} at revision {before.revision}, then {op.name} at {op.revision}"
            verdict.add("reordered", f"{session.name}: {was}")
        if op.is_change:
            latest[op.client] = op


def check_popped_are_gone(session: Session, verdict: Verdict) -> None:
    popped = {op.items[0]: op for op in session.changes() if op.method == "pop_item"}
    for seq, name in session.end.items:
        if name in popped:
            verdict.add("returned", f"{session.name}: {name} with seq {seq}, popped by {popped[name].name}")
    for op in session.ops:
        for name in op.items if op.outcome == "read" else ():
            if name in popped and popped[name].revision <= op.revision:
                by = popped[name].name
                verdict.add("returned", f"{session.name}: {name}, popped by {by}, then read by {op.name}")


def check_no_gaps(session: Session, verdict: Verdict) -> None:
    if any(op.removed for op in session.changes()):
        return
    seqs = [seq for seq, _ in session.end.items]
    if seqs != list(range(1, len(seqs) + 1)):
        verdict.add("gap", f"{session.name}: {len(seqs)} items, and the last has seq {seqs[-1]}")


CHECKS = (
    check_changes_are_there,
    check_items_are_there,
    check_once,
    check_batches_are_whole,
    check_order_of_answers,
    check_order_of_clients,
    check_popped_are_gone,
    check_no_gaps,
)


def check_keys(ops: Iterable[Op], verdict: Verdict) -> None:
    by_key: dict[str, Op] = {}
    for op in ops:
        if op.is_change and by_key.setdefault(op.key, op) is not op:
            verdict.add("key", f"{op.key}: {by_key[op.key].name} and {op.name}")
        if op.is_change and op.outcome == "open":
            verdict.add("open", f"{op.session}: {op.name}")


def sort_by_session(
    ops: Iterable[Op], end: dict[str, History], snapshots: Iterable[tuple[dict[str, History], int]]
) -> dict[str, Session]:
    sessions: dict[str, Session] = {}
    for op in ops:
        sessions.setdefault(op.session, Session(op.session)).ops.append(op)
    for name, history in end.items():
        sessions.setdefault(name, Session(name)).end = history
    for histories, at in snapshots:
        for name, session in sessions.items():
            history = histories.get(name, History(name, 0, 0, 0, 0))
            history.where = f"in the snapshot of {at}"
            session.snapshots.append(history)
    return sessions


def verify(logs: Iterable[str], histories: str, snapshots: Iterable[tuple[str, int]] = ()) -> Verdict:
    """Check everything. `logs` and `histories` are paths; a snapshot is a path and a time."""
    verdict = Verdict()
    ops = {op.name: op for path in logs for op in read_log(path)}
    taken = [(read_histories(path), at) for path, at in snapshots]
    sessions = sort_by_session(ops.values(), read_histories(histories), taken)

    check_keys(ops.values(), verdict)
    for session in sessions.values():
        for check in CHECKS:
            check(session, verdict)
        check_items_were_sent(session, ops, verdict)
        session.replay(verdict)
        verdict.counts["items stored"] += len(session.end.items)
    verdict.counts["changes acknowledged"] = sum(op.outcome == "done" for op in ops.values())
    verdict.counts["changes refused"] = sum(op.outcome == "failed" and op.is_change for op in ops.values())
    verdict.counts["reads"] = sum(op.outcome == "read" for op in ops.values())
    verdict.counts["sessions"] = len(sessions)
    verdict.counts["snapshots"] = len(taken)
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(description="Were the promises kept? See the top of this file.")
    parser.add_argument("--histories", required=True)
    parser.add_argument("--snapshot", nargs=2, action="append", default=[], metavar=("FILE", "AT"))
    parser.add_argument("logs", nargs="+", metavar="LOG")
    arguments = parser.parse_args()
    try:
        verdict = verify(arguments.logs, arguments.histories, [(path, int(at)) for path, at in arguments.snapshot])
    except (Malformed, OSError) as error:
        print(f"verify: {error}", file=sys.stderr)
        return 2
    print(*verdict.lines(), sep="\n")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
