"""The SDK's compaction lets a summary take the place of old items. On ours it is one change, and it
gives way to whoever wrote meanwhile: other processes never see a half, and nothing is lost.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, Runner
from agents.memory import OpenAIResponsesCompactionSession
from openai import AsyncOpenAI
from sessiond import Client
from stage import OURS

CITY = "What city is the Golden Gate Bridge in?"


class Meanwhile(AsyncOpenAI):
    """A client for the model that lets something else happen while it compacts."""

    def __init__(self, happens: Any, **settings: Any):
        super().__init__(**settings)
        compact = self.responses.compact

        async def compact_meanwhile(**arguments: Any) -> Any:
            compacted = await compact(**arguments)
            await happens()
            return compacted

        self.responses.compact = compact_meanwhile


@pytest.fixture(params=OURS)
def stage(request, daemon, stage_on) -> Any:
    return stage_on(request.param, recorded=False)


@pytest.fixture
def compacting(stage) -> Any:
    """Runs one turn that is compacted at its end, while something else happens."""

    async def run(happens: Any) -> None:
        client = Meanwhile(happens, base_url=stage.base_url, api_key="x", max_retries=0)
        session = OpenAIResponsesCompactionSession(
            "talk", stage.session(), client=client, should_trigger_compaction=lambda context: True
        )
        await Runner.run(Agent(name="Assistant"), CITY, session=session)

    return lambda happens: asyncio.run(run(happens))


def revision_of(session: Any) -> int:
    return Client().get_items("talk", store=session.store).revision


async def nothing() -> None:
    """Nobody disturbs the compaction."""


def test_a_compaction_is_one_change(stage, compacting):
    compacting(nothing)
    session = stage.session()
    types = [item.get("type") for item in asyncio.run(session.get_items())]
    assert types == ["message", "compaction"]
    assert revision_of(session) == 3, "the question, the answer, and the compaction"


def test_what_is_added_during_a_compaction_is_kept(stage, compacting):
    other = stage.session()
    compacting(lambda: other.add_items([{"role": "user", "content": "meanwhile"}]))
    items = asyncio.run(other.get_items())
    assert [item.get("content") for item in items][::2] == [CITY, "meanwhile"]
    assert [item.get("type") for item in items] == [None, "message", None]


def test_what_is_cleared_during_a_compaction_stays_cleared(stage, compacting):
    other = stage.session()
    compacting(other.clear_session)
    assert asyncio.run(other.get_items()) == []


def test_a_snapshot_says_whether_something_stands_before_it(stage):
    async def completeness() -> list[bool]:
        session = stage.session()
        await session.add_items([{"role": "user", "content": str(n)} for n in range(3)])
        await session.pop_item()
        await session.add_items([{"role": "user", "content": "after a gap"}])
        snapshots = [await session._get_compaction_snapshot(limit) for limit in (2, 3, 4)]
        assert [len(snapshot.items) for snapshot in snapshots] == [2, 3, 3]
        return [snapshot.complete for snapshot in snapshots]

    assert asyncio.run(completeness()) == [False, True, True]
