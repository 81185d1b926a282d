"""Which tests follow each other, and which run beside each other.

Three processes run them (see the Makefile), each a lane after the other: on two cores, since tests
of real machines wait for half of their time. Tests of one lane share the machines that are made for
a session, and never run beside each other. The machines end with their lane: as long as they stood
idle they would take processor time from the next ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.second_try import tear_down_all

_ROOT: Final = Path(__file__).parent
LONGEST: Final = (
    *("host", "node under load", "netns", "packages", "node", "envoy", "attacks"),
    *("unit/doors", "unit/compile"),
)
"""The lanes that begin first, the longest before all others: the processes then end together, since
what is left by then is short. A run ends with what each lane took."""
_SETTLED: Final = (
    *("config", "damaged_records", "enroll_namespace", "external", "gateway"),
    *("gateway_secrets", "gateway_tasks", "identities", "isolation", "killing_records"),
    *("leaving", "localities", "mirroring", "policies", "protocols"),
)
APART: Final = {f"node/test_{name}.py": "node" for name in _SETTLED} | {
    f"host/test_{name}.py": "packages" for name in ("package", "vagrant")
}
"""Lanes of tests that share no machine with the others of their directory: of nodes, those that
look for what comes, however late; of hosts, those that install a package."""
_OTHERS: Final = {"node": "node under load"}
"""Lanes of directories that are not called as these: of the tests that watch what happens to a node
under load there is one at a time."""


def lane_of(path: str) -> str:
    """Return the lane of a test, which is mostly its directory, of unit tests the one below
    ``unit``.

    ``path`` is below ``tests``; what follows the file's name does no harm.
    """
    file = path.removeprefix("tests/").partition("::")[0]
    parts = file.split("/")
    directory = "/".join(parts[: 2 if parts[0] == "unit" else 1])
    return APART.get(file) or _OTHERS.get(directory, directory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the lanes into the order in which they begin."""
    order = {lane: place for place, lane in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(lane_of(_place(item)), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return lane_of(nodeid)

    return Lanes(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    result = yield
    if nextitem and lane_of(_place(item)) != lane_of(_place(nextitem)):
        tear_down_all(item)
    return result


def _place(item: pytest.Item) -> str:
    return str(item.path.relative_to(_ROOT))


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
