"""Step (j): one of the proxies is killed while requests run through it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from meshd.base.errors import NotReadyError
from meshd.demo.tutorial.counting import status_counts
from meshd.demo.tutorial.tutorial import Tutorial

_REQUESTS: Final = 10_000
_MOST_FAILURES: Final = 0.01
_UNDER_WAY: Final = 20_000
"""Bytes of the service's log: a few hundred requests."""
_LOAD: Final = "meshctl testbed exec deploy/fortio -- python3 load.py"
_URL: Final = "http://reviews:9080/reviews/0"


def kill(tutorial: Tutorial) -> None:
    reviews = tutorial.pod("default", "reviews")  # the first is version 1
    log = Path(reviews["containers"][0]["log"])
    size = log.stat().st_size
    pid = tutorial.done(
        "meshctl status -n default 2>/dev/null | awk '$1 == \"proxy-0\" {print $2}'"
    ).output.strip()
    with tutorial.beside(f"{_LOAD} -c 8 -n {_REQUESTS} {_URL}") as load:
        under_way = tutorial.until(
            lambda: abs(log.stat().st_size - size) > _UNDER_WAY, "requests under way"
        )
        tutorial.done(f"kill -9 {pid}")
        if not (under_way and load.runs):
            raise NotReadyError("the requests were over before the proxy was killed")
        with tutorial.terminal.waiting("the rest of the requests"):
            answer = load.wait(90)
    tutorial.terminal.output(answer.output)
    _judge(tutorial, status_counts(answer.output))
    answer = tutorial.run(f"{_LOAD} -c 8 -n 500 {_URL}")
    tutorial.expect(
        "everything after that goes well", status_counts(answer.output) == {200: 500}, answer.output
    )
    back = tutorial.until(lambda: _is_back(tutorial, pid), "the proxy comes back")
    tutorial.run("meshctl status -n default | grep proxy")
    tutorial.expect("the proxy is there again, and has the newest configuration", back)


def _judge(tutorial: Tutorial, counts: dict[int, int]) -> None:
    failures = sum(times for status, times in counts.items() if status != 200)
    tutorial.expect(
        f"{failures} of {_REQUESTS} requests failed, which is less than {_MOST_FAILURES:.0%}",
        sum(counts.values()) == _REQUESTS and failures < _REQUESTS * _MOST_FAILURES,
        counts,
    )


def _is_back(tutorial: Tutorial, before: str) -> bool:
    """Return whether the proxy is back; ``before`` is the pid of the one that was killed."""
    lines = tutorial.ask("meshctl status -n default").output.splitlines()
    fields = {words[0]: words[1:] for line in lines if (words := line.split())}
    pid, connected = fields.get("proxy-0", [""])[0], fields.get("demo~proxy-0", [])[:2]
    return pid.isdigit() and pid != before and connected == ["yes", "yes"]
