"""Which tests follow each other: lanes bear names of what is there, and machines end with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import lanes

ROOT = Path(__file__).parent.parent
CONFTEST = """\
from pathlib import Path
import pytest
from tests import lanes
lanes._ROOT = Path(__file__).parent
made = []

@pytest.fixture(scope="session")
def machine():
    made.append(len(made))
    yield made[-1]
    print(f"machine {made[-1]} ends")
"""
TEST = """\
def test_{name}(machine):
    assert machine == {wanted}
"""


def test_each_file_of_a_lane_of_its_own_exists_and_all_lanes_that_begin_first_have_tests() -> None:
    assert [file for file in lanes.APART if not (ROOT / file).exists()] == []
    files = (str(path.relative_to(ROOT)) for path in ROOT.rglob("test_*.py"))
    assert set(lanes.LONGEST) - {lanes.lane_of(file) for file in files} == set()


def test_lane_of_a_test_is_its_directory_or_what_is_said_of_its_file() -> None:
    wanted = {
        "tests/unit/api/gateway/test_read.py::test_it[a/b]": "unit/api",
        "tests/netns/test_apply.py": "netns",
        "node/test_gateway.py::test_it": "node",
        "node/test_crashes.py::test_it": "node under load",
        "host/test_package.py": "packages",
    }
    assert {path: lanes.lane_of(path) for path in wanted} == wanted


def test_machines_end_with_their_lane(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for place, name, wanted in (("host", "one", 0), ("host", "two", 0), ("envoy", "one", 1)):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / f"test_{name}.py").write_text(TEST.format(name=name, wanted=wanted))
    options = ("-p", "tests.lanes", "-p", "no:cacheprovider", f"--rootdir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qs", *options, "--import-mode=importlib", tmp_path],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT.parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.index("machine 0 ends") < done.stdout.index("machine 1 ends")
