"""Which socket, which store, which session: decided before anything is sent."""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
from scripted import Peer, ScriptedServer

from sessiond import NotRunningError, SessiondSession, _paths


def usual(runtime: object = None) -> tuple[str, ...]:
    uid = os.getuid()
    mine = [f"{runtime}/sessiond/sessiond.sock"] if runtime else []
    return (*mine, f"/run/user/{uid}/sessiond/sessiond.sock", "/run/sessiond/sessiond.sock")


def test_a_named_socket_is_the_only_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIOND_SOCKET", "/from/environment")
    assert _paths.candidates("/named") == ("/named",)
    assert _paths.candidates(pathlib.Path("/named")) == ("/named",)
    assert _paths.candidates() == ("/from/environment",)


def test_the_usual_places_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/somewhere")
    assert _paths.candidates() == usual("/somewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    assert _paths.candidates() == usual()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert _paths.candidates() == usual()


def test_the_first_path_that_exists_is_chosen(short_dir: pathlib.Path) -> None:
    paths = [str(short_dir / name) for name in "abc"]
    for path in paths[1:]:
        pathlib.Path(path).touch()
    assert _paths.choose(tuple(paths)) == paths[1]


@pytest.mark.parametrize("path", ["", "x" * 108])
def test_an_impossible_socket_path_is_refused_when_named(path: str) -> None:
    with pytest.raises(ValueError, match="107 bytes"):
        _paths.candidates(path)


def test_no_daemon_fails_at_once_and_tells_where_it_was_sought_and_what_to_start(
    make_client: Callable[..., Any], short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    monkeypatch.setattr(_paths.os.path, "exists", lambda path: False)
    with pytest.raises(NotRunningError) as caught:
        make_client().ping()
    assert caught.value.details["tried"] == list(usual(short_dir))
    for told in (*usual(short_dir), "systemctl --user start sessiond", "`sessiond`", "sessionctl run --"):
        assert told in str(caught.value)
    assert isinstance(caught.value, ConnectionError)


def test_a_refused_connection_never_leads_to_the_next_path(
    make_client: Callable[..., Any], short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, live = str(short_dir / "dead"), str(short_dir / "live")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(dead)
    monkeypatch.setattr(_paths, "candidates", lambda socket=None: (dead, live))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(live)
        listener.listen()
        listener.setblocking(False)
        with pytest.raises(NotRunningError, match="refused"):
            make_client().ping()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_once_connected_the_path_stays(make_client: Callable[..., Any], short_dir: pathlib.Path) -> None:
    first, second = str(short_dir / "1"), str(short_dir / "2")

    def answer_once(peer: Peer) -> None:
        peer.hello()
        peer.answer(peer.request("ping"))

    client = make_client()
    door = getattr(client, "_client", client)._door
    door.paths = (first, second)
    with ScriptedServer(second, [answer_once]):
        client.ping()
    with ScriptedServer(first, []):
        os.unlink(second)
        with ScriptedServer(second, [answer_once]):
            client.ping()
    assert door.path == second


@pytest.mark.parametrize("store", ["", "A", "a/b", ".a", "-a", "a" * 128, "ü", "@", "a\n", "@@a"])
def test_what_is_no_store_name_is_refused_at_construction(store: str) -> None:
    with pytest.raises(ValueError, match="store name"):
        SessiondSession("s", store=store)


@pytest.mark.parametrize("store", ["a", "0", "my.app_2-x", "a" * 127, "@shared", "memory"])
def test_store_names_are_accepted(store: str) -> None:
    assert SessiondSession("s", store=store).store == store


def test_the_store_comes_from_the_environment_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SessiondSession("s").store == "default"
    monkeypatch.setenv("SESSIOND_STORE", "myapp")
    assert SessiondSession("s").store == "myapp"
    assert SessiondSession("s", store="other").store == "other"
    monkeypatch.setenv("SESSIOND_STORE", "")
    assert SessiondSession("s").store == "default"
    monkeypatch.setenv("SESSIOND_STORE", "Not A Name")
    with pytest.raises(ValueError, match="Not A Name"):
        SessiondSession("s")


@pytest.mark.parametrize("session", ["", "ä" * 128, "\ud800"])
def test_what_can_name_no_session_is_refused_at_construction(session: str) -> None:
    with pytest.raises(ValueError, match="session_id"):
        SessiondSession(session)


@pytest.mark.parametrize("session", [42, b"s", None])
def test_a_session_id_is_a_text(session: Any) -> None:
    with pytest.raises(TypeError, match="session_id must be a str"):
        SessiondSession(session)


@pytest.mark.parametrize("session", ["s", "a/../b", " ", "\0", "ä" * 127, "\U0001f309"])
def test_any_other_text_can_name_a_session(session: str) -> None:
    assert SessiondSession(session).session_id == session
