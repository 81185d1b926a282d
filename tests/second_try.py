"""A second try for tests that use the machine, so that one stall of it does not refuse a change.

The report shows the first failure in full and the closing line counts it, and a run in which more
than a few tests needed a second try fails. ``-p no:rerunfailures`` gives none. Unit tests never get
one, since nothing but the code decides them, and attacks get none, since one success in two tries
is a success.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

MOST: Final = 4
"""Tests of one run that may need a second try."""
_ROOT: Final = Path(__file__).parent
_USE_THE_MACHINE: Final = frozenset({"envoy", "host", "netns", "node"})


def has_second_try(path: str) -> bool:
    """Whether a test that fails runs again. ``path`` is below ``tests``."""
    return path.partition("/")[0] in _USE_THE_MACHINE


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "flaky(reruns): runs again when it fails")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if has_second_try(str(item.path.relative_to(_ROOT))):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"first try of {report.nodeid}")
        terminalreporter.line(report.longreprtext)
    if (count := len(_again(terminalreporter))) > MOST:
        terminalreporter.line(f"{count} tests needed a second try; at most {MOST} may")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(reporter, pytest.TerminalReporter) and len(_again(reporter)) > MOST:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _again(reporter: pytest.TerminalReporter) -> set[str]:
    return {report.nodeid for report in reporter.stats.get("rerun", ())}
