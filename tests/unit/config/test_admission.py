"""What a server sends, and what is read from disk, is judged as what is applied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.config.admission import admit


def route(**spec: Any) -> dict[str, Any]:
    to = {"route": [{"destination": {"host": "reviews"}}]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], "http": [to | spec]},
    }


def test_a_valid_object_is_admitted() -> None:
    assert admit(route(timeout="2s")).metadata.name == "reviews"


@pytest.mark.parametrize(
    "value",
    [
        route(timeout="9999999999999999h"),
        route(timeout="0.0000001s"),
        route(timeout="1" * 5000 + "s"),
        route(match=[{"port": 99999999999}]),
        route(match=[{"uri": {"regex": "("}}]),
        route(retries={"attempts": 2**63}),
        route() | {"metadata": {"name": "a\x1b", "namespace": "shop"}},
        route() | {"metadata": {"name": "a", "namespace": "../etc"}},
        route() | {"metadata": {"name": "a"}},
        route() | {"kind": "Nonsense"},
        [],
        None,
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a.b", "namespace": "n"}},
    ],
)
def test_objects_that_apply_refuses_are_refused_from_elsewhere_too(value: Any) -> None:
    with pytest.raises(InvalidInputError):
        admit(value)


_LONG = [f"{number}{unit}" for number in ("9" * 16, "9" * 400) for unit in ("h", "m", "s")]
_POOL = {
    "tcp": ("connectTimeout", "idleTimeout", "maxConnectionDuration"),
    "http": ("idleTimeout",),
}


def rule(policy: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"host": "reviews", "trafficPolicy": policy},
    }


def pool(part: str, name: str, text: str) -> dict[str, Any]:
    return rule({"connectionPool": {part: {name: text}}})


def keepalive(field: str, text: str) -> dict[str, Any]:
    return rule({"connectionPool": {"tcp": {"tcpKeepalive": {field: text}}}})


_WITH_A_DURATION: list[Callable[[str], dict[str, Any]]] = [
    lambda text: route(timeout=text),
    lambda text: route(retries={"attempts": 1, "perTryTimeout": text}),
    lambda text: route(retries={"attempts": 1, "backoff": text}),
    lambda text: route(fault={"delay": {"fixedDelay": text}}),
    lambda text: route(corsPolicy={"maxAge": text}),
    *(partial(pool, part, name) for part, names in _POOL.items() for name in names),
    partial(keepalive, "time"),
    partial(keepalive, "interval"),
    lambda text: rule({"outlierDetection": {"interval": text}}),
    lambda text: rule({"outlierDetection": {"baseEjectionTime": text}}),
    lambda text: rule({"loadBalancer": {"warmup": {"duration": text}}}),
    lambda text: rule({"loadBalancer": {"warmupDurationSecs": text}}),
    lambda text: rule(
        {"loadBalancer": {"consistentHash": {"httpCookie": {"name": "a", "ttl": text}}}}
    ),
]


@pytest.mark.parametrize("text", _LONG)
@pytest.mark.parametrize("make", _WITH_A_DURATION)
def test_a_duration_that_no_timer_can_hold_is_refused(
    make: Callable[[str], dict[str, Any]], text: str
) -> None:
    with pytest.raises(InvalidInputError):
        admit(make(text))


@pytest.mark.parametrize("field", ["time", "interval"])
def test_a_keepalive_that_the_kernel_refuses_is_refused(field: str) -> None:
    assert admit(keepalive(field, "32767s"))
    with pytest.raises(InvalidInputError):
        admit(keepalive(field, "32768s"))
    with pytest.raises(InvalidInputError):
        admit(keepalive(field, "4294967296s"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["hosts", "http", "route", "destination", "host", "match", "timeout"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_whatever_a_spec_says_it_is_admitted_or_refused(spec: Any) -> None:
    with contextlib.suppress(InvalidInputError):
        admit(route() | {"spec": spec})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("creationTimestamp", "yesterday"),
        ("creationTimestamp", "2024-02-30T00:00:00Z"),
        ("creationTimestamp", "0001-01-01T00:00:00+14:00"),
        ("creationTimestamp", "2024-02-29"),
        ("annotations", {"not a name": ""}),
        ("annotations", {"large": "x" * 300_000}),
        ("labels", {"app": "a b"}),
    ],
)
def test_metadata_that_kubernetes_would_not_take_is_refused(field: str, value: Any) -> None:
    metadata = {"name": "shop", field: value}
    with pytest.raises(InvalidInputError, match=field):
        admit({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


@pytest.mark.parametrize("time", ["2024-02-29T12:00:00Z", "2024-02-29T12:00:00.5+02:00"])
def test_a_time_is_taken_as_kubernetes_writes_it(time: str) -> None:
    metadata: JsonObject = {"name": "shop", "creationTimestamp": time}
    assert admit({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


@pytest.mark.parametrize(
    "template",
    [
        {"serviceAccount": "*.test"},
        {"ports": {"a/b": 80}},
        {"ports": {"http": 0}},
        {"locality": "spiffe://"},
        {"labels": {"a b": ""}},
    ],
)
def test_what_members_of_a_group_are_given_is_what_a_workload_may_have(template: Any) -> None:
    group: JsonObject = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": "vms", "namespace": "shop"},
        "spec": {"template": template},
    }
    with pytest.raises(InvalidInputError, match="WorkloadGroup shop/vms"):
        admit(group)
