"""Event loops come and go, threads and processes multiply: connections end with their loops, nothing is done twice.

The scenarios run in processes of their own, with every warning an error and nothing allowed on stderr.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from sessiond import Client

PRELUDE = """
import asyncio, gc, json, logging, os, signal, sys, threading, time, traceback
from concurrent.futures import ThreadPoolExecutor
from sessiond import AsyncClient, Client, SessiondSession, UncertainError

# asyncio's own checks report steps that took long, which says something about the machine only.
logging.getLogger("asyncio").addFilter(lambda record: " took " not in record.getMessage())

def descriptors():
    return sorted(os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in os.listdir("/proc/self/fd")
                  if os.path.exists(f"/proc/self/fd/{fd}"))

def in_child(work):
    \"\"\"Fork; the child does `work` and ends. Returns what it needs to be waited for.\"\"\"
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid

def wait_for_receiving(thread):
    \"\"\"Return when the thread waits for an answer.\"\"\"
    while True:
        frame = sys._current_frames().get(thread.ident)
        if frame is not None and any(entry.name == "_receive" for entry in traceback.extract_stack(frame)):
            return
        time.sleep(0.001)

def end_well(pid):
    assert os.waitpid(pid, 0)[1] == 0
"""


STRICT = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
"""Python 3.12 and later warn of a fork among threads, which is what some scenarios are about."""


def play(script: str, *arguments: object, dev: bool = True) -> str:
    """Run a scenario; return its stdout. `dev`: with Python's and asyncio's own checks, which take time."""
    checks = ["-X", "dev", *STRICT] if dev else STRICT
    command = [sys.executable, *checks, "-c", PRELUDE + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def items_of(session: str) -> list[Any]:
    with Client() as client:
        return [json.loads(text) for text in client.get_items(session).items]


# ---- event loops ----


def test_ten_thousand_event_loops_leave_descriptors_flat(daemon: Any) -> None:
    play(
        """
session = SessiondSession("s")
async def main(n):
    if n % 100 == 0:
        await session.add_items([{"n": n}])
    await session.get_items(limit=1)
asyncio.run(main(0))
before = descriptors()
for n in range(1, 10_001):
    asyncio.run(main(n))
assert descriptors() == before, (before, descriptors())
""",
        dev=False,
    )
    assert [item["n"] for item in items_of("s")] == list(range(0, 10_001, 100))


def test_loops_that_are_closed_without_a_shutdown_leave_descriptors_flat(daemon: Any) -> None:
    play("""
session = SessiondSession("s")
def once():
    loop = asyncio.new_event_loop()
    loop.run_until_complete(session.get_items())
    loop.close()
once()
gc.collect()
before = len(descriptors())
for n in range(1000):
    once()
gc.collect()
assert len(descriptors()) <= before + 1, (before, descriptors())
""")


def test_a_loop_that_nobody_holds_any_more_is_not_held_by_us(daemon: Any) -> None:
    play("""
import weakref
session = SessiondSession("s")
loop = asyncio.new_event_loop()
loop.run_until_complete(session.get_items())
loop.close()
gone = weakref.ref(loop)
del loop
gc.collect()
assert gone() is None
""")


def test_a_loop_that_is_shut_down_and_used_on_works(daemon: Any) -> None:
    play("""
session = SessiondSession("s")
loop = asyncio.new_event_loop()
loop.run_until_complete(session.add_items([{"n": 1}]))
loop.run_until_complete(loop.shutdown_asyncgens())
loop.run_until_complete(session.add_items([{"n": 2}]))
loop.close()
""")
    assert len(items_of("s")) == 2


def test_a_session_can_be_used_while_its_loop_shuts_down(daemon: Any) -> None:
    play("""
session = SessiondSession("s")
async def stream():
    try:
        yield
    finally:
        await session.add_items([{"saved": "while shutting down"}])
async def main():
    global left_open
    left_open = stream()
    await left_open.__anext__()
    await session.get_items()
asyncio.run(main())
gc.collect()
""")
    assert items_of("s") == [{"saved": "while shutting down"}]


def test_two_loops_in_turns_and_in_threads(daemon: Any) -> None:
    play("""
session = SessiondSession("s")
async def work(t):
    for n in range(50):
        await session.add_items([{"t": t, "n": n}])
        assert any(item == {"t": t, "n": n} for item in await session.get_items())
before = descriptors()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda t: asyncio.run(work(t)), range(8)))
assert descriptors() == before
""")
    items = items_of("s")
    for t in range(8):
        assert [item["n"] for item in items if item["t"] == t] == list(range(50))


def test_an_async_client_serves_several_loops_and_closes_them_all(daemon: Any) -> None:
    play("""
client = AsyncClient()
async def ping():
    await client.ping()
other = asyncio.new_event_loop()
thread = threading.Thread(target=other.run_forever)
thread.start()
asyncio.run_coroutine_threadsafe(ping(), other).result()
async def main():
    await client.ping()
    before = len(descriptors())
    await client.aclose()
    await client.aclose()
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), other))
    assert len(descriptors()) == before - 2, descriptors()
    try:
        await client.ping()
    except RuntimeError as error:
        assert "closed" in str(error)
    else:
        raise AssertionError
asyncio.run(main())
other.call_soon_threadsafe(other.stop)
thread.join()
other.close()
""")


def test_closing_an_async_client_lets_calls_under_way_end(daemon: Any) -> None:
    play(
        """
daemon = int(sys.argv[1])
async def main():
    client = AsyncClient()
    await client.ping()
    os.kill(daemon, signal.SIGSTOP)
    adding = asyncio.ensure_future(client.add_items("s", ["{}"]))
    await asyncio.sleep(0)
    await client.aclose()
    os.kill(daemon, signal.SIGCONT)
    assert (await adding).revision == 1
asyncio.run(main())
""",
        daemon.pid,
    )


def test_a_client_that_is_forgotten_closes_its_connections(daemon: Any) -> None:
    play("""
before = descriptors()
for _ in range(3):
    Client().ping()
    gc.collect()
assert descriptors() == before
""")


# ---- forks ----


def test_parent_and_child_go_on_with_connections_of_their_own(daemon: Any) -> None:
    play("""
session, client = SessiondSession("s"), Client()
asyncio.run(session.add_items([{"by": "parent"}]))
client.add_items("s", ['{"by":"parent"}'])
def child():
    for n in range(100):
        client.add_items("child", ["{}"])
    asyncio.run(session.add_items([{"by": "child"}]))
children = [in_child(child) for _ in range(4)]
for n in range(100):
    client.add_items("parent", ["{}"])
asyncio.run(session.add_items([{"by": "parent"}]))
for pid in children:
    end_well(pid)
client.close()
""")
    assert sorted(item["by"] for item in items_of("s")) == ["child"] * 4 + ["parent"] * 3
    assert (len(items_of("child")), len(items_of("parent"))) == (400, 100)


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_child_never_repeats_what_its_parent_has_under_way(daemon: Any, kind: str) -> None:
    play(
        """
kind, daemon = sys.argv[1], int(sys.argv[2])
client, session = Client(), SessiondSession("s")
client.ping()

def child():
    os.kill(daemon, signal.SIGCONT)
    client.add_items("s", ['{"by":"child"}'])
    thread = threading.Thread(target=lambda: asyncio.run(session.add_items([{"by": "child"}])))
    thread.start()
    thread.join()

async def fork_while_adding():
    await session.get_items()
    os.kill(daemon, signal.SIGSTOP)
    adding = asyncio.ensure_future(session.add_items([{"by": "parent"}]))
    await asyncio.sleep(0)
    pid = in_child(child)
    await adding
    return pid

if kind == "blocking":
    os.kill(daemon, signal.SIGSTOP)
    thread = threading.Thread(target=client.add_items, args=("s", ['{"by":"parent"}']))
    thread.start()
    wait_for_receiving(thread)
    end_well(in_child(child))
    thread.join()
else:
    end_well(asyncio.run(fork_while_adding()))
client.close()
""",
        kind,
        daemon.pid,
    )
    assert sorted(item["by"] for item in items_of("s")) == ["child", "child", "parent"]


def test_a_child_that_is_forked_while_a_lock_is_held_does_not_hang(daemon: Any) -> None:
    play("""
client, session = Client(), SessiondSession("s")
client.ping()
asyncio.run(session.get_items())
stop = threading.Event()
def hammer():
    mine = SessiondSession("t")
    while not stop.is_set():
        client.ping()
        asyncio.run(mine.get_items())
threads = [threading.Thread(target=hammer) for _ in range(4)]
for thread in threads:
    thread.start()
def child():
    client.add_items("s", ["{}"])
    asyncio.run(SessiondSession("s").add_items([{}]))
for _ in range(30):
    end_well(in_child(child))
stop.set()
for thread in threads:
    thread.join()
client.close()
""")
    assert len(items_of("s")) == 60


def test_a_program_may_end_without_closing_anything(daemon: Any) -> None:
    play("""
client, session = Client(), SessiondSession("s")
client.ping()
asyncio.run(session.add_items([{}]))
""")
    assert items_of("s") == [{}]


def test_an_interrupt_leaves_the_client_usable(daemon: Any) -> None:
    play(
        """
daemon = int(sys.argv[1])
client = Client()
client.ping()
os.kill(daemon, signal.SIGSTOP)
def interrupt(main):
    wait_for_receiving(main)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, args=(threading.main_thread(),)).start()
try:
    client.get_items("s")
except KeyboardInterrupt:
    pass
os.kill(daemon, signal.SIGCONT)
assert client.add_items("s", ["{}"]).revision == 1
client.close()
""",
        daemon.pid,
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.Runner")
def test_control_c_ends_a_run_after_the_change_under_way(daemon: Any) -> None:
    out = play(
        """
daemon = int(sys.argv[1])
session = SessiondSession("s")
async def main():
    await session.get_items()
    os.kill(daemon, signal.SIGSTOP)
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    asyncio.get_running_loop().call_later(0.15, os.kill, daemon, signal.SIGCONT)
    await session.add_items([{"a": 1}])
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
""",
        daemon.pid,
    )
    assert out == "interrupted\n"
    assert items_of("s") == [{"a": 1}]


SPAWNED = """
import multiprocessing, sys
from sessiond import SessiondSession

def work(session):
    import asyncio
    asyncio.run(session.add_items([{"by": "worker"}]))

if __name__ == "__main__":
    session = SessiondSession("s", store="x", session_settings={"limit": 5})
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(work, [session] * 4)
"""


def test_sessions_travel_to_spawned_workers(daemon: Any, short_dir: Any) -> None:
    script = short_dir / "spawned.py"
    script.write_text(SPAWNED)
    subprocess.run([sys.executable, str(script)], check=True, env={**os.environ, "SESSIOND_STORE": "ignored"})
    with Client() as client:
        assert len(client.get_items("s", store="x").items) == 4
