"""Extension providers as meshd.yaml names them: under the names of Istio's ``meshConfig``, so that
what is written there can be copied.

https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-ExtensionProvider
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from meshd.api.base import Duration
from meshd.api.values import PortNumber
from meshd.model.extension_provider import AuthorizationProvider, Body

_MOST_BODY: Final = 1024 * 1024
"""Bytes: proxies hold them for each request that is asked about."""
_LONGEST: Final = 3600.0
_NAME: Final = re.compile(r"[\w.-]{1,253}", re.ASCII)
_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_HEADER: Final = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.6.2."""
STATUSES: Final = frozenset(
    {*range(400, 418), 421, 422, 423, 424, 426, 428, 429, 431, *range(500, 509), 510, 511}
)
"""Those that Envoy knows (``envoy.type.v3.StatusCode``): it refuses all others."""
_OWN_HEADERS: Final = "x-meshd-"


class _Written(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    pass


class WrittenBody(_Written, frozen=True):
    max_request_bytes: int
    allow_partial_message: bool = False
    pack_as_bytes: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_request_bytes <= _MOST_BODY:
            raise ValueError(f"maxRequestBytes is not 1 to {_MOST_BODY}")


class WrittenGrpc(_Written, frozen=True):
    service: str
    """``HOST`` or ``NAMESPACE/HOST``."""
    port: PortNumber
    timeout: Duration = Duration(600)
    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: str = "403"
    include_request_body_in_check: WrittenBody | None = None

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise ValueError(f'service "{self.service}" is not the host of a service of the mesh')
        if not 0.001 <= self.timeout <= _LONGEST:
            raise ValueError(f"timeout is not 1ms to {_LONGEST:g}s")
        if self.status_on_error not in map(str, STATUSES):
            raise ValueError(f'statusOnError "{self.status_on_error}" is no status that refuses')

    @property
    def host(self) -> str:
        return self.service.rpartition("/")[2].lower().rstrip(".")


class WrittenHttp(WrittenGrpc, frozen=True):
    path_prefix: str = ""
    include_request_headers_in_check: tuple[str, ...] = ()
    include_additional_headers_in_check: dict[str, str] = {}
    headers_to_upstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_deny: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        WrittenGrpc.__post_init__(self)
        if self.path_prefix and not self.path_prefix.startswith("/"):
            raise ValueError(f'pathPrefix "{self.path_prefix}" does not begin with /')
        for name in self._names:
            if not _HEADER.fullmatch(name.removesuffix("*").removeprefix("*")):
                raise ValueError(f'"{name}" is no header, and no part of one with a * at an end')
            if name.lower().startswith(_OWN_HEADERS):
                raise ValueError(f'"{name}" is no header that can be named here')
        for name, value in self.include_additional_headers_in_check.items():
            if "*" in name or not (value.isascii() and value.isprintable() and value.strip()):
                raise ValueError(f'"{name}: {value}" is no header')

    @property
    def _names(self) -> tuple[str, ...]:
        return (
            *self.include_request_headers_in_check,
            *self.include_additional_headers_in_check,
            *self.headers_to_upstream_on_allow,
            *self.headers_to_downstream_on_allow,
            *self.headers_to_downstream_on_deny,
        )


class ExtensionProvider(_Written, frozen=True):
    name: str
    envoy_ext_authz_grpc: WrittenGrpc | None = None
    envoy_ext_authz_http: WrittenHttp | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f'name "{self.name}" is not letters, digits, ".", "_" and "-"')
        if (self.envoy_ext_authz_grpc is None) is (self.envoy_ext_authz_http is None):
            raise ValueError(f"{self.name}: give either envoyExtAuthzGrpc or envoyExtAuthzHttp")

    @property
    def provider(self) -> AuthorizationProvider:
        """Return the provider as proxies ask it."""
        http = self.envoy_ext_authz_http
        found = http or self.envoy_ext_authz_grpc
        assert found is not None  # noqa: S101 - one of them is given
        body = found.include_request_body_in_check
        made = AuthorizationProvider(
            name=self.name,
            host=found.host,
            port=found.port,
            speaks="http" if http else "grpc",
            timeout=found.timeout,
            fails_open=found.fail_open,
            status_on_error=int(found.status_on_error),
            clears_routes=found.clear_route_cache,
            body=body
            and Body(body.max_request_bytes, body.allow_partial_message, body.pack_as_bytes),
        )
        if http is None:
            return made
        return msgspec.structs.replace(
            made,
            path_prefix=http.path_prefix,
            shown=http.include_request_headers_in_check,
            added=tuple(sorted(http.include_additional_headers_in_check.items())),
            to_application=http.headers_to_upstream_on_allow,
            to_client=http.headers_to_downstream_on_allow,
            to_refused=http.headers_to_downstream_on_deny,
        )


def check_names(providers: tuple[ExtensionProvider, ...]) -> None:
    """Raises ValueError if two have one name."""
    names = [one.name for one in providers]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f'extension_providers: two are called "{twice}"')
