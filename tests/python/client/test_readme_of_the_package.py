"""The examples of client/python/README.md run as they are written."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from typing import Any

TOP = pathlib.Path(__file__).resolve().parents[3]
BLOCKS = re.findall(r"```python\n(.*?)```", (TOP / "client" / "python" / "README.md").read_text(), re.DOTALL)


def play(code: str, directory: pathlib.Path, **environment: str) -> str:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code]
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def block_with(text: str) -> str:
    (block,) = (block for block in BLOCKS if text in block)
    return block


def test_there_are_no_other_examples() -> None:
    assert len(BLOCKS) == 3


def test_the_agent_remembers(daemon: Any, tmp_path: pathlib.Path) -> None:
    sys.path.insert(0, str(TOP / "tests" / "lib"))
    try:
        from responses_endpoint import ResponsesEndpoint
    finally:
        sys.path.pop(0)
    code = block_with("SessiondSession(")
    again = code.replace("What city is the Golden Gate Bridge in?", "What state is it in?")
    assert again != code
    with ResponsesEndpoint() as endpoint:
        model = {
            "OPENAI_BASE_URL": endpoint.base_url,
            "OPENAI_API_KEY": "none",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
        }
        assert "San Francisco" in play(code, tmp_path, **model)
        daemon.restart()
        assert "California" in play(again, tmp_path, **model)


def test_the_drop_in_is_found(tmp_path: pathlib.Path) -> None:
    assert play(block_with("sessiond.agents"), tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_the_client_replaces_what_it_read(daemon: Any, tmp_path: pathlib.Path) -> None:
    code = block_with("replace_items")
    assert play(code, tmp_path) == """['{"role":"user","content":"hello"}'] 1\n"""
    assert "summary" in play(code, tmp_path)
