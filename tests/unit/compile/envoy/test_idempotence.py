"""Which requests the router is told to repeat when their connection ends."""

from __future__ import annotations

import re

import pytest
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.type.matcher.v3 import http_inputs_pb2

from meshd.compile.envoy.idempotence import idempotence_filter


def skipped(method: str) -> bool:
    """Tell whether requests with a method skip the filter."""
    (only,) = idempotence_filter().xds_matcher.matcher_list.matchers
    asked = only.predicate.not_matcher.single_predicate
    header = http_inputs_pb2.HttpRequestHeaderMatchInput()
    assert asked.input.typed_config.Unpack(header)
    assert header.header_name == ":method"
    assert only.on_match.action.typed_config.type_url.endswith(".SkipFilter")
    return re.fullmatch(asked.value_match.safe_regex.regex, method) is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_the_condition_is_for_idempotent_methods(method: str) -> None:
    assert not skipped(method)


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "PUTS", "get", ""])
def test_other_methods_skip_the_filter(method: str) -> None:
    assert skipped(method)


def test_nothing_is_computed_for_a_request() -> None:
    mutation = header_mutation_pb2.HeaderMutation()
    assert idempotence_filter().extension_config.typed_config.Unpack(mutation)
    (change,) = mutation.mutations.request_mutations
    assert change.append.header.value == "reset"
