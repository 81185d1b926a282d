"""Prints how proxies ask an extension provider whether a request is allowed (``ext_authz``).

A filter for each provider is in every manager that judges, and is off unless a route turns it on;
there it asks only about requests that a rule of the policy fits, which the filter before it has
noted. The proxies ask by themselves, without the filter state of the connection, as with copies of
requests. So a question goes to an internal listener, with what the filter state says in headers;
behind it, it goes to the provider in the name of the workload that is called, from its namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from envoy.config.core.v3 import base_pb2, grpc_service_pb2, http_uri_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.type.matcher.v3 import metadata_pb2, string_pb2
from google.protobuf import any_pb2

from meshd.compile.envoy.copy_headers import PROVIDER, STATES
from meshd.compile.envoy.wellknown import (
    CALLER_STATE,
    HOST_STATE,
    NETNS_STATE,
    PEER_STATE,
    SECRET_STATE,
    SOURCE_STATE,
    WORKLOAD_STATE,
    literal,
    packed,
    seconds,
)
from meshd.compile.names import ASKING
from meshd.compile.plan.authorization import Asking, asked_by
from meshd.model.extension_provider import AuthorizationProvider

FIRST: Final = "istio_ext_authz_"
"""What Istio puts before names of metadata and statistics about rules that ask."""
EARLY_HEADERS: Final = "meshd.early_headers"
"""The filter that writes headers which a provider is shown."""
CALLER: Final = "x-meshd-caller"
"""The header in which a provider is told by HTTP who calls."""
_OWN: Final = "x-meshd-"
_NOTED: Final = "envoy.filters.http.rbac"
_FITTED: Final = f"{FIRST}shadow_effective_policy_id"
_Header = base_pb2.HeaderValue
_Auth = ext_authz_pb2.ExtAuthz
_Filter = http_connection_manager_pb2.HttpFilter


def _name(provider: AuthorizationProvider) -> str:
    return f"meshd.ext_authz.{provider.name}"


def filters(providers: Sequence[AuthorizationProvider]) -> Iterator[_Filter]:
    """Yield a filter for each provider, and before them one that writes headers; all are off."""
    if providers:
        config = packed(header_mutation_pb2.HeaderMutation())
        yield _Filter(name=EARLY_HEADERS, typed_config=config, disabled=True)
    for one in providers:
        yield _Filter(name=_name(one), typed_config=packed(_config(one)), disabled=True)


def per_route(asking: Asking) -> dict[str, any_pb2.Any]:
    """Return what routes say to the filter: in whose name to ask."""
    provider, settings = asking.provider, ext_authz_pb2.CheckSettings()
    if provider.speaks == "grpc":
        settings.grpc_service.CopyFrom(_grpc(provider, asking))
    else:
        settings.http_service.CopyFrom(_http(provider, asking))
    return {_name(provider): packed(ext_authz_pb2.ExtAuthzPerRoute(check_settings=settings))}


def _config(provider: AuthorizationProvider) -> ext_authz_pb2.ExtAuthz:
    fitted = string_pb2.StringMatcher(prefix=asked_by(provider.name))
    made = _Auth(
        transport_api_version="V3",
        failure_mode_allow=provider.fails_open,
        status_on_error={"code": provider.status_on_error},  # pyright: ignore[reportArgumentType]
        clear_route_cache=provider.clears_routes,
        filter_enabled_metadata=metadata_pb2.MetadataMatcher(
            filter=_NOTED, path=[{"key": _FITTED}], value={"string_match": fitted}
        ),
        # What says in whose name is asked is the proxy's to say.
        disallowed_headers=string_pb2.ListStringMatcher(
            patterns=[string_pb2.StringMatcher(prefix=_OWN, ignore_case=True)]
        ),
    )
    if provider.body is not None:
        made.with_request_body.max_request_bytes = provider.body.most
        made.with_request_body.allow_partial_message = provider.body.partly
        made.with_request_body.pack_as_bytes = provider.body.as_bytes
    if provider.speaks == "grpc":
        made.grpc_service.CopyFrom(_grpc(provider))
    else:
        made.http_service.CopyFrom(_http(provider))
        if provider.shown:
            made.allowed_headers.CopyFrom(_listed(provider.shown))
    return made


def _grpc(
    provider: AuthorizationProvider, asking: Asking | None = None
) -> grpc_service_pb2.GrpcService:
    return grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(
            cluster_name=ASKING, authority=provider.host
        ),
        timeout=seconds(provider.timeout),
        initial_metadata=_headers(provider, asking),
    )


def _http(
    provider: AuthorizationProvider, asking: Asking | None = None
) -> ext_authz_pb2.HttpService:
    uri = http_uri_pb2.HttpUri(
        uri=f"http://{provider.host}", cluster=ASKING, timeout=seconds(provider.timeout)
    )
    made = ext_authz_pb2.HttpService(server_uri=uri, path_prefix=provider.path_prefix)
    added = (base_pb2.HeaderValue(key=name, value=literal(text)) for name, text in provider.added)
    # The provider's own proxy writes in x-forwarded-client-cert who asks.
    caller = _Header(key=CALLER, value=f"%FILTER_STATE({PEER_STATE}:PLAIN)%")
    made.authorization_request.headers_to_add.extend((*added, caller, *_headers(provider, asking)))
    answer = made.authorization_response
    for field, names in (
        (answer.allowed_upstream_headers, provider.to_application),
        (answer.allowed_client_headers_on_success, provider.to_client),
        (answer.allowed_client_headers, provider.to_refused),
    ):
        if names:
            field.CopyFrom(_listed(names))
    return made


def _headers(provider: AuthorizationProvider, asking: Asking | None) -> Iterator[_Header]:
    """Yield what says whom to ask, and in whose name."""
    yield _Header(key=PROVIDER, value=literal(provider.name))
    for state in (NETNS_STATE, HOST_STATE, WORKLOAD_STATE):
        yield _Header(key=STATES[state], value=f"%FILTER_STATE({state}:PLAIN)%")
    if asking is not None:
        yield _Header(key=STATES[SECRET_STATE], value=literal(asking.identity.client_secret))
        yield _Header(key=STATES[CALLER_STATE], value=literal(asking.identity.uri))
        if asking.address:
            yield _Header(key=STATES[SOURCE_STATE], value=literal(asking.address))


def _listed(names: Iterable[str]) -> string_pb2.ListStringMatcher:
    return string_pb2.ListStringMatcher(patterns=map(_matcher, names))


def _matcher(name: str) -> string_pb2.StringMatcher:
    if name.endswith("*"):
        return string_pb2.StringMatcher(prefix=name[:-1], ignore_case=True)
    if name.startswith("*"):
        return string_pb2.StringMatcher(suffix=name[1:], ignore_case=True)
    return string_pb2.StringMatcher(exact=name, ignore_case=True)
