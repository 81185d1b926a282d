"""A second try for tests that use the machine, so that one stall of it does not refuse a change.

It begins as if no test had run: all fixtures are torn down before it, those of the module and of
the session too, so that it depends on nothing that the first try has left (which is why this is not
pytest-rerunfailures, which keeps them). A test therefore has to pass alone.

The report shows the first failure in full and names these tests just before the closing line, which
counts them, and a run in which more than a few tests needed a second try fails.
``-p no:tests.second_try`` gives none. Unit tests never get one, since nothing but the code decides
them, and attacks get none, since one success in two tries is a success.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

MOST: Final = 4
"""Tests of one run that may need a second try."""
_ROOT: Final = Path(__file__).parent
_USE_THE_MACHINE: Final = frozenset({"envoy", "host", "netns", "node"})
_FIRST: Final = pytest.StashKey[list[pytest.TestReport]]()
"""What failed in the try that is under way, of a test that has another."""
_AGAIN: Final = pytest.StashKey[int]()
"""How many tests of this process needed a second try."""


def has_second_try(path: Path) -> bool:
    """Whether a test that fails runs again."""
    return path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _USE_THE_MACHINE


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    again = item.config.stash.get(_AGAIN, 0)
    if not has_second_try(item.path) or again > MOST:
        return (yield)
    failed = item.stash[_FIRST] = []
    result = yield
    if failed:
        tear_down_all(item)
        item.config.stash[_AGAIN] = again + 1
    del item.stash[_FIRST]
    return _try_again(item, nextitem) if failed else result


def tear_down_all(item: pytest.Item) -> None:
    """Tear down all fixtures, those of the session too; what fails then counts as the test's."""
    # As when a run is about to stop; no hook does it, and pytest-rerunfailures takes the same way.
    state = item.session._setupstate  # pyright: ignore[reportPrivateUsage]
    call = pytest.CallInfo.from_call(lambda: state.teardown_exact(None), when="teardown")
    report = item.ihook.pytest_runtest_makereport(item=item, call=call)
    item.ihook.pytest_runtest_logreport(report=report)


def _try_again(item: pytest.Item, nextitem: pytest.Item | None) -> object:
    own = item.config.pluginmanager.get_plugin(__name__)
    hook = item.config.pluginmanager.subset_hook_caller("pytest_runtest_protocol", [own])
    return hook(item=item, nextitem=nextitem)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    failed = item.stash.get(_FIRST, None)
    if failed is not None and report.failed:
        failed.append(report)
        # Its type does not foresee what plugins add, as below.
        report.outcome = "rerun"  # pyright: ignore[reportAttributeAccessIssue]
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    return ("rerun", "R", "RERUN") if str(report.outcome) == "rerun" else None


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"first try of {report.nodeid}")
        terminalreporter.line(report.longreprtext)
    if names := _needed_again(terminalreporter):
        terminalreporter.section(f"{len(names)} of at most {MOST} second tries")
        for name in sorted(names):
            terminalreporter.line(f"second try: {name}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(reporter, pytest.TerminalReporter) and len(_needed_again(reporter)) > MOST:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _needed_again(reporter: pytest.TerminalReporter) -> set[str]:
    return {report.nodeid for report in reporter.stats.get("rerun", ())}
