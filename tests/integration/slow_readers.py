#!/usr/bin/env python3
"""Ten thousand connections, 200 of which ask for 1 MiB and never read it: what another uid notices, and what it costs.

    slow_readers.py BUILD [IDLE]      as root, with `ulimit -n 20000`; IDLE: quiet connections besides (9797)

Prints the time of a small get_items of another uid, alone and beside them, the daemon's memory, and when all were cut.
A measurement, not a test: test_overload.c asserts the states.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import msgpack

OTHER, SLOW, QUIET = 20001, 20002, 20003
SLOW_CLIENTS, CALLS = 200, 3000


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            sys.exit("waited in vain")
        os.sched_yield()


def connect(path: str, uid: int) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    os.seteuid(uid)
    client.connect(path)
    os.seteuid(0)
    return client


def send(client: socket.socket, method: str, **params: object) -> None:
    client.sendall(msgpack.packb([0, 1, method, [params]]))


def call(client: socket.socket, method: str, **params: object) -> None:
    send(client, method, **params)
    answer = msgpack.Unpacker(max_buffer_size=0)
    while part := client.recv(1 << 20):
        answer.feed(part)
        for _, _, error, _ in answer:
            if error:
                sys.exit(str(error))
            return
    sys.exit("the daemon hung up")


def measure(client: socket.socket, what: str) -> None:
    times = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        call(client, "get_items", session="small")
        times.append(time.perf_counter() - begun)
    times.sort()
    print(f"{what}: p50 {times[CALLS // 2] * 1e6:.0f} us, p99 {times[CALLS * 99 // 100] * 1e6:.0f} us", flush=True)


def memory(pid: int) -> float:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def run(build: str, n_quiet: int, top: str) -> None:
    path, log = f"{top}/s", f"{top}/log"
    with open(f"{top}/config", "w") as file:
        file.write('{"connections": 16000, "connections_per_owner": 14000}')
    command = [f"{build}/sessiond", "--system", "--socket", path, "--state-dir", f"{top}/state", "--config", f"{top}/config"]
    with open(log, "w") as file:
        daemon = subprocess.Popen(command, stderr=file)
    try:
        wait_for(lambda: " ready " in open(log).read())
        os.chmod(path, 0o666)
        other = connect(path, OTHER)
        call(other, "add_items", session="small", items=['{"a":1}'])
        slow = [connect(path, SLOW) for _ in range(SLOW_CLIENTS)]
        call(slow[0], "add_items", session="big", items=['{"a":"' + "x" * (1 << 20) + '"}'])
        quiet = [connect(path, QUIET) for _ in range(n_quiet)]
        print(f"{1 + len(slow) + len(quiet)} connections: {memory(daemon.pid):.1f} MiB")
        for _ in range(3):
            measure(other, "alone")
        asked = time.monotonic()
        for client in slow:
            send(client, "get_items", session="big")
        for _ in range(3):
            measure(other, "beside 200 that do not read")
        print(f"they hold: {memory(daemon.pid):.1f} MiB")
        wait_for(lambda: open(log).read().count("connection_stalled") == SLOW_CLIENTS)
        print(f"all cut after {time.monotonic() - asked:.1f} s: {memory(daemon.pid):.1f} MiB")
    finally:
        daemon.terminate()
        daemon.wait()


if __name__ == "__main__":
    if len(sys.argv) < 2 or os.getuid() != 0:
        sys.exit(__doc__)
    directory = tempfile.mkdtemp(prefix="sd-")
    os.chmod(directory, 0o711)
    try:
        run(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 9797, directory)
    finally:
        shutil.rmtree(directory)
