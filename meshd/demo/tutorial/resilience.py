"""Step (g): time-outs, retries and a circuit breaker for services that are slow or fail."""

from __future__ import annotations

from typing import Final

from meshd.demo.tutorial.counting import status_counts, timed
from meshd.demo.tutorial.enrollment import SAMPLE
from meshd.demo.tutorial.faults import DELAY
from meshd.demo.tutorial.tutorial import Tutorial

_TIMEOUT: Final = 0.5
_ATTEMPTS: Final = 1 + 3
_FROM_CURL: Final = "meshctl testbed exec deploy/curl -- curl -sS"


def endure(tutorial: Tutorial) -> None:
    _time_out(tutorial)
    _retry(tutorial)
    _break(tutorial)


def _time_out(tutorial: Tutorial) -> None:
    tutorial.done(
        f"meshctl apply --wait -f {SAMPLE}/networking/virtual-service-ratings-delay.yaml"
        f" -f {SAMPLE}/networking/virtual-service-reviews-timeout.yaml"
    )
    answer = tutorial.run(
        f"{_FROM_CURL} -o /dev/null -w '%{{http_code}} %{{time_total}}'"
        " http://reviews:9080/reviews/0"
    )
    status, seconds = timed(answer.output)
    tutorial.expect(
        "reviews wait for late ratings, but the request is given half a second: 504",
        status == "504" and _TIMEOUT * 0.9 <= seconds < DELAY,
        answer.output,
    )
    answer = tutorial.run("curl -sS http://$GATEWAY/productpage | grep -o 'Sorry, [^<]*'")
    tutorial.expect(
        "the page says so instead of waiting", "reviews are currently unavailable" in answer.output
    )
    tutorial.done(f"meshctl apply --wait -f {SAMPLE}/networking/virtual-service-all-v1.yaml")


def _retry(tutorial: Tutorial) -> None:
    tutorial.done(f"meshctl apply --wait -f {SAMPLE}/networking/virtual-service-httpbin-retry.yaml")
    answer = tutorial.run(
        f"{_FROM_CURL} -o /dev/null -w '%{{http_code}}' 'http://httpbin:8000/status/503?retried'"
    )
    tutorial.expect("a request that always fails fails in the end", answer.output == "503")
    answer = tutorial.run("meshctl testbed logs deploy/httpbin | grep -c '/status/503?retried'")
    tutorial.expect(
        f"but the service was asked {_ATTEMPTS} times",
        answer.output.strip() == str(_ATTEMPTS),
        answer.output.strip(),
    )
    tutorial.done("meshctl delete --wait vs httpbin")


def _break(tutorial: Tutorial) -> None:
    """Open the circuit breaker by eight clients on two proxies: one has four, and admits two."""
    tutorial.done(
        f"meshctl apply --wait -f {SAMPLE}/networking/destination-rule-httpbin-circuit-breaker.yaml"
    )
    command = "meshctl testbed exec deploy/fortio -- python3 load.py"
    answer = tutorial.run(f"{command} -c 1 -n 10 http://httpbin:8000/get")
    tutorial.expect("one client at a time is served", status_counts(answer.output) == {200: 10})
    answer = tutorial.run(f"{command} -c 8 -n 40 http://httpbin:8000/delay/0.1")
    counts = status_counts(answer.output)
    tutorial.expect(
        f"of eight at once some are refused: the circuit breaker is open"
        f" ({counts.get(503, 0)} of {sum(counts.values())})",
        counts.get(503, 0) > 0 and counts.get(200, 0) > 0 and set(counts) == {200, 503},
        counts,
    )
    answer = tutorial.run(
        "meshctl testbed exec deploy/fortio -- curl -sS -o /dev/null -w '%{http_code}'"
        " http://httpbin:8000/get"
    )
    tutorial.expect("and afterwards it is closed again", answer.output == "200", answer.output)
    tutorial.done("meshctl delete --wait dr httpbin")
