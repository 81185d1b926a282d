"""What holds for all tests: one that lacks what it needs fails; nothing is skipped in silence.

Two processes run them (see the Makefile), each a lane after the other. Tests of one lane share the
machines that are made for a session, and never run beside each other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

# Tests of capture fork in a process in which others have used gRPC, whose handlers of forks abort.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# How long an example takes says something of the machine's load and nothing of meshd. Each run has
# other examples.
hypothesis.settings.register_profile("meshd", deadline=None, max_examples=50)
hypothesis.settings.load_profile("meshd")

pytest_plugins = ["tests.second_try", "tests.unit_coverage"]

ROOT = Path(__file__).parent
LONGEST = ("whole machines", "attacks", "node", "envoy", "netns", "unit/doors")
"""The lanes that begin first, the longest before all others: the two processes then end together,
since what is left by then is short. A run ends with what each lane took."""
TOGETHER: dict[str, str] = dict.fromkeys(("host", "node"), "whole machines")
"""Directories of one lane. Of the tests that watch what happens under load there is one at a time,
and the demo takes the control groups of hosts that boot beside it for its own."""
APART = frozenset(
    f"test_{name}.py"
    for name in (
        *("config", "damaged_records", "enroll_namespace", "external", "gateway"),
        *("gateway_secrets", "gateway_tasks", "identities", "isolation", "killing_records"),
        *("leaving", "localities", "mirroring", "policies", "protocols"),
    )
)
"""Tests of nodes that are a lane of their own: what they look for comes, however late. With all of
them among the whole machines, that lane would last longer than all others together."""


def lane_of(path: str) -> str:
    """Return the directory, of unit tests the one below ``unit``.

    ``path`` is below ``tests``; what follows the file's name does no harm.
    """
    parts = path.removeprefix("tests/").partition("::")[0].split("/")
    if parts[0] == "node" and parts[-1] in APART:
        return "node"
    return TOGETHER.get(parts[0], "/".join(parts[: 2 if parts[0] == "unit" else 1]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the lanes into the order in which they begin."""
    order = {lane: place for place, lane in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(lane_of(str(item.path.relative_to(ROOT))), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return lane_of(nodeid)

    return Lanes(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    spent: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                spent[lane_of(report.nodeid)] += report.duration
    if len(spent) > len(LONGEST):
        longest = sorted(spent.items(), key=lambda lane: -lane[1])
        told = ", ".join(f"{lane} {seconds:.0f} s" for lane, seconds in longest)
        terminalreporter.line(f"lanes: {told}")


def pytest_configure(config: pytest.Config) -> None:
    def write_to_what_is_kept() -> None:
        """A child that meshd forks keeps the descriptors 0 to 2 and closes all others. Those that
        pytest writes to have other numbers, which the child may give to sockets."""
        sys.stdout, sys.stderr = (
            open(number, "w", buffering=1, closefd=False, encoding="utf-8")  # noqa: SIM115
            for number in (1, 2)
        )
        if logs := config.pluginmanager.get_plugin("logging-plugin"):
            logs.log_file_handler.setStream(sys.stderr)

    os.register_at_fork(after_in_child=write_to_what_is_kept)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.fixture
def mesh_home() -> Iterator[Path]:
    """A MESHD_HOME that every user can reach. Afterwards nothing runs or is mounted there."""
    home = Path(tempfile.mkdtemp(prefix="meshd-", dir="/tmp"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        for pid in _processes_of(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for line in reversed(Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()):
            if (mounted := line.split(" ")[1]).startswith(f"{home}/"):
                subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(home)


def _processes_of(home: Path) -> Iterator[int]:
    """Those that were started with it as their MESHD_HOME."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"MESHD_HOME={home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                yield int(process.name)
