"""Envoy takes the value of a header in whichever way its variables are written."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any, Final

import envoy

from meshd.api.header_formats import header_value

ENVOY = Path(envoy.__path__[0]) / "_bin" / "envoy"
_TYPE = "type.googleapis.com/envoy.extensions.filters"
NAMES: Final = """
REQ RESP TRAILER START_TIME EMIT_TIME DYNAMIC_METADATA CLUSTER_METADATA UPSTREAM_METADATA METADATA
FILTER_STATE UPSTREAM_FILTER_STATE PER_REQUEST_STATE ENVIRONMENT SECRET QUERY_PARAM PATH COALESCE
PROTOCOL HOSTNAME RESPONSE_CODE RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_CODE_DETAILS DURATION
REQUESTED_SERVER_NAME ROUTE_NAME VIRTUAL_CLUSTER_NAME STREAM_ID CONNECTION_ID TRACE_ID BYTES_SENT
COMMON_DURATION GRPC_STATUS UNIQUE_ID CUSTOM_FLAGS NO_SUCH
"""
SIDES: Final = """
REMOTE_ADDRESS REMOTE_ADDRESS_WITHOUT_PORT REMOTE_PORT LOCAL_ADDRESS LOCAL_PORT PEER_URI_SAN
PEER_DNS_SAN PEER_SUBJECT PEER_ISSUER PEER_CERT PEER_CERT_V_START LOCAL_URI_SAN LOCAL_SUBJECT
TLS_VERSION TLS_CIPHER TLS_SESSION_ID TRANSPORT_FAILURE_REASON PROTOCOL CLUSTER HOST
REQUEST_ATTEMPT_COUNT WIRE_BYTES_SENT HEADER_BYTES_RECEIVED HANDSHAKE_DURATION NO_SUCH
"""
WRITTEN: Final = """
NAME NAME() NAME(a) NAME(:a) NAME(a?b) NAME(a?b?c) NAME(a:b) NAME(a:b:c) NAME(:a?:b):5
NAME(a:PLAIN) NAME(a:TYPED):5 NAME(a:FIELD) NAME(:PLAIN) NAME(["a","b"]) NAME(["a"]) NAME([])
NAME(:) NAME(a,b) NAME(a;b) NAME(/) NAME({}) NAME:5 NAME(a):5 NAME(a):0 NAME(a):99999999999999999999
NAME(é) NAME(a):x NAME( NAME(%s.%3f) NAME(%Y-%m-%dT%H:%M:%S.%9fZ) NAME(%n) NAME(%)
NAME(%a%A%b%B%c%C%d%D%e%F%g%G%h%H%I%j%m%M%p%r%R%s%S%T%u%U%V%w%W%x%X%y%Y%z%Z)
"""


def _values() -> list[str]:
    sides = itertools.product(("UPSTREAM", "DOWNSTREAM"), SIDES.split())
    names = [*NAMES.split(), *map("_".join, sides)]
    ways = [*WRITTEN.split(), "NAME(a b)"]
    return [f"%{way.replace('NAME', name)}%" for name in names for way in ways]


def _listener(values: list[str]) -> dict[str, Any]:
    hosts = [
        {
            "name": str(number),
            "domains": [f"{number}.test"],
            "request_headers_to_add": [{"header": {"key": "x", "value": header_value(value)}}],
            "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
        }
        for number, value in enumerate(values)
    ]
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "formats",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"}}
        ],
    }
    chain = {"filters": [{"name": "manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": "formats", "address": address, "filter_chains": [chain]}


def test_no_value_has_all_routes_of_a_port_refused(tmp_path: Path) -> None:
    values = _values()
    assert sum(header_value(value) == value for value in values) > 100, "they do have variables"
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [_listener(values)]}}))

    checked = subprocess.run(
        [str(ENVOY), "--mode", "validate", "--config-path", str(config), "--log-level", "warning"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
