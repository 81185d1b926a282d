"""SPIFFE names and identities are one to one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import InvalidInputError
from meshd.ca.names import checked, parse
from meshd.model.workload import Identity

_segments = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True).filter(
    lambda text: text not in {".", ".."}
)
_domains = st.from_regex(r"[a-z0-9._-]{1,60}", fullmatch=True)


@given(st.builds(Identity, _domains, _segments, _segments))
def test_a_name_parses_to_the_identity_that_has_it(identity: Identity) -> None:
    assert parse(identity.uri) == identity


@given(st.builds(Identity, st.text(), st.text(), st.text()))
def test_an_identity_either_has_a_name_of_its_own_or_is_refused(identity: Identity) -> None:
    try:
        checked(identity)
    except InvalidInputError as error:
        assert "\n" not in str(error)
    else:
        assert parse(identity.uri) == identity


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("https://cluster.local/ns/a/sa/b", "not of the form spiffe://"),
        ("spiffe://cluster.local/ns/a", "not of the form spiffe://"),
        ("spiffe://cluster.local/ns/a/sa/b/c", "not of the form spiffe://"),
        ("spiffe://cluster.local/sa/a/ns/b", "not of the form spiffe://"),
        ("spiffe://Cluster.Local/ns/a/sa/b", "trust domain"),
        ("spiffe:///ns/a/sa/b", "trust domain"),
        ("spiffe://cluster.local:80/ns/a/sa/b", "trust domain"),
        ("spiffe://cluster.local/ns//sa/b", "namespace"),
        ("spiffe://cluster.local/ns/../sa/b", "namespace"),
        ("spiffe://cluster.local/ns/a/sa/b?c", "service account"),
        ("spiffe://cluster.local/ns/a/sa/b\n", "service account"),
        ("spiffe://cluster.local/ns/a/sa/" + "b" * 2048, "2048"),
    ],
)
def test_an_invalid_spiffe_uri_is_refused_with_the_part_that_is_wrong(
    uri: str, reason: str
) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        parse(uri)
