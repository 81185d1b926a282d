"""What a real Envoy does with the routes that VirtualServices are compiled to.

Each feature has a host of its own in ``routes.yaml``.
"""

from __future__ import annotations

import collections
import concurrent.futures
import math
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.envoy.routes.conftest import Proxy


@pytest.mark.parametrize(
    ("host", "path", "request_headers", "backend"),
    [
        ("exact.test", "/a", {}, "v2"),
        ("exact.test", "/a?x=1", {}, "v2"),
        ("exact.test", "/a/b", {}, "v1"),
        ("exact.test:9999", "/a", {}, "v2"),
        ("EXACT.test", "/a", {}, "v2"),
        ("prefix.test", "/abc", {}, "v2"),
        ("prefix.test", "/A", {}, "v1"),
        ("regex.test", "/a/12", {}, "v2"),
        ("regex.test", "/a/12/x", {}, "v1"),
        ("long-regex.test", "/abc12/def3", {}, "v2"),
        ("case.test", "/uP/x", {}, "v2"),
        ("case.test", "/down", {}, "v1"),
        ("beta.authority.test", "/", {}, "v2"),
        ("alpha.authority.test", "/", {}, "v1"),
        ("scheme.test", "/", {}, "v2"),
        ("header.test", "/", {"end_user": "john"}, "v2"),
        ("header.test", "/", {"end_user": "mary"}, "v2"),
        ("header.test", "/", {"end_user": "xzy"}, "v2"),
        ("header.test", "/", {"end_user": "peter"}, "v1"),
        ("header.test", "/", {}, "v1"),
        ("present.test", "/", {"x_beta": "anything"}, "v2"),
        ("present.test", "/", {}, "v1"),
        ("without.test", "/", {"end_user": "john"}, "v1"),
        ("without.test", "/", {"end_user": "mary"}, "v2"),
        ("without.test", "/", {}, "v2"),
        ("without-any.test", "/", {"end_user": "mary"}, "v1"),
        ("without-any.test", "/", {}, "v2"),
        ("query.test", "/?q=yes&n=12", {}, "v2"),
        ("query.test", "/?q=yes&n=a", {}, "v1"),
        ("query.test", "/?n=12", {}, "v1"),
        ("port.test", "/a", {}, "v1"),
        ("labels.test", "/", {}, "v1"),
        ("after-all.test", "/a", {}, "v1"),
        ("unknown-host.test", "/ok", {}, "v1"),
        ("claim.test", "/", {}, "v1"),
        ("claim.test", "/without", {}, "v3"),
        ("counterpart.test", "/", {}, "v2"),
        ("delegating.test", "/books", {}, "v2"),
        ("delegating.test", "/books/new/1", {}, "v3"),
        ("delegating.test", "/films", {}, "v1"),
        ("reviews", "/", {}, None),
        ("reviews.default", "/", {}, None),
        ("reviews.default.svc.cluster.local", "/", {}, None),
    ],
)
def test_request_reaches_the_destination_of_the_first_route_that_matches(
    proxy: Proxy, host: str, path: str, request_headers: dict[str, str], backend: str | None
) -> None:
    reply = proxy.call(host, path, **request_headers)

    assert reply.status == 200
    assert reply.echo.backend in ({backend} if backend else {"v1", "v2", "v3"})


def test_method_is_matched(proxy: Proxy) -> None:
    assert proxy.call("method.test", method="PUT").echo.backend == "v2"
    assert proxy.call("method.test", method="GET").echo.backend == "v1"


def test_request_that_no_route_matches_is_answered_404(proxy: Proxy) -> None:
    assert proxy.call("none.test", "/other").status == 404


def test_host_outside_the_registry_is_refused_where_only_the_registry_counts(proxy: Proxy) -> None:
    assert proxy.call("stranger.test").status == 502


def test_weights_share_the_requests(proxy: Proxy) -> None:
    count = 800
    places = collections.Counter(proxy.call("weights.test").echo.backend for _ in range(count))

    # Six standard deviations of a binomial distribution: it fails once in a thousand million runs.
    tolerance = 6 * math.sqrt(count * 0.75 * 0.25)
    assert abs(places["v1"] - 0.75 * count) < tolerance
    assert places["v1"] + places["v2"] == count


def test_redirect_replaces_the_parts_that_are_named(proxy: Proxy) -> None:
    everything = proxy.call("redirect.test", "/all/x")
    port = proxy.call("redirect.test", "/port/x")
    path = proxy.call("redirect.test", "/anything")
    prefix = proxy.call("redirect.test", "/moved/x?y=1")

    assert everything.status == 308
    assert everything.headers["location"] == "https://other.test:8443/new"
    assert (port.status, port.headers["location"]) == (301, "http://other.test:80/port/x")
    assert path.headers["location"] == "http://redirect.test/only"
    assert prefix.headers["location"] == "http://redirect.test/x?y=1"


def test_direct_response_is_given_by_the_proxy(proxy: Proxy) -> None:
    text = proxy.call("direct.test")

    assert (text.status, text.body) == (418, b"teapot")
    assert text.headers["x-kind"] == "stoneware"
    assert proxy.call("direct.test", "/bytes").body == b"hello"


@pytest.mark.parametrize(
    ("path", "arrived"),
    [
        ("/v1/old/book?q=1", "/new/book?q=1"),
        ("/exact", "/was-exact"),
        ("/r/some/thing?q=1", "/was-regex?q=1"),
        ("/service/books/list", "/list/of/books"),
    ],
)
def test_rewrite_replaces_what_matched(proxy: Proxy, path: str, arrived: str) -> None:
    assert proxy.call("rewrite.test", path).echo.path == arrived


def test_rewrite_replaces_the_authority(proxy: Proxy) -> None:
    assert proxy.call("rewrite.test", "/v1/old/a").echo.headers["host"] == "inner.test"
    assert proxy.call("rewrite.test", "/exact").echo.headers["host"] == "rewrite.test"


def test_timeout_ends_a_request_that_takes_longer(proxy: Proxy) -> None:
    assert proxy.call("timeout.test", "/timeout-slow", x_sleep="4").status == 504
    assert proxy.call("timeout.test", "/timeout-fast").status == 200


@pytest.mark.parametrize(
    ("host", "status", "attempts"),
    [
        ("retry-default.test", "503", 1),
        ("retry-default.test", "500", 1),
        ("retry-none.test", "503", 1),
        ("retry-codes.test", "418", 4),
        ("retry-codes.test", "503", 1),
        ("retry-empty.test", "503", 1),
        ("retry-backoff.test", "503", 3),
    ],
)
def test_failed_request_is_tried_as_often_as_the_route_says(
    proxy: Proxy, host: str, status: str, attempts: int
) -> None:
    path = f"/{host}/{status}"

    assert proxy.call(host, path, x_status=status).status == int(status)
    tried = proxy.backends.requests(path)
    assert len(tried) == attempts
    assert [seen.headers["x-envoy-attempt-count"] for seen in tried] == [
        str(number) for number in range(1, attempts + 1)
    ]


@pytest.mark.parametrize(
    ("host", "method", "attempts"),
    [
        *(("retry-default.test", method, 2) for method in ("GET", "HEAD", "OPTIONS", "TRACE")),
        *(("retry-default.test", method, 2) for method in ("PUT", "DELETE")),
        *(("retry-default.test", method, 1) for method in ("POST", "PATCH", "PROPFIND")),
        ("retry-empty.test", "GET", 2),
        ("retry-none.test", "GET", 1),
        ("retry-codes.test", "GET", 1),
        *(("retry-try.test", method, 2) for method in ("GET", "POST")),
        ("reviews", "GET", 2),
        ("reviews", "POST", 1),
    ],
)
def test_what_a_server_hung_up_on_is_asked_again_if_that_makes_no_difference(
    proxy: Proxy, host: str, method: str, attempts: int
) -> None:
    path = f"/hang-up/{host}/{method}"
    reply = proxy.call(host, path, method, x_hang_up="yes", x_after="2")
    assert reply.status == (200 if attempts > 1 else 503)
    tried = proxy.backends.requests(path)
    assert len(tried) == attempts
    assert not any("x-envoy-retry-on" in seen.headers for seen in tried)


@pytest.mark.parametrize(("method", "attempts"), [("PUT", 2), ("POST", 1)])
def test_a_body_of_unknown_length_is_sent_again_with_its_request(
    proxy: Proxy, method: str, attempts: int
) -> None:
    path = f"/hang-up/streamed/{method}"
    reply = proxy.stream(
        "retry-default.test", path, method, (b"one ", b"two"), x_hang_up="yes", x_after="2"
    )
    assert reply.status == (200 if attempts > 1 else 503)
    tried = proxy.backends.requests(path)
    assert [seen.body for seen in tried] == ["one two"] * attempts


def test_retry_that_succeeds_hides_the_failure(proxy: Proxy) -> None:
    path = "/recovers"

    assert proxy.call("retry-codes.test", path, x_status="418", x_after="2").status == 200
    assert len(proxy.backends.requests(path)) == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("host", "attempts"), [("retry-default.test", 3), ("retry-empty.test", 5)])
def test_requests_that_the_servers_proxy_could_not_send_are_repeated(
    proxy: Proxy, host: str, attempts: int, method: str
) -> None:
    path = f"/unsent/{host}/{method}"
    reply = proxy.call(host, path, method, x_status="503", x_unsent="yes")
    assert reply.status == 503
    assert len(proxy.backends.requests(path)) == attempts
    assert "x-meshd-not-sent" not in reply.headers


def test_each_try_has_its_own_timeout(proxy: Proxy) -> None:
    path = "/second-is-fast"

    assert proxy.call("retry-try.test", path, x_sleep="4", x_after="2").status == 200
    assert len(proxy.backends.requests(path)) == 2


def test_delay_holds_a_request_back(proxy: Proxy) -> None:
    before = proxy.counter("http.client.fault.delays_injected")

    assert proxy.call("delay.test").status == 200
    assert proxy.counter("http.client.fault.delays_injected") == before + 1


def test_abort_answers_in_place_of_the_server(proxy: Proxy) -> None:
    assert proxy.call("abort.test", "/aborted", end_user="john").status == 555
    assert proxy.backends.requests("/aborted") == []


def test_fault_without_a_percentage_affects_nobody(proxy: Proxy) -> None:
    before = proxy.counter("http.client.fault.delays_injected")

    assert {proxy.call("abort.test").status for _ in range(20)} == {200}
    assert proxy.counter("http.client.fault.delays_injected") == before


def test_fault_affects_its_percentage_of_requests(proxy: Proxy) -> None:
    count = 500
    aborted = sum(proxy.call("abort-some.test").status == 429 for _ in range(count))

    assert abs(aborted - 0.3 * count) < 6 * math.sqrt(count * 0.3 * 0.7)


def test_abort_with_a_grpc_status_answers_as_grpc_does(proxy: Proxy) -> None:
    reply = proxy.call("abort-grpc.test", method="POST", content_type="application/grpc")

    assert (reply.status, reply.headers["grpc-status"]) == (200, "14")


def test_mirror_gets_a_copy_and_its_answer_is_dropped(proxy: Proxy) -> None:
    path = "/mirrored"

    assert proxy.call("mirror.test", path).echo.backend == "v1"
    copy = next(seen for seen in proxy.backends.wait_for(path, 2) if seen.backend != "v1")
    assert (copy.backend, copy.headers["host"]) == ("v2", "mirror.test-shadow")


def test_no_copy_is_sent_in_the_name_of_nobody(proxy: Proxy) -> None:
    """Nor in the one that the client writes where the proxy does."""
    forged = {
        "x_meshd_copy_identity": "spiffe://cluster.local/ns/default/sa/client",
        "x_meshd_copy_host": "true",
        "x_meshd_copy_to": "outbound|80||v2.default.svc.cluster.local",
    }
    refused = "cluster.mirror.upstream_rq_503"
    assert proxy.call_as_nobody("mirror.test", "/nobody", **forged).echo.backend == "v1"
    proxy.eventually(lambda: proxy.counter(refused) == 1)
    assert {seen.backend for seen in proxy.backends.wait_for("/nobody", 1)} == {"v1"}
    assert "nobody" in proxy.log.read_text()


def test_header_operations_of_a_route_and_its_destination(proxy: Proxy) -> None:
    reply = proxy.call("headers.test", x_set="old", x_add="first", x_gone="here")

    assert reply.echo.headers["x-set"] == "100%"
    assert reply.echo.headers["x-place"] == "one"
    assert reply.echo.headers["host"] == "renamed.test"
    assert reply.echo.headers["x-add"] == "first,more"
    assert "x-gone" not in reply.echo.headers
    assert reply.headers["x-answer"] == "yes"
    assert "x-secret" not in reply.headers


def test_header_operations_of_each_weighted_destination(proxy: Proxy) -> None:
    replies = [proxy.call("weighted-headers.test") for _ in range(40)]

    assert {reply.headers["x-place"] for reply in replies} == {"v1", "v2"}
    assert {(reply.echo.backend, reply.echo.headers["host"]) for reply in replies} == {
        ("v1", "one.test"),
        ("v2", "weighted-headers.test"),
    }


def test_cors_preflight_is_answered_for_the_origins_that_are_allowed(proxy: Proxy) -> None:
    asked = {"access_control_request_method": "PUT"}
    good = proxy.call("cors.test", "/cors", method="OPTIONS", origin="https://good.test", **asked)
    bad = proxy.call("cors.test", "/bad", method="OPTIONS", origin="https://bad.test", **asked)
    simple = proxy.call("cors.test", "/simple", origin="https://a.fine.test")

    assert good.headers["access-control-allow-origin"] == "https://good.test"
    assert good.headers["access-control-allow-methods"] == "GET,PUT"
    assert good.headers["access-control-allow-headers"] == "x-token"
    assert good.headers["access-control-max-age"] == "3600"
    assert proxy.backends.requests("/cors") == []
    assert "access-control-allow-origin" not in bad.headers
    assert simple.headers["access-control-allow-origin"] == "https://a.fine.test"
    assert simple.headers["access-control-allow-credentials"] == "true"
    assert simple.headers["access-control-expose-headers"] == "x-answer"


@pytest.mark.parametrize(("host", "arrives"), [("cors.test", True), ("cors-ignore.test", False)])
def test_cors_preflight_that_is_not_allowed_reaches_the_server_unless_ignored(
    proxy: Proxy, host: str, arrives: bool
) -> None:
    path, asked = f"/unmatched/{host}", {"access_control_request_method": "PUT"}
    reply = proxy.call(host, path, method="OPTIONS", origin="https://bad.test", **asked)

    assert reply.status == 200
    assert "access-control-allow-origin" not in reply.headers
    assert bool(proxy.backends.requests(path)) is arrives


@pytest.mark.parametrize("host", ["unknown-host.test", "unknown-subset.test"])
def test_destination_that_is_not_there_is_answered_503(proxy: Proxy, host: str) -> None:
    assert proxy.call(host).status == 503


def test_consistent_hash_keeps_a_user_on_one_endpoint(proxy: Proxy) -> None:
    places = {
        user: {proxy.call("hash.test", x_user=user).echo.backend for _ in range(5)}
        for user in map(str, range(24))
    }

    assert {len(seen) for seen in places.values()} == {1}
    assert len(set.union(*places.values())) > 1


def test_circuit_breaker_refuses_what_is_over_the_limits(proxy: Proxy) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(proxy.call, "narrow", "/narrow", x_sleep="1") for _ in range(8)]
        replies = [call.result() for call in calls]

    refused = [reply for reply in replies if reply.status == 503]
    assert 0 < len(refused) < len(replies)
    assert {reply.headers["x-envoy-overloaded"] for reply in refused} == {"true"}
    assert proxy.call("narrow").status == 200


def test_endpoint_that_fails_is_left_out(proxy: Proxy) -> None:
    def statuses(count: int) -> list[int]:
        return [proxy.call("fragile", x_fail_on="v1").status for _ in range(count)]

    # By chance each of the three is tried soon: 60 times not is one in ten thousand million. What
    # is ejected is left out once Envoy has told its threads, which takes it a moment.
    assert 500 in statuses(60)
    proxy.eventually(lambda: 500 not in statuses(20))


def test_near_endpoints_come_first_and_farther_ones_when_those_fail(proxy: Proxy) -> None:
    def served_by(failing: str = "") -> set[str]:
        # Envoy collects changes of endpoints' health for up to a second.
        proxy.eventually(lambda: proxy.call("near", x_fail_on=failing).status == 200)
        return {proxy.call("near").echo.backend for _ in range(20)}

    assert served_by() == {"v1"}
    assert served_by(failing="v1") == {"v2"}
    assert served_by(failing="v2") == {"v3"}


def test_requests_are_distributed_over_localities_as_asked(proxy: Proxy) -> None:
    count = 800
    places = collections.Counter(proxy.call("shared").echo.backend for _ in range(count))

    # Six standard deviations, as above.
    tolerance = 6 * math.sqrt(count * 0.4 * 0.6)
    assert abs(places["v3"] - 0.6 * count) < tolerance
    assert min(places["v1"], places["v2"]) > 0


@pytest.mark.parametrize("service", ["loyal", "loyal-tcp"])
def test_clients_of_one_address_stay_with_one_endpoint_where_the_service_wants_it(
    proxy: Proxy, service: str
) -> None:
    def backend(source: str) -> str:
        if service == "loyal-tcp":
            return proxy.call_tcp(service, source).echo.backend
        return proxy.call_from(source, service).echo.backend

    places = {
        source: {backend(source) for _ in range(4)}
        for source in (f"127.0.1.{number}" for number in range(1, 21))
    }

    assert {len(seen) for seen in places.values()} == {1}
    assert len(set.union(*places.values())) > 1


def test_connections_are_tunnelled_to_where_the_rule_says(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.tcp_ports["tunnel"]), 20) as connection:
        assert connection.makefile().read() == "on the way to far.test:443"


def test_a_connection_that_is_refused_is_tried_elsewhere(proxy: Proxy) -> None:
    for _ in range(4):  # every other one begins at the endpoint that refuses
        assert proxy.call_tcp("halved").echo.backend == "v1"


def test_endpoint_is_told_who_the_client_is_by_the_proxy_protocol(proxy: Proxy) -> None:
    reply = proxy.call_tcp("announced", source="127.0.1.7")

    assert reply.echo.headers["announced"].startswith("PROXY TCP4 127.0.1.7 ")


def test_a_name_under_a_wildcard_is_looked_up_for_each_request(proxy: Proxy) -> None:
    _, port = proxy.backends.address("local")

    assert proxy.call(f"web.localhost:{port}").echo.backend == "local"
    assert proxy.call(f"api.localhost:{port}").echo.backend == "local"
    assert proxy.call("nowhere.localhost.invalid").status == 502


def test_a_name_in_a_tls_hello_is_looked_up_for_each_connection(proxy: Proxy) -> None:
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(received, sent, server_hostname="shop.localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with socket.create_connection(("127.0.0.1", proxy.tcp_ports["*"]), 20) as connection:
        connection.sendall(sent.read())
        assert connection.recv(5) == b"hello"


def test_retry_budget_limits_retries(proxy: Proxy) -> None:
    path = "/thrifty"

    assert proxy.call("thrifty", path, x_status="503").status == 503
    assert len(proxy.backends.requests(path)) == 1


def test_gateway_merges_virtual_services_and_puts_the_catch_all_last(proxy: Proxy) -> None:
    exact = proxy.call_gateway("gateway.test", "/productpage")
    other = proxy.call_gateway("gateway.test", "/anything")

    assert (exact.echo.backend, other.echo.backend) == ("v1", "v2")


def test_gateway_answers_404_to_hosts_that_it_does_not_serve(proxy: Proxy) -> None:
    assert proxy.call_gateway("elsewhere.test").status == 404


def test_gateway_sends_clear_text_requests_to_https(proxy: Proxy) -> None:
    reply = proxy.call_gateway("secure.test", "/a")

    assert (reply.status, reply.headers["location"]) == (301, "https://secure.test/a")


def test_envoy_finds_nothing_to_warn_about(proxy: Proxy) -> None:
    assert "deprecated" not in proxy.log.read_text().lower()
