"""The real SDK, a scripted model, and sessions of several backends to compare."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any

import agents
import pytest
from openai import AsyncOpenAI

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

from responses_endpoint import ResponsesEndpoint  # noqa: E402
from stage import Stage  # noqa: E402


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model of a test, and of the processes that it starts. Nothing is traced."""
    agents.set_tracing_disabled(True)
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.setenv("OPENAI_API_KEY", "of the tests")
    with ResponsesEndpoint() as endpoint:
        client = AsyncOpenAI(base_url=endpoint.base_url, api_key="of the tests", max_retries=0)
        agents.set_default_openai_client(client, use_for_tracing=False)
        yield endpoint


@pytest.fixture
def stage_on(endpoint: ResponsesEndpoint, tmp_path: Path) -> Any:
    """Makes a stage whose history lives in a place of its own."""

    def stage_on(backend: str, recorded: bool = True) -> Stage:
        store = f"stage-{uuid.uuid4().hex}"
        where = tmp_path / store
        where.mkdir()
        return Stage(backend, where, store, endpoint.base_url, recorded)

    return stage_on
