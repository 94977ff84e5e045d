"""A store that has less than was acknowledged says so."""

from __future__ import annotations

import shutil

import pytest
from raw import Raw


def store_dir(daemon):
    (directory,) = [path for path in daemon.directory.joinpath("state", "u").glob("*/*") if path.is_dir()]
    return directory


def add(raw, n):
    for i in range(n):
        error, _ = raw.call("add_items", session="s", items=[f'{{"n":{i}}}'])
        assert error is None


@pytest.fixture
def killed(daemon):
    """A daemon that was killed with ten acknowledged items in its log, none of them checkpointed."""
    with Raw(daemon.socket) as raw:
        add(raw, 10)
    daemon.kill()
    return daemon


def flip_a_bit_of_the_log(directory):
    path = directory / "items.db-wal"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def remove_the_log(directory):
    (directory / "items.db-wal").unlink()


@pytest.mark.parametrize("damage", [flip_a_bit_of_the_log, remove_the_log])
def test_a_damaged_log_is_noticed_and_told(killed, damage):
    damage(store_dir(killed))
    killed.start()
    with Raw(killed.socket) as raw:
        error, history = raw.call("get_items", session="s")
        assert error is None and history["missing"] > 0 and len(history["items"]) < 10
        error, _ = raw.call("add_items", session="s", items=["{}"])
        assert error["code"] == "rolled_back"
        (store,) = raw.call("list_stores")[1]["stores"]
        assert store["missing"] == history["missing"]


def test_an_undamaged_log_is_no_loss(killed):
    killed.start()
    with Raw(killed.socket) as raw:
        _, history = raw.call("get_items", session="s")
        assert len(history["items"]) == 10 and "missing" not in history


def test_after_recover_changes_go_on_and_old_readers_start_over(killed):
    epoch = 1  # the session's first one, in this store
    flip_a_bit_of_the_log(store_dir(killed))
    killed.start()
    with Raw(killed.socket) as raw:
        missing = raw.call("get_items", session="s")[1]["missing"]
        assert raw.call("recover")[1] == {"missing": missing}
        assert raw.call("recover")[1] == {"missing": 0}
        add(raw, 3)
        error, _ = raw.call("get_items", session="s", if_epoch=epoch)
        assert error["code"] == "conflict" and error["epoch"] >= epoch + 10
    killed.restart()
    with Raw(killed.socket) as raw:
        assert "missing" not in raw.call("get_items", session="s")[1]


def test_recover_of_a_store_that_does_not_exist_is_refused(daemon):
    with Raw(daemon.socket) as raw:
        assert raw.call("recover", store="nowhere")[0]["code"] == "not_found"


def test_an_old_copy_put_in_place_is_noticed(daemon):
    with Raw(daemon.socket) as raw:
        add(raw, 3)
    daemon.stop()
    old = daemon.directory / "old.db"
    shutil.copy(store_dir(daemon) / "items.db", old)
    daemon.start()
    with Raw(daemon.socket) as raw:
        add(raw, 4)
    daemon.stop()
    shutil.copy(old, store_dir(daemon) / "items.db")
    daemon.start()
    with Raw(daemon.socket) as raw:
        assert raw.call("get_items", session="s")[1]["missing"] >= 4
        assert raw.call("add_items", session="s", items=["{}"])[0]["code"] == "rolled_back"


def test_another_history_of_the_same_length_is_noticed(daemon):
    with Raw(daemon.socket) as raw:
        add(raw, 2)
    daemon.stop()
    old, store = daemon.directory / "old", store_dir(daemon)
    shutil.copytree(store, old)
    daemon.start()
    with Raw(daemon.socket) as raw:
        add(raw, 3)
    daemon.stop()
    head = (store / "items.head").read_bytes()
    shutil.rmtree(store)
    shutil.copytree(old, store)
    daemon.start()
    with Raw(daemon.socket) as raw:
        for i in range(3):
            assert raw.call("add_items", session="s", items=[f'{{"other":{i}}}'])[0] is None
    daemon.stop()
    (store / "items.head").write_bytes(head)
    daemon.start()
    with Raw(daemon.socket) as raw:
        assert raw.call("get_items", session="s")[1]["missing"] > 0


def test_a_store_whose_file_is_gone_is_not_replaced_by_an_empty_one(daemon):
    with Raw(daemon.socket) as raw:
        add(raw, 3)
    daemon.stop()
    (store_dir(daemon) / "items.db").rename(daemon.directory / "aside.db")
    daemon.start()
    with Raw(daemon.socket) as raw:
        assert raw.call("get_items", session="s")[0]["code"] == "rolled_back"
        assert raw.call("add_items", session="s", items=["{}"])[0]["code"] == "rolled_back"
        assert not (store_dir(daemon) / "items.db").exists()
        (daemon.directory / "aside.db").rename(store_dir(daemon) / "items.db")
        assert len(raw.call("get_items", session="s")[1]["items"]) == 3
