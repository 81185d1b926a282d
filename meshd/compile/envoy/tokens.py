"""Prints which tokens of end users are believed.

A filter runs those filters of which a route has a list: it costs nothing where a route has none,
and a change of keys or rules closes no connection. In such a list, headers that nobody but the
proxy may write are removed first: the filter of tokens does so only for the rules that it tries.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.type.matcher.v3 import metadata_pb2, regex_pb2, string_pb2, value_pb2
from google.protobuf import any_pb2

from meshd.compile.envoy.wellknown import packed
from meshd.compile.plan.authorization import Claim, RequestPrincipal, Text
from meshd.compile.plan.tokens import TokenRule
from meshd.protos import http_filter_chain_pb2

_Provider = config_pb2.JwtProvider
_Requirement = config_pb2.JwtRequirement
_Principal = rbac_pb2.Principal
_Extension = extension_pb2.TypedExtensionConfig
TOKENS: Final = "meshd.tokens"
"""The filter's name, under which routes have their lists."""
METADATA: Final = "envoy.filters.http.jwt_authn"
"""Where the filter of tokens leaves what they say."""
_MOST_PARTS: Final = 5
"""Of a name, of which all forms are removed."""
PAYLOAD: Final = "payload"
REFUSED: Final = ("refused", "code")
"""Where it leaves why a token is refused."""


def token_filter() -> http_connection_manager_pb2.HttpFilter:
    """Return the filter, which does nothing for requests of which routes say nothing."""
    config = http_filter_chain_pb2.FilterChainConfig()
    return http_connection_manager_pb2.HttpFilter(name=TOKENS, typed_config=packed(config))


def per_route(rules: Sequence[TokenRule], *, reroutes: bool = False) -> any_pb2.Any:
    """Return what routes say to the filter; ``reroutes``: a token may lead to another route."""
    filters = [*_cleaning(rules), _reading(rules, reroutes=reroutes)]
    chain = http_filter_chain_pb2.FilterChain(filters=filters)
    return packed(http_filter_chain_pb2.FilterChainConfigPerRoute(filter_chain=chain))


def _cleaning(rules: Sequence[TokenRule]) -> Iterator[_Extension]:
    names = sorted({one for rule in rules for one in _alike(rule.written_headers)})
    if names:
        mutation = mutation_rules_pb2.HeaderMutation
        config = header_mutation_pb2.HeaderMutation(
            mutations=header_mutation_pb2.Mutations(
                request_mutations=[mutation(remove=name) for name in names]
            )
        )
        name = "envoy.filters.http.header_mutation"
        yield _Extension(name=name, typed_config=packed(config))


def _alike(names: Iterable[str]) -> Iterator[str]:
    """Yield names, and those that applications behind CGI or WSGI do not tell from them."""
    for name in names:
        parts = re.split("[-_]", name)
        several = len(parts) <= _MOST_PARTS
        signs = itertools.product("-_", repeat=len(parts) - 1) if several else ()
        yield name
        yield name.replace("-", "_")
        for each in signs:
            yield "".join(map("".join, itertools.zip_longest(parts, each, fillvalue="")))


def _reading(rules: Sequence[TokenRule], *, reroutes: bool) -> _Extension:
    providers = {
        f"rule-{index}": _provider(rule, reroutes=reroutes) for index, rule in enumerate(rules)
    }
    config = config_pb2.JwtAuthentication(
        providers=providers,
        rules=[
            config_pb2.RequirementRule(
                match=route_components_pb2.RouteMatch(prefix="/"),
                requires=_required(tuple(providers)),
            )
        ],
        # Browsers send no token with them.
        bypass_cors_preflight=True,
    )
    return _Extension(name=METADATA, typed_config=packed(config))


def _required(names: Sequence[str]) -> config_pb2.JwtRequirement:
    """Return what is required: no token, or a valid one.

    Each token has to be valid to a rule of its place; where rules have a place in common, to one of
    them.
    """
    each = [_any([_Requirement(provider_name=name), _missing()]) for name in names]
    if len(each) == 1:
        return each[0]
    every = config_pb2.JwtRequirementAndList(requirements=each)
    alone = [_Requirement(provider_name=name) for name in names]
    return _any([*alone, _Requirement(requires_all=every)])


def _any(found: Sequence[config_pb2.JwtRequirement]) -> config_pb2.JwtRequirement:
    return _Requirement(requires_any=config_pb2.JwtRequirementOrList(requirements=found))


def _missing() -> config_pb2.JwtRequirement:
    made = _Requirement()
    made.allow_missing.SetInParent()
    return made


def _provider(rule: TokenRule, *, reroutes: bool) -> config_pb2.JwtProvider:
    return _Provider(
        issuer=rule.issuer,
        audiences=rule.audiences,
        local_jwks=base_pb2.DataSource(inline_string=rule.keys),
        forward=rule.keeps_token,
        from_headers=[
            config_pb2.JwtHeader(name=one.name, value_prefix=one.prefix) for one in rule.headers
        ],
        from_params=rule.parameters,
        from_cookies=rule.cookies,
        forward_payload_header=rule.payload_header,
        claim_to_headers=[
            config_pb2.JwtClaimToHeader(header_name=header, claim_name=claim)
            for header, claim in rule.claim_headers
        ],
        payload_in_metadata=PAYLOAD,
        failed_status_in_metadata=REFUSED[0],
        normalize_payload_in_metadata=_Provider.NormalizePayload(
            space_delimited_claims=rule.split_claims
        ),
        clear_route_cache=reroutes,
    )


# ---- what tokens say


def claims(test: Claim | RequestPrincipal) -> rbac_pb2.Principal:
    """Return a test of what a request's token says."""
    if isinstance(test, Claim):
        return _said(test.names, _text_or_list(test.text))
    parts = (("iss", test.issuer), ("sub", test.subject))
    both = [_said((name,), _text(text)) for name, text in parts]
    return _Principal(and_ids=_Principal.Set(ids=both))


def _said(names: Sequence[str], value: value_pb2.ValueMatcher) -> rbac_pb2.Principal:
    return _Principal(
        sourced_metadata=rbac_pb2.SourcedMetadata(metadata_matcher=said(names, value))
    )


def said(names: Sequence[str], value: value_pb2.ValueMatcher) -> metadata_pb2.MetadataMatcher:
    """Return a test of a claim."""
    segment = metadata_pb2.MetadataMatcher.PathSegment
    path = [segment(key=name) for name in (PAYLOAD, *names)]
    return metadata_pb2.MetadataMatcher(filter=METADATA, path=path, value=value)


def _text_or_list(text: Text) -> value_pb2.ValueMatcher:
    return text_or_list(_string(text))


def text_or_list(text: string_pb2.StringMatcher) -> value_pb2.ValueMatcher:
    """Return a test of a text, or of any text of a list."""
    one = value_pb2.ValueMatcher(string_match=text)
    among = value_pb2.ValueMatcher(list_match=value_pb2.ListMatcher(one_of=one))
    either = value_pb2.OrMatcher(value_matchers=[one, among])
    return value_pb2.ValueMatcher(or_match=either)


def _text(text: Text) -> value_pb2.ValueMatcher:
    return value_pb2.ValueMatcher(string_match=_string(text))


def _string(text: Text) -> string_pb2.StringMatcher:
    match text.form:
        case "exact":
            return string_pb2.StringMatcher(exact=text.value)
        case "prefix":
            return string_pb2.StringMatcher(prefix=text.value)
        case "suffix":
            return string_pb2.StringMatcher(suffix=text.value)
        case _:  # a claim may have several lines
            regex = text.value or "(?s).+"
            return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex))
