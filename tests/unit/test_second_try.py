"""A failed test that uses the machine runs once more, on a machine that no test has touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import second_try

ROOT = Path(__file__).parent.parent.parent
CONFTEST = """\
from pathlib import Path
import pytest
from tests import second_try
second_try._ROOT = Path(__file__).parent

class Machine:
    made = 0
    def __init__(self):
        Machine.made += 1
        self.number, self.units = self.made, []

@pytest.fixture(scope="session")
def machine():
    return Machine()
"""
STALLS = """\
import pytest

def test_before(machine):
    machine.units.append("web")

def test_stalls_once(machine):
    machine.units.append("shop")
    assert machine.number > 1, "a stall"
    assert machine.units == ["shop"]

def test_after(machine):
    assert (machine.number, machine.units) == (2, ["shop"])

@pytest.fixture(scope="module")
def stalls(machine):
    assert machine.number > 2, "a stall of the fixture"
    yield
    assert machine.number > 3, "a stall of what tears down"

def test_last(stalls):
    pass
"""
FAILS = "def test_fails(): assert not 'this'\n"


def run(directory: Path, **files: str) -> subprocess.CompletedProcess[str]:
    (directory / "conftest.py").write_text(CONFTEST)
    for place, text in files.items():
        (directory / place).mkdir()
        (directory / place / f"test_{place}.py").write_text(text)
    options = ("-p", "tests.second_try", "-p", "no:cacheprovider", f"--rootdir={directory}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, "--import-mode=importlib", *files],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_second_try_has_all_fixtures_anew_and_the_first_is_shown(tmp_path: Path) -> None:
    done = run(tmp_path, host=STALLS)
    assert "4 passed, 1 error, 2 rerun" in done.stdout, done.stdout
    assert "first try of host/test_host.py::test_stalls_once" in done.stdout
    for failure in ("a stall\n", "a stall of the fixture\n", "a stall of what tears down\n"):
        assert f"AssertionError: {failure}" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("place", ["unit", "attacks"])
def test_unit_tests_and_attacks_get_no_second_try(tmp_path: Path, place: str) -> None:
    done = run(tmp_path, **{place: STALLS})
    assert "rerun" not in done.stdout
    assert "2 passed" not in done.stdout


def test_the_last_lines_name_the_tests_that_had_a_second_try(tmp_path: Path) -> None:
    once = "def test_it(machine):\n    assert machine.number > {}, 'a stall'\n"
    done = run(tmp_path, host=once.format(1), node=once.format(2))
    *_, first, second, closing = done.stdout.splitlines()
    assert first == "second try: host/test_host.py::test_it"
    assert second == "second try: node/test_node.py::test_it"
    assert closing.startswith("2 passed, 2 rerun in ")


def test_a_test_that_fails_twice_has_failed(tmp_path: Path) -> None:
    done = run(tmp_path, host=FAILS)
    assert "1 failed, 1 rerun" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_a_run_of_many_second_tries_fails_and_gives_no_more(tmp_path: Path) -> None:
    count = second_try.MOST + 2
    once = "seen = set()\n" + "".join(
        f"def test_{each}():\n    assert {each} in seen or seen.add({each})\n"
        for each in range(count)
    )
    done = run(tmp_path, node=once)
    assert f"1 failed, {count - 1} passed, {count - 1} rerun" in done.stdout
    assert f"{count - 1} of at most {second_try.MOST} second tries" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
