"""What libsessiond shows its users: exactly the functions of its header."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest
from conftest import TOP, Daemon, build_dir

HEADER = TOP / "client/c/sessiond.h"


def functions_of_the_header() -> set[str]:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    return set(re.findall(r"^SESSIOND_(?:PUBLIC|CHECKED)\b[^;]*?\b(sessiond_\w+)\(", text, flags=re.M))


def symbols(*arguments: str | pathlib.Path) -> set[str]:
    lines = subprocess.run(["nm", *arguments], check=True, capture_output=True, text=True).stdout.splitlines()
    words = [line.split() for line in lines]
    return {word[2].partition("@")[0] for word in words if len(word) == 3 and word[1] != "A"}


def test_the_list_of_symbols_is_the_header() -> None:
    text = (TOP / "client/c/sessiond.sym").read_text()
    listed = text.partition("global:")[2].partition("local:")[0].replace(";", " ").split()
    assert listed == sorted(functions_of_the_header())


def test_the_shared_library_shows_the_header_and_no_more() -> None:
    assert symbols("-D", "--defined-only", build_dir() / "libsessiond.so") == functions_of_the_header()


def test_the_static_library_shows_the_header_and_no_more() -> None:
    assert symbols("-g", "--defined-only", build_dir() / "libsessiond.a") == functions_of_the_header()


PROGRAM = """
#include <sessiond.h>
#include <stdio.h>

int main(void)
{
    struct sessiond *client;
    struct sessiond_items history;
    struct sessiond_text item = SESSIOND_TEXT("{}");

    if (sessiond_new(&client, NULL) || sessiond_add_items(client, "s", &item, 1, NULL, NULL) ||
        sessiond_get_items(client, "s", NULL, &history))
        return 1;
    printf("%zu %s", history.n_items, history.items[0].data);
    sessiond_items_free(&history);
    sessiond_free(client);
    return 0;
}
"""


def test_an_installed_library_is_found_by_pkg_config(daemon: Daemon, tmp_path: pathlib.Path) -> None:
    variant = build_dir().name
    if variant not in ("release", "debug"):
        pytest.skip("a sanitizer's library needs its run-time in the program too")
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    subprocess.run(
        ["make", "install", f"V={variant}", f"DESTDIR={tmp_path}", "PREFIX=/usr"],
        cwd=TOP,
        check=True,
        capture_output=True,
        env=environment,
    )
    environment.update(PKG_CONFIG_PATH=str(tmp_path / "usr/lib/pkgconfig"), PKG_CONFIG_SYSROOT_DIR=str(tmp_path))
    program = tmp_path / "program"
    flags = {
        "shared": "$(pkg-config --cflags --libs sessiond)",
        "static": f"$(pkg-config --cflags sessiond) {tmp_path}/usr/lib/libsessiond.a"
        " $(pkg-config --libs msgpack 2>/dev/null || pkg-config --libs msgpack-c)",
    }
    for n, kind in enumerate(flags, 1):
        subprocess.run(
            ["sh", "-c", f"cc -Wall -Werror -x c - -x none {flags[kind]} -o {program}"],
            input=PROGRAM,
            text=True,
            check=True,
            env=environment,
        )
        environment["LD_LIBRARY_PATH"] = str(tmp_path / "usr/lib")
        found = subprocess.run([program], check=True, capture_output=True, text=True, env=environment).stdout
        assert found == f"{n} {{}}"
