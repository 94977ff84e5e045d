"""What a program did to the files below a directory, as preload_record.c wrote it down, and what a crash of the machine
can have left of it.

The model of the disk is hostile, within what the promise of the README presumes. What was synced is there. Of what was
not, anything may be there: of each write some sectors and not others, with the old bytes, zeros or rubbish in the place
of the others; files that are shorter or longer; later writes without earlier ones; one file's and not another's. What a
write did not touch stays as it is. A sync of a file does not make its name durable, only a sync of the directory does.
The names of a directory come into being in their order, as they do with a journal.
"""

from __future__ import annotations

import enum
import pathlib
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

SECTOR = 512


class Kind(enum.IntEnum):
    CREATE = 1
    MAKE_DIRECTORY = 2
    WRITE = 3
    TRUNCATE = 4
    SYNC = 5
    UNLINK = 6
    RENAME = 7


@dataclass(slots=True, frozen=True)
class Call:
    """One call as it was made. A truncation to a size has it as its offset."""

    at_us: int
    inode: int
    offset: int
    kind: Kind
    path: str
    data: bytes


_HEADER = struct.Struct("=QQQIIQ")


def read_record(path: pathlib.Path) -> Iterator[Call]:
    record = path.read_bytes()
    at = 0
    while at < len(record):
        at_us, inode, offset, kind, path_size, data_size = _HEADER.unpack_from(record, at)
        at += _HEADER.size
        name = record[at : at + path_size].decode()
        at += path_size
        yield Call(at_us, inode, offset, Kind(kind), name, record[at : at + data_size])
        at += data_size


# ---- the disk ----


@dataclass(slots=True)
class File:
    content: bytearray = field(default_factory=bytearray)
    """What is on the disk."""
    pending: list[Call] = field(default_factory=list)
    """Writes and truncations that were not synced."""


@dataclass(slots=True)
class Directory:
    names: dict[str, Node] = field(default_factory=dict)
    """What is on the disk."""
    pending: list[dict[str, Node | None]] = field(default_factory=list)
    """Names that were given or, with None, taken away, and not synced."""

    def names_after(self, n: int) -> dict[str, Node]:
        """With the first n of what is pending."""
        names: dict[str, Node | None] = dict(self.names)
        for change in self.pending[:n]:
            names.update(change)
        return {name: node for name, node in names.items() if node}


Node = File | Directory


def apply(content: bytearray, calls: Iterable[Call]) -> None:
    for call in calls:
        end = call.offset + len(call.data)
        if call.kind == Kind.TRUNCATE:
            del content[end:]
        content.extend(bytes(max(0, end - len(content))))
        content[call.offset : end] = call.data


class Disk:
    """The files below a directory, as the calls make them. If it forgets, no sync of a file does anything."""

    def __init__(self, root: str, *, forgets: bool = False) -> None:
        self.forgets = forgets
        self.top = Directory()
        self.version = 0
        """Grows when a sync makes something durable."""
        self._root = root
        self._by_path: dict[str, Node] = {root: self.top}
        self._by_inode: dict[int, Node] = {}

    def take(self, call: Call) -> None:
        node = self._by_inode.get(call.inode)
        if call.kind in (Kind.CREATE, Kind.MAKE_DIRECTORY):
            self._make(call)
        elif call.kind == Kind.SYNC:
            self._sync(node)
        elif call.kind == Kind.UNLINK:
            self._name({call.path: None})
        elif call.kind == Kind.RENAME:
            source, target = call.path.split("\0")
            self._name({source: None, target: self._by_path[source]})
        else:
            assert isinstance(node, File)
            node.pending.append(call)

    def _make(self, call: Call) -> None:
        """The root is taken to be there: what holds its name is not below it."""
        if call.path == self._root:
            self._by_inode[call.inode] = self.top
            return
        node = File() if call.kind == Kind.CREATE else Directory()
        self._by_inode[call.inode] = node
        self._name({call.path: node})

    def _name(self, change: dict[str, Node | None]) -> None:
        (parent,) = {pathlib.PurePath(path).parent for path in change}
        directory = self._by_path[str(parent)]
        assert isinstance(directory, Directory)
        directory.pending.append({pathlib.PurePath(path).name: node for path, node in change.items()})
        for path, node in change.items():
            if node:
                self._by_path[path] = node
            else:
                del self._by_path[path]

    def _sync(self, node: Node | None) -> None:
        assert node
        if not node.pending or (self.forgets and isinstance(node, File)):
            return
        if isinstance(node, File):
            apply(node.content, node.pending)
        else:
            node.names = node.names_after(len(node.pending))
        node.pending.clear()
        self.version += 1

    def survivors(self, choose: Chooser) -> Iterator[tuple[str, File, list[Call]]]:
        """The files that can be found after a crash, by path below the root, with what came to the disk of what was
        pending."""

        def walk(directory: Directory, path: str) -> Iterator[tuple[str, File, list[Call]]]:
            for name, node in directory.names_after(choose.names(directory)).items():
                if isinstance(node, Directory):
                    yield from walk(node, f"{path}{name}/")
                else:
                    yield path + name, node, choose.calls(node.pending)

        return walk(self.top, "")


# ---- what survives ----

Way = Callable[[list[Call], random.Random], list[Call]]


def sectors(call: Call) -> Iterator[Call]:
    """The call, cut where sectors begin."""
    begin, end = call.offset, call.offset + len(call.data)
    if call.kind == Kind.TRUNCATE or not call.data:
        yield call
    while begin < end:
        stop = min(end, (begin // SECTOR + 1) * SECTOR)
        yield Call(call.at_us, call.inode, begin, call.kind, "", call.data[begin - call.offset : stop - call.offset])
        begin = stop


def none_of(calls: list[Call], _rng: random.Random) -> list[Call]:
    return []


def all_of(calls: list[Call], _rng: random.Random) -> list[Call]:
    return calls


def a_beginning_of(calls: list[Call], rng: random.Random) -> list[Call]:
    """The last call of it is torn."""
    n = rng.randrange(len(calls))
    torn = list(sectors(calls[n]))
    return [*calls[:n], *torn[: rng.randint(0, len(torn))]]


def all_but_one_of(calls: list[Call], rng: random.Random) -> list[Call]:
    n = rng.randrange(len(calls))
    return calls[:n] + calls[n + 1 :]


def sectors_of(calls: list[Call], rng: random.Random) -> list[Call]:
    share = rng.choice((0.02, 0.1, 0.5, 0.9, 0.98))
    return [sector for call in calls for sector in sectors(call) if rng.random() < share]


def sectors_and_rubbish_of(calls: list[Call], rng: random.Random) -> list[Call]:
    share = rng.choice((0.1, 0.5, 0.9))
    rubbish: Callable[[int], bytes] = rng.choice((bytes, rng.randbytes))
    return [
        sector if rng.random() < share else Call(0, 0, sector.offset, sector.kind, "", rubbish(len(sector.data)))
        for call in calls
        for sector in sectors(call)
    ]


WAYS = (none_of, all_of, a_beginning_of, a_beginning_of, all_but_one_of, sectors_of, sectors_of, sectors_and_rubbish_of)


class Chooser:
    """Decides what survives: in one way for everything, or in a random way for each file."""

    def __init__(self, rng: random.Random, way: Way | None = None) -> None:
        self._rng = rng
        self._way = way

    def calls(self, pending: list[Call]) -> list[Call]:
        return (self._way or self._rng.choice(WAYS))(pending, self._rng) if pending else []

    def names(self, directory: Directory) -> int:
        n = len(directory.pending)
        return 0 if self._way is none_of else n if self._way is all_of else self._rng.randint(0, n)
