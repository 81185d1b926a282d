"""proxy-config: Envoy's own JSON for scripts, a table for people."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshd import wire
from meshd.base.json_values import JsonObject

LISTENER: JsonObject = {
    "name": "default.web|outbound",
    "active_state": {
        "version_info": "1",
        "listener": {
            "name": "default.web|outbound",
            "address": {
                "socket_address": {
                    "address": "0.0.0.0",
                    "port_value": 15001,
                    "network_namespace_filepath": "/run/meshd/netns/default.web",
                }
            },
            "additional_addresses": [
                {"address": {"socket_address": {"address": "::", "port_value": 15001}}}
            ],
            "filter_chains": [{}, {}],
            "default_filter_chain": {},
        },
    },
}
CLUSTER: JsonObject = {
    "cluster": {"name": "outbound|9080|v1|reviews.default.svc.cluster.local", "type": "EDS"}
}
ROUTES: JsonObject = {
    "route_config": {
        "name": "9080",
        "virtual_hosts": [
            {
                "name": "reviews",
                "domains": ["reviews", "reviews:9080"],
                "routes": [
                    {"match": {"prefix": "/"}, "route": {"cluster": "outbound|9080||reviews"}},
                    {
                        "match": {"path": "/login", "headers": [{"name": "end-user"}]},
                        "route": {
                            "weighted_clusters": {
                                "clusters": [
                                    {"name": "a", "weight": 90},
                                    {"name": "b", "weight": 10},
                                ]
                            }
                        },
                    },
                    {"match": {"safe_regex": {"regex": "/x.*"}}, "redirect": {}},
                ],
            }
        ],
    }
}
DUMPED_ENDPOINTS: JsonObject = {
    "endpoint_config": {
        "cluster_name": "c",
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {
                            "address": {
                                "socket_address": {"address": "fd00:198::1", "port_value": 1}
                            }
                        },
                        "health_status": "HEALTHY",
                        "load_balancing_weight": 1,
                    }
                ]
            }
        ],
    }
}
LIVE_ENDPOINTS: JsonObject = {
    "name": "c",
    "host_statuses": [
        {
            "address": {"socket_address": {"address": "198.18.0.7", "port_value": 9080}},
            "health_status": {"failed_outlier_check": True, "eds_health_status": "HEALTHY"},
            "weight": 1,
        }
    ],
}
INSIDE: JsonObject = {
    "name": "c",
    "host_statuses": [
        {
            "address": {
                "envoy_internal_address": {
                    "server_listener_name": "local",
                    "endpoint_id": "198.18.0.7:9080;default.web;spiffe://a/ns/b/sa/c",
                }
            },
            "weight": 1,
        }
    ],
}
SECRET: JsonObject = {
    "name": "ROOTCA",
    "last_updated": "2030-01-01T00:00:00Z",
    "secret": {"name": "ROOTCA", "validation_context": {}},
}


@pytest.mark.parametrize(
    ("section", "entry", "cells"),
    [
        (
            "listeners",
            LISTENER,
            [
                ["default.web|outbound", "0.0.0.0", "15001", "/run/meshd/netns/default.web", "3"],
                ["default.web|outbound", "::", "15001", "-", "3"],
            ],
        ),
        (
            "clusters",
            CLUSTER,
            [["reviews.default.svc.cluster.local", "9080", "v1", "outbound", "EDS"]],
        ),
        (
            "routes",
            ROUTES,
            [
                ["9080", "reviews", "reviews,reviews:9080", "/*", "outbound|9080||reviews"],
                ["9080", "reviews", "reviews,reviews:9080", "/login with end-user", "a=90,b=10"],
                ["9080", "reviews", "reviews,reviews:9080", "~/x.*", "redirect"],
            ],
        ),
        ("endpoints", DUMPED_ENDPOINTS, [["[fd00:198::1]:1", "HEALTHY", "1", "c"]]),
        ("endpoints", LIVE_ENDPOINTS, [["198.18.0.7:9080", "failed_outlier_check", "1", "c"]]),
        ("endpoints", INSIDE, [["local/198.18.0.7:9080", "HEALTHY", "1", "c"]]),
        ("secrets", SECRET, [["ROOTCA", "trust bundle", "2030-01-01T00:00:00Z"]]),
    ],
)
def test_a_section_as_a_table(
    daemon: Any, meshctl: Any, section: str, entry: dict[str, Any], cells: list[list[str]]
) -> None:
    daemon.says(wire.Objects((entry,)))
    result = meshctl("proxy-config", section)
    assert result.code == 0
    rows = [[cell for cell in line.split("   ") if cell] for line in result.lines[1:]]
    assert [[cell.strip() for cell in row] for row in rows] == cells


def test_json_is_what_envoy_said(daemon: Any, meshctl: Any) -> None:
    daemon.says(wire.Objects((LISTENER, CLUSTER)))
    assert json.loads(meshctl("pc", "listeners", "-o", "json").out) == [LISTENER, CLUSTER]


@pytest.mark.parametrize("word", ["endpoints", "endpoint", "ep", "Endpoints"])
def test_istioctls_short_names(daemon: Any, meshctl: Any, word: str) -> None:
    daemon.says(wire.Objects(()))
    result = meshctl("pc", word, "reviews-v1", "-n", "shop", "--proxy", "proxy-1")
    assert result.code == 0
    assert daemon.asked == [wire.ProxyConfig("endpoints", "reviews-v1", "shop", "proxy-1")]
    assert result.err == "the proxy has no endpoints\n"


def test_output_of_names_has_a_line_for_each_resource(daemon: Any, meshctl: Any) -> None:
    daemon.says(wire.Objects((DUMPED_ENDPOINTS, LIVE_ENDPOINTS)))
    assert meshctl("pc", "ep", "-o", "name").lines == ["c", "c"]
