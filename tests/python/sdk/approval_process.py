"""One half of a run that waits for a person: `interrupt` asks, `resume` approves.

Each half is a process of its own. What passes between them is the RunState in a file and the
history in the session's store.

    approval_process.py STAGE {interrupt,resume} STATE_FILE
"""

import asyncio
import sys
from pathlib import Path

from agents import Agent, Runner, RunState, function_tool, set_tracing_disabled
from stage import Stage


@function_tool(needs_approval=True)
def delete_file(name: str) -> str:
    return f"deleted {name}"


@function_tool
def look_at_file(name: str) -> str:
    return f"{name} is empty"


AGENT = Agent(name="Clerk", instructions="Keep the files.", tools=[delete_file, look_at_file])
QUESTION = 'call look_at_file {"name": "a"} & delete_file {"name": "b"}'


async def interrupt(stage: Stage, state_file: Path) -> list[str]:
    result = await Runner.run(AGENT, QUESTION, session=stage.session())
    state_file.write_text(result.to_state().to_string())
    return [item.tool_name for item in result.interruptions]


async def resume(stage: Stage, state_file: Path) -> list[str]:
    state = await RunState.from_string(AGENT, state_file.read_text())
    for item in state.get_interruptions():
        state.approve(item)
    result = await Runner.run(AGENT, state, session=stage.session())
    return [result.final_output]


def main() -> None:
    set_tracing_disabled(True)
    stage = Stage.from_description(sys.argv[1])
    part = {"interrupt": interrupt, "resume": resume}[sys.argv[2]]
    print(stage.report(asyncio.run(part(stage, Path(sys.argv[3])))))


if __name__ == "__main__":
    main()
