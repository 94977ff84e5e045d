"""The package as a user's type checker and pip see it."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[3] / "client" / "python"

USER_CODE = """
from agents import Agent, Runner
from agents.extensions.memory import EncryptedSession
from agents.memory import OpenAIResponsesCompactionSession, Session, SessionSettings
from sessiond import AsyncClient, Client, SessiondSession
from sessiond.agents import SQLiteSession
from sessiond.types import Added, Items
from typing_extensions import assert_type

s: Session = SessiondSession("x")
t: Session = SQLiteSession("x", "conversations.db")
u = EncryptedSession("x", SessiondSession("x"), "key")
v: Session = OpenAIResponsesCompactionSession("x", SQLiteSession("x"))
settings: SessionSettings | None = s.session_settings


async def main() -> None:
    await Runner.run(Agent(name="Assistant"), "Hello", session=SessiondSession("x", store="myapp"))
    session = SessiondSession("x", session_settings={"limit": 5})
    session.session_settings = SessionSettings(limit=6)
    await session.add_items([{"role": "user", "content": "Hello"}])
    await session.add_items(await session.get_items(limit=3))
    async with SessiondSession("y") as same, AsyncClient() as client:
        assert_type(same, SessiondSession)
        assert_type(await client.get_items("y", limit=3), Items)
    with Client("/a/path") as blocking:
        assert_type(blocking.add_items("y", ["{}"], key="k", if_revision=3), Added)
"""

WRONG_CODE = """
from sessiond import Client, SessiondSession

SessiondSession("x", "myapp")
Client().add_items("y", ["{}"], kee="k")
Client().add_items("y", [{}])
Client().get_items("y", limit="3")
"""


def basedpyright(*arguments: str) -> list[str]:
    """What the checker complains of."""
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] > 0
    return [f"{d['file']}:{d['range']['start']['line'] + 1}: {d['message']}" for d in report["generalDiagnostics"]]


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    """An empty project of a user with the strict settings."""
    config = {"typeCheckingMode": "strict", "extraPaths": [str(PACKAGE / "src")], "pythonVersion": "3.10"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    return tmp_path


def test_pyright_finds_nothing_in_the_package() -> None:
    assert basedpyright("--project", str(PACKAGE)) == []


def test_mypy_finds_nothing_in_the_package() -> None:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(PACKAGE / "pyproject.toml"),
        "--cache-dir",
        "/dev/null",
    ]
    done = subprocess.run([*command, str(PACKAGE / "src")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_pyright_accepts_what_users_write(project: pathlib.Path) -> None:
    (project / "user.py").write_text(USER_CODE)
    assert basedpyright("--project", str(project)) == []


def test_pyright_refuses_what_is_wrong(project: pathlib.Path) -> None:
    (project / "wrong.py").write_text(WRONG_CODE)
    lines = {int(complaint.split(":")[1]) for complaint in basedpyright("--project", str(project))}
    assert lines == {4, 5, 6, 7}


def test_the_wheel_has_all_of_it_and_needs_msgpack_alone(tmp_path: pathlib.Path) -> None:
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=PACKAGE, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    sources = {f"sessiond/{path.name}" for path in (PACKAGE / "src" / "sessiond").iterdir() if path.is_file()}
    assert "sessiond/py.typed" in sources
    assert sources <= names
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE) == ["msgpack<2,>=1.0.5"]
    assert "Requires-Python: >=3.10" in metadata


def test_importing_it_is_quick_and_imports_neither_the_sdk_nor_sqlite() -> None:
    code = "import sys, sessiond; print([m for m in ('agents', 'sqlite3', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
