"""The verifier of the crash harnesses finds what it is there to find: each kind of broken promise, in a small history
that keeps all of them but for one change of its text."""

from __future__ import annotations

import pathlib
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(TOP / "tests" / "crash"))

from verify import Verdict, verify  # noqa: E402

LOG_1 = """\
sent 1.1 100 add_items s k1 2 - - -
done 1.1 110 1 5 1 2 0
sent 1.2 120 add_items s k2 1 - 1 5
done 1.2 130 2 5 3 3 0
sent 1.3 140 pop_item s k3 0 - - -
done 1.3 150 3 6 3 3 1 1.2.0/1
sent 1.4 160 get_items s - 0 - - -
read 1.4 170 3 6 3 1 2 2 1.1.0/2 1.1.1/2
sent 1.5 175 add_items s k5 1 - 1 -
failed 1.5 178 5
"""
LOG_2 = """\
sent 2.1 180 add_items s k6 1 - - -
done 2.1 190 4 6 4 4 0
sent 2.2 200 add_items t k7 2 - - -
done 2.2 210 1 9 1 2 0
sent 2.3 220 add_items t k8 1 - - -
done 2.3 230 2 9 3 3 0
"""
HISTORIES = """\
session s 3 4 4 6
item 1 1.1.0/2
item 2 1.1.1/2
item 4 2.1.0/1
session t 3 3 2 9
item 1 2.2.0/2
item 2 2.2.1/2
item 3 2.3.0/1
"""
BACKUP = """\
session s 2 3 3 6
item 1 1.1.0/2
item 2 1.1.1/2
"""
BACKUP_AT = 155


def judge(directory: pathlib.Path, edit: tuple[str, str] | None = None) -> Verdict:
    texts = {"1.log": LOG_1, "2.log": LOG_2, "histories": HISTORIES, "backup": BACKUP}
    if edit:
        before, after = edit
        assert sum(text.count(before) for text in texts.values()) == 1, f"the edit is not exact: {before!r}"
        texts = {name: text.replace(before, after) for name, text in texts.items()}
    paths = {name: directory / name for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name])
    logs = [str(paths["1.log"]), str(paths["2.log"])]
    return verify(logs, str(paths["histories"]), [(str(paths["backup"]), BACKUP_AT)])


def test_a_history_that_keeps_all_promises_is_good(tmp_path: pathlib.Path) -> None:
    verdict = judge(tmp_path)
    assert verdict.good, list(verdict.lines())
    assert verdict.counts["changes acknowledged"] == 6
    assert verdict.counts["items stored"] == 6


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        pytest.param("lost", "item 4 2.1.0/1\n", "", id="an acknowledged item is not there"),
        pytest.param("lost", "session t 3 3 2 9", "session t 3 3 1 9", id="the session went back"),
        pytest.param(
            "lost", "done 2.3 230 2 9 3 3 0", "done 2.3 230 1 9 3 3 0", id="two changes were told one revision",
        ),
        pytest.param("lost", "session s 2 3 3 6\nitem 1", "session s 2 3 2 6\nitem 1", id="a backup went back"),
        pytest.param("doubled", "item 3 2.3.0/1", "item 3 2.3.0/1\nitem 4 2.3.0/1", id="an item stands twice"),
        pytest.param("doubled", "item 3 2.3.0/1", "item 4 2.3.0/1", id="an item stands where no answer said"),
        pytest.param("foreign", "item 3 2.3.0/1", "item 3 7.1.0/1", id="nobody sent it"),
        pytest.param("foreign", "item 3 2.3.0/1", "item 3 altered", id="its bytes are others"),
        pytest.param("foreign", "item 3 2.3.0/1", "item 3 2.3.0/1\nitem 4 1.1.0/2", id="it is of another session"),
        pytest.param("foreign", "item 4 2.1.0/1", "item 4 2.1.0/1\nitem 5 1.5.0/1", id="it was refused"),
        pytest.param("torn", "item 1 2.2.0/2\n", "", id="half a batch"),
        pytest.param(
            "torn", "item 1 2.2.0/2\nitem 2 2.2.1/2", "item 1 2.2.1/2\nitem 2 2.2.0/2", id="a batch turned round",
        ),
        pytest.param("reordered", "sent 2.2 200", "sent 2.2 240", id="it took effect before an earlier one"),
        pytest.param("reordered", "done 2.3 230 2 9 3 3 0", "done 2.3 230 0 9 3 3 0", id="a client overtook itself"),
        pytest.param(
            "returned", "item 2 1.1.1/2\nitem 4", "item 2 1.1.1/2\nitem 3 1.2.0/1\nitem 4", id="popped and there",
        ),
        pytest.param("returned", "1.1.0/2 1.1.1/2", "1.1.1/2 1.2.0/1", id="popped and read"),
        pytest.param("gap", "item 2 2.2.1/2\nitem 3", "item 2 2.2.1/2\nitem 5", id="a missing seq"),
        pytest.param("key", "t k8", "t k7", id="one key for two changes"),
        pytest.param("differs", "done 1.3 150 3 6", "done 1.3 150 3 5", id="a removal without a new epoch"),
        pytest.param("differs", "s k2 1 - 1 5", "s k2 1 - 7 5", id="made in spite of its precondition"),
        pytest.param("differs", "read 1.4 170 3 6 3", "read 1.4 170 3 6 2", id="a read with another head"),
        pytest.param(
            "differs",
            "session s 2 3 3 6\nitem 1 1.1.0/2",
            "session s 2 3 3 6\nitem 1 1.2.0/1",
            id="a backup with other items",
        ),
        pytest.param("open", "done 2.3 230 2 9 3 3 0\n", "", id="a change without an answer"),
    ],
)
def test_a_broken_promise_is_found(tmp_path: pathlib.Path, kind: str, before: str, after: str) -> None:
    verdict = judge(tmp_path, (before, after))
    assert kind in verdict.violations, list(verdict.lines())
