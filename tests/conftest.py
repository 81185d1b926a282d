"""What holds for all tests: one that lacks what it needs fails; nothing is skipped in silence."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

# Tests of capture fork in a process in which others have used gRPC, whose handlers of forks abort.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# How long an example takes says something of the machine's load and nothing of meshd. Each run has
# other examples.
hypothesis.settings.register_profile("meshd", deadline=None, max_examples=50)
hypothesis.settings.load_profile("meshd")

pytest_plugins = ["tests.second_try", "tests.lanes", "tests.unit_coverage"]


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
