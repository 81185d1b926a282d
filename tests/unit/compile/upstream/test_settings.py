"""What a policy says of an upstream's connections."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.api.base import decode_scalar
from meshd.api.networking import TrafficPolicy
from meshd.api.protocol import Protocol
from meshd.compile.plan import upstreams as plan
from meshd.compile.plan.upstreams import HttpVersion
from meshd.compile.upstream.settings import (
    balancing,
    ejection,
    http_of_upstream,
    keepalive,
    limits,
)
from meshd.compile.upstream.traffic_policy import Policy
from meshd.model.snapshot import MeshOptions

WARMUP = {"duration": "30s", "minimumPercent": 5, "aggression": 2}


def policy(**written: Any) -> Policy:
    found = msgspec.convert(written, TrafficPolicy, dec_hook=decode_scalar)
    return Policy(
        found.load_balancer,
        found.connection_pool,
        found.outlier_detection,
        found.tls,
        found.tunnel,
        found.proxy_protocol,
        found.retry_budget,
    )


def test_nothing_is_limited_unless_asked() -> None:
    assert limits(Policy(), MeshOptions()) == plan.Limits()


def test_each_member_of_the_pool_has_its_part_of_a_limit() -> None:
    asked = policy(
        connectionPool={"tcp": {"maxConnections": 5}, "http": {"http2MaxRequests": 4}},
        retryBudget={"percent": 50},
    )

    found = limits(asked, MeshOptions(proxies=2, upstream_connections=2))

    assert found == plan.Limits(2, requests=2, retry_budget=plan.RetryBudget(50, 3))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, plan.LeastRequest()),
        ({"simple": "RANDOM", "warmup": WARMUP}, plan.Random()),
        ({"simple": "ROUND_ROBIN"}, plan.RoundRobin()),
        ({"simple": "LEAST_CONN", "warmup": WARMUP}, plan.LeastRequest(plan.SlowStart(30, 2, 5))),
        ({"warmupDurationSecs": "9s"}, plan.LeastRequest(plan.SlowStart(9, 1, 10))),
        ({"consistentHash": {"useSourceIp": True}}, plan.RingHash(1024)),
        ({"consistentHash": {"ringHash": {"minimumRingSize": 7}}}, plan.RingHash(7)),
        ({"consistentHash": {"maglev": {"tableSize": 11}}}, plan.Maglev(11)),
        ({"consistentHash": {"ringHash": {"minimumRingSize": 8388608}}}, plan.RingHash(8192)),
        ({"consistentHash": {"minimumRingSize": 8388608}}, plan.RingHash(8192)),
        ({"consistentHash": {"maglev": {"tableSize": 4999999}}}, plan.Maglev(65537)),
    ],
)
def test_an_endpoint_is_chosen_as_the_rule_asks(
    written: dict[str, Any], expected: plan.Balancing
) -> None:
    assert balancing(policy(loadBalancer=written)) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, plan.Ejection()),
        ({"consecutiveErrors": 3}, plan.Ejection(errors=0, gateway_errors=3)),
        ({"consecutive5xxErrors": 0, "interval": "1s"}, plan.Ejection(errors=0, interval=1)),
        ({"consecutiveLocalOriginFailures": 4}, plan.Ejection()),
        (
            {"consecutiveLocalOriginFailures": 4, "splitExternalLocalOriginErrors": True},
            plan.Ejection(local_failures=4, separates_local=True),
        ),
        (
            {"baseEjectionTime": "9s", "maxEjectionPercent": 20, "minHealthPercent": 50},
            plan.Ejection(duration=9, most_percent=20, minimum_healthy_percent=50),
        ),
        ({"interval": "1ms"}, plan.Ejection(interval=0.1)),
    ],
)
def test_endpoints_are_ejected_as_the_rule_asks(
    written: dict[str, Any], expected: plan.Ejection
) -> None:
    assert ejection(policy(outlierDetection=written).outlier_detection) == expected


def test_keepalive_is_the_kernels_where_the_rule_does_not_say() -> None:
    written = {"tcp": {"tcpKeepalive": {"time": "7s"}}}

    assert keepalive(Policy()) is None
    assert keepalive(policy(connectionPool=written)) == plan.Keepalive(time=7)


@pytest.mark.parametrize(
    ("protocol", "written", "expected"),
    [
        (Protocol.TCP, {"idleTimeout": "5s"}, None),
        (Protocol.HTTP, {}, None),
        (Protocol.HTTP, {"maxConcurrentStreams": 5}, None),
        (Protocol.HTTP, {"idleTimeout": "5s"}, plan.Http(HttpVersion.HTTP1, idle_timeout=5)),
        (Protocol.HTTP, {"useClientProtocol": True}, plan.Http(HttpVersion.CLIENTS)),
        (Protocol.SNIFFED, {}, plan.Http(HttpVersion.CLIENTS)),
        (Protocol.GRPC, {"maxConcurrentStreams": 5}, plan.Http(HttpVersion.HTTP2, 5)),
        (
            Protocol.HTTP2,
            {"http2KeepAlive": {"interval": "3s", "timeout": "1s"}},
            plan.Http(HttpVersion.HTTP2, ping=plan.Ping(3, 1)),
        ),
    ],
)
def test_http_is_spoken_in_the_version_of_the_port_or_of_the_client(
    protocol: Protocol, written: dict[str, Any], expected: plan.Http | None
) -> None:
    found = http_of_upstream(protocol, policy(connectionPool={"http": written}), "a.example.com")

    assert found == expected
