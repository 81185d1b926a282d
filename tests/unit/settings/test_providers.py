"""Extension providers are written as in Istio's meshConfig."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from envoy.type.v3 import http_status_pb2

from meshd.base.errors import MeshdError
from meshd.model.extension_provider import AuthorizationProvider, Body
from meshd.settings import load
from meshd.settings.providers import STATUSES


def providers(tmp_path: Path, text: str) -> tuple[AuthorizationProvider, ...]:
    file = tmp_path / "meshd.yaml"
    file.write_text(f"mesh: {{extension_providers: [{text}]}}")
    return load(file).mesh_options().providers


def test_a_provider_over_http_has_all_fields_of_istios(tmp_path: Path) -> None:
    text = """{name: web, envoyExtAuthzHttp: {
        service: foo/Ext-Authz.foo.svc.cluster.local, port: 8000, timeout: 2s, pathPrefix: /check,
        failOpen: true, statusOnError: "503", clearRouteCache: true,
        includeRequestHeadersInCheck: [x-ext-authz, x-u*, "*-id"],
        includeAdditionalHeadersInCheck: {x-from: mesh},
        includeRequestBodyInCheck: {maxRequestBytes: 10, allowPartialMessage: true,
                                    packAsBytes: true},
        headersToUpstreamOnAllow: [a], headersToDownstreamOnAllow: [b],
        headersToDownstreamOnDeny: [c]}}"""
    assert providers(tmp_path, text) == (
        AuthorizationProvider(
            name="web",
            host="ext-authz.foo.svc.cluster.local",
            port=8000,
            speaks="http",
            timeout=2.0,
            fails_open=True,
            status_on_error=503,
            clears_routes=True,
            body=Body(10, partly=True, as_bytes=True),
            path_prefix="/check",
            shown=("x-ext-authz", "x-u*", "*-id"),
            added=(("x-from", "mesh"),),
            to_application=("a",),
            to_client=("b",),
            to_refused=("c",),
        ),
    )


def test_a_provider_over_grpc_has_istios_defaults(tmp_path: Path) -> None:
    text = "{name: x, envoyExtAuthzGrpc: {service: a.test, port: 9000}}"
    assert providers(tmp_path, text) == (
        AuthorizationProvider(name="x", host="a.test", port=9000, speaks="grpc"),
    )


def test_statuses_are_those_that_envoy_knows(tmp_path: Path) -> None:
    known = {value for value in http_status_pb2.StatusCode.values() if value >= 400}
    assert known == STATUSES


GRPC = "{name: NAME, envoyExtAuthzGrpc: {service: a.test, port: 9000, MORE}}"
HTTP = "{name: x, envoyExtAuthzHttp: {service: a.test, port: 9000, MORE}}"
WRONG = {
    "{name: x}": "give either envoyExtAuthzGrpc or envoyExtAuthzHttp",
    GRPC.replace("NAME", "''").replace(", MORE", ""): 'name "" is not',
    GRPC.replace("MORE", "pathPrefix: /x"): "pathPrefix",
    GRPC.replace("a.test", "foo/").replace(", MORE", ""): 'service "foo/" is not the host',
    GRPC.replace("MORE", "timeout: 0s"): "timeout is not 1ms to 3600s",
    GRPC.replace("MORE", "statusOnError: '200'"): "is no status that refuses",
    GRPC.replace("MORE", "statusOnError: '418'"): "is no status that refuses",
    GRPC.replace("MORE", "includeRequestBodyInCheck: {maxRequestBytes: 0}"): "maxRequestBytes",
    HTTP.replace("MORE", "pathPrefix: check"): "does not begin with /",
    HTTP.replace("MORE", "includeRequestHeadersInCheck: ['*']"): "is no header",
    HTTP.replace("MORE", "includeRequestHeadersInCheck: ['a b']"): "is no header",
    HTTP.replace("MORE", 'includeAdditionalHeadersInCheck: {a: "b\\nc"}'): "is no header",
    HTTP.replace("MORE", "includeRequestHeadersInCheck: [x-meshd-a]"): "can be named here",
    HTTP.replace("MORE", "includeAdditionalHeadersInCheck: {X-Meshd-Copy-To: a}"): "can be named",
    f"{GRPC}, {GRPC}".replace(", MORE", ""): 'two are called "NAME"',
}


@pytest.mark.parametrize(("text", "why"), WRONG.items())
def test_what_proxies_could_not_do_is_an_error(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(MeshdError, match=re.escape(why)):
        providers(tmp_path, text)
