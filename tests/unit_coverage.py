"""The line coverage of the unit tests alone, as a gate: ``pytest --unit-coverage PERCENT``.

Lines count that ran during a test below ``tests/unit``. A module that was only imported, by
whichever test, counts as not covered at all, unless nothing more can run of it. Property tests and
those of altered inputs at doors are not traced: each example would pay for it, and what they reach
other tests reach as well. Which modules do not count, and why, says ``tool.coverage`` in
pyproject.toml.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import coverage
import pytest

_ROOT: Final = Path(__file__).parent.parent
_UNIT: Final = _ROOT / "tests/unit"
_DOORS: Final = _UNIT / "doors"
_DATA: Final = _ROOT / "build/coverage"
_IMPORTED, _TESTED = "imported", "tested"
_SHOWN: Final = 10
"""Modules with the most lines left, which are listed when the gate is closed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--unit-coverage",
        type=float,
        metavar="PERCENT",
        help="fail if the unit tests alone cover fewer of meshd's lines",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    wanted: float | None = config.getoption("--unit-coverage")
    if wanted is None:
        return
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(_DATA, ignore_errors=True)
        _DATA.mkdir(parents=True)
        config.pluginmanager.register(_Gate(wanted))
    config.pluginmanager.register(_Tracer())


class _Tracer:
    """Traces the unit tests of one process."""

    def __init__(self) -> None:
        self._coverage = _coverage()
        self._coverage.start()
        self._coverage.switch_context(_IMPORTED)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self._coverage.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if not _is_traced(item):
            return (yield)
        self._coverage.start()
        self._coverage.switch_context(_TESTED)
        try:
            return (yield)
        finally:
            self._coverage.stop()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        self._coverage.save()


def _is_traced(item: pytest.Item) -> bool:
    function = getattr(item, "obj", None)
    has_examples = hasattr(function, "hypothesis") or item.path.is_relative_to(_DOORS)
    return item.path.is_relative_to(_UNIT) and not has_examples


def _coverage() -> coverage.Coverage:
    return coverage.Coverage(
        data_file=str(_DATA / "data"), data_suffix=True, config_file=str(_ROOT / "pyproject.toml")
    )


class _Module(NamedTuple):
    name: str
    lines: int
    covered: int

    @property
    def left(self) -> int:
        return self.lines - self.covered


class _Gate:
    """Adds up the data of all processes at the end of a run."""

    def __init__(self, wanted: float) -> None:
        self._wanted = wanted
        self._said: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        modules = list(_modules())
        lines = sum(module.lines for module in modules)
        percent = 100 * sum(module.covered for module in modules) / max(lines, 1)
        self._said = [f"the unit tests alone cover {percent:.1f} % of {lines} lines"]
        if percent < self._wanted:
            self._said[0] += f", but {self._wanted:g} % are wanted; most is missing in:"
            most = sorted(modules, key=lambda module: -module.left)[:_SHOWN]
            self._said += [f"  {one.left} of {one.lines}: {one.name}" for one in most]
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._said:
            terminalreporter.line(line)


def _modules() -> Iterator[_Module]:
    """Yield the modules that count."""
    found = _coverage()
    found.combine([str(_DATA)])
    data = found.get_data()
    omitted = [str(pattern) for pattern in found.config.run_omit or ()]
    for path in sorted((_ROOT / "meshd").rglob("*.py")):
        name = str(path.relative_to(_ROOT))
        if any(fnmatch.fnmatch(name, pattern) for pattern in omitted):
            continue
        statements = set(found.analysis2(str(path))[1])
        data.set_query_context(_TESTED)
        tested = set(data.lines(str(path)) or ())
        data.set_query_contexts(None)
        ran = set(data.lines(str(path)) or ()) & statements
        if not tested and ran != statements:
            ran = set()
        yield _Module(name, len(statements), len(ran))
