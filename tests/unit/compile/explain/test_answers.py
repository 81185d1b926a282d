"""What explain says that the proxy answers by itself."""

from __future__ import annotations

import pytest

from meshd.compile.explain.answers import aborted, answer, cross_origin
from meshd.compile.plan.routes import (
    Abort,
    Cors,
    DirectResponse,
    Forward,
    Redirect,
    Route,
    Target,
)
from meshd.matching.conditions import TextMatch
from meshd.matching.request import Request

PLAIN = Request("a.test")
GRPC = Request("a.test", headers=(("content-type", "application/grpc+proto"),))
TO = Forward(targets=(Target("up"),))
ONE = (TextMatch("exact", "https://a.test"),)
WHOLE = Cors(
    origins=ONE, methods="GET", headers="x-a", exposed="x-b", max_age="60", credentials=True
)


def of_page(origin: str, method: str = "GET", wanted: str = "") -> Request:
    asks = (("access-control-request-method", wanted),) if wanted else ()
    return Request("a.test", method=method, headers=(("Origin", origin), *asks))


@pytest.mark.parametrize(
    ("status", "request_", "told"),
    [
        (404, PLAIN, "404"),
        (404, GRPC, "200 with gRPC status 12"),
        (503, GRPC, "200 with gRPC status 14"),
        (418, GRPC, "200 with gRPC status 2"),
    ],
)
def test_clients_of_grpc_are_answered_as_grpc_does(
    status: int, request_: Request, told: str
) -> None:
    assert str(answer(status, request_)) == told


@pytest.mark.parametrize(
    ("abort", "request_", "told"),
    [
        (Abort(http_status=503, percent=100), PLAIN, "503"),
        (Abort(http_status=503, percent=100), GRPC, "200 with gRPC status 14"),
        (Abort(grpc_status=14, percent=100), GRPC, "200 with gRPC status 14"),
        (Abort(grpc_status=14, percent=100), PLAIN, "200"),
    ],
)
def test_an_abort_is_answered_in_the_clients_protocol(
    abort: Abort, request_: Request, told: str
) -> None:
    assert str(aborted(abort, request_)) == told


@pytest.mark.parametrize(
    ("cors", "asked", "told", "headers"),
    [
        (
            WHOLE,
            of_page("https://a.test", "OPTIONS", "PUT"),
            "preflight of origin https://a.test: allowed",
            {"allow-origin", "allow-credentials", "allow-methods", "allow-headers", "max-age"}
            | {"expose-headers"},
        ),
        (
            WHOLE,
            of_page("https://a.test"),
            "request of origin https://a.test: allowed",
            {"allow-origin", "allow-credentials", "expose-headers"},
        ),
        (
            WHOLE,
            of_page("https://b.test", "OPTIONS", "PUT"),
            "preflight of origin https://b.test: not allowed, left to the server",
            set[str](),
        ),
        (
            Cors(origins=ONE, methods="GET", credentials=True, forward_unmatched=False),
            of_page("https://b.test", "OPTIONS", "PUT"),
            "preflight of origin https://b.test: not allowed",
            {"allow-methods", "allow-credentials"},
        ),
        (
            Cors(origins=(TextMatch("regex", "."),)),
            of_page("https://b.test"),
            "request of origin https://b.test: allowed",
            {"allow-origin"},
        ),
    ],
)
def test_pages_of_other_origins_are_judged(
    cors: Cors, asked: Request, told: str, headers: set[str]
) -> None:
    found = cross_origin(Route(name="", action=TO, cors=cors), asked)
    assert found
    assert str(found) == told
    assert set(found.headers(cors)) == {f"access-control-{name}" for name in headers}


@pytest.mark.parametrize(
    ("route", "asked"),
    [
        (Route(name="", action=TO), of_page("https://a.test")),
        (Route(name="", action=TO, cors=WHOLE), PLAIN),
        (Route(name="", action=DirectResponse(200), cors=WHOLE), of_page("https://a.test")),
        (Route(name="", action=Redirect(status=301), cors=WHOLE), of_page("https://a.test")),
    ],
)
def test_nothing_is_judged_without_a_policy_an_origin_or_a_destination(
    route: Route, asked: Request
) -> None:
    assert cross_origin(route, asked) is None
