"""The configuration file: what is said of a wrong one, what is shown, and what a reload does."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from conftest import build_dir
from manager import Service, service_factory  # noqa: F401
from sessiond import Client

Run = subprocess.CompletedProcess[str]


def sessiond(*arguments: str) -> Run:
    return subprocess.run([str(build_dir() / "sessiond"), *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def check(tmp_path: pathlib.Path) -> Callable[[str], Run]:
    """Is this text a good configuration?"""

    def run(text: str) -> Run:
        path = tmp_path / "sessiond.conf"
        path.write_text(text, encoding="utf-8")
        return sessiond("--config", str(path), "--check-config")

    return run


def settings() -> dict[str, Any]:
    """What --help-config says there is: the name, and the rest."""
    text = sessiond("--help-config").stdout
    return dict(re.findall(r"^(\w+): (.*\n    .*)$", text, re.M))


def in_force(*arguments: str) -> dict[str, tuple[str, str]]:
    """What --print-config says: the name; its value as JSON, and who said so."""
    run = sessiond(*arguments, "--print-config")
    assert run.returncode == 0, run.stderr
    lines = [re.fullmatch(r"(\w+) +(\S+) +(.+)", line) for line in run.stdout.splitlines()]
    return {line[1]: (json.loads(line[2]), line[3]) for line in lines if line}


def test_a_good_one_is_good(check: Callable[[str], Run]) -> None:
    run = check('{"lanes": 3}')
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "line", "column", "key"),
    [
        ('{"colour": 1}', 1, 2, "colour"),
        ('{\n  "lanes": 2,\n  "Lanes": 2\n}', 3, 3, "Lanes"),
        ('{"socket": "a\\" \\"x\\": {", "lanes" : "2"}', 1, 28, "lanes"),
        ('{"state_dir": "\\\\", "lanes": [{"x": 1}]}', 1, 21, "lanes"),
        ('{"state_dir": "äö", "lanes": 0}', 1, 21, "lanes"),
        ('{"in_flight": 1,\r\n"log_level": "loud"}', 2, 1, "log_level"),
        ('{"l\\u0061nes": 0}', 1, 2, "lanes"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    check: Callable[[str], Run], text: str, line: int, column: int, key: str
) -> None:
    run = check(text)
    assert run.returncode == 2
    assert f'line={line} column={column} key="{key}"' in run.stderr


@pytest.mark.parametrize("text", ["{", '{"lanes": 1, "lanes": 2}', '{"lanes": 1,}', "{} {}"])
def test_what_is_no_json_is_named_with_its_place(check: Callable[[str], Run], text: str) -> None:
    run = check(text)
    assert run.returncode == 2
    assert re.search(r"line=1 column=\d+ why=", run.stderr)


def test_a_missing_file_is_refused_unless_it_may_be_missing() -> None:
    assert sessiond("--config", "/there/is/none", "--check-config").returncode == 2
    assert sessiond("--config", "-/there/is/none", "--check-config").returncode == 0


def test_what_is_in_force_and_where_it_came_from(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sessiond.conf"
    path.write_text('{"lanes": 3,\n "socket": "/run/file",\n "log_level": "error"}')
    found = in_force("--socket", "/run/flag", "--config", str(path), "--state-dir", "/state")
    assert found["socket"] == ("/run/flag", "flag")
    assert found["state_dir"] == ("/state", "flag")
    assert found["lanes"] == (3, f"file {path}:1")
    assert found["log_level"] == ("error", f"file {path}:3")
    assert found["in_flight"] == (128, "default")


def test_help_print_and_info_know_the_same_settings(service_factory: Callable[..., Service]) -> None:
    service = service_factory()
    service.start()
    with Client(service.socket) as client:
        info = client.info().settings
    assert info.keys() == in_force().keys() == settings().keys()
    for name, text in settings().items():
        match = re.search(r"default (\d+);", text)
        assert match is None or in_force()[name] == (int(match[1]), "default") == (info[name], "default")


def of_a_running(service: Service, name: str) -> Any:
    with Client(service.socket) as client:
        return client.info().settings[name]


@pytest.fixture
def configured(service_factory: Callable[..., Service], tmp_path: pathlib.Path) -> tuple[Service, pathlib.Path]:
    path = tmp_path / "sessiond.conf"
    path.write_text('{"in_flight": 7}')
    service = service_factory(arguments=["--config", str(path)])
    service.start()
    return service, path


def test_sighup_takes_over_what_has_changed(configured: tuple[Service, pathlib.Path]) -> None:
    service, path = configured
    assert of_a_running(service, "in_flight") == 7
    path.write_text('{"in_flight": 9, "lanes": 5}')
    service.reload()
    assert "RELOADING=1" in service.states
    assert of_a_running(service, "in_flight") == 9
    assert of_a_running(service, "lanes") == 2
    assert 'setting_needs_restart key="lanes"' in service.read_log()
    service.stop()
    service.start()
    assert of_a_running(service, "lanes") == 5
    service.stop()


def test_sighup_keeps_the_old_one_when_the_new_one_is_wrong(configured: tuple[Service, pathlib.Path]) -> None:
    service, path = configured
    with Client(service.socket) as client:
        for wrong in ['{"in_flight": 9, "colour": 1}', "", None]:
            path.unlink(missing_ok=True)
            if wrong is not None:
                path.write_text(wrong)
            service.reload()
            assert "STATUS=The new configuration is wrong, the old one is in force" in service.states
            assert client.info().settings["in_flight"] == 7
            service.states.clear()
    service.stop()
