"""Step (f): faults for one user, ratings that come late, and ratings that fail."""

from __future__ import annotations

import math
from typing import Final

from meshd.demo.tutorial.counting import timed, uniq_counts
from meshd.demo.tutorial.enrollment import SAMPLE
from meshd.demo.tutorial.routing import page_of
from meshd.demo.tutorial.tutorial import Tutorial

DELAY: Final = 2.0
_FAILED: Final = "Ratings service is currently unavailable"


def inject(tutorial: Tutorial) -> None:
    tutorial.done(
        f"meshctl apply --wait -f {SAMPLE}/networking/virtual-service-reviews-test.yaml"
        f" -f {SAMPLE}/networking/virtual-service-ratings-test-delay.yaml"
    )
    late, soon = _seconds(tutorial, "john"), _seconds(tutorial, "mary")
    tutorial.expect(f"john's page takes 2 s longer: {late:.2f} s", DELAY <= late < math.inf)
    tutorial.expect(f"mary's does not: {soon:.2f} s", soon < DELAY)
    tutorial.done(
        f"meshctl apply --wait -f {SAMPLE}/networking/virtual-service-ratings-test-abort.yaml"
    )
    for user, wanted in (("john", {_FAILED: 2}), ("mary", {'color="red"': 2})):
        answer = tutorial.run(
            f"{page_of(user)} | grep -oE '{_FAILED}|color=\"[a-z]+\"' | sort | uniq -c"
        )
        told = "ratings fail for john" if user == "john" else "and for mary they do not"
        tutorial.expect(told, (got := uniq_counts(answer.output)) == wanted, got)
    for header, wanted in (("end-user: john", "503"), ("end-user: mary", "200")):
        answer = tutorial.run(
            "meshctl testbed exec deploy/reviews-v2 -- curl -sS -o /dev/null -w '%{http_code}'"
            f" -H '{header}' http://ratings:9080/ratings/0"
        )
        tutorial.expect(f"ratings answer {wanted} to {header}", answer.output == wanted)


def _seconds(tutorial: Tutorial, user: str) -> float:
    """Return the seconds until a user has the page; infinity without an answer."""
    command = page_of(user).replace("-sS", "-sS -o /dev/null -w '%{http_code} %{time_total}'")
    status, seconds = timed(tutorial.run(command).output)
    return seconds if status == "200" else math.inf
