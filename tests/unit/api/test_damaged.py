"""A part that cannot be read does not hide what is wrong with the rest of its object."""

from __future__ import annotations

import pytest

from meshd.config.requests import validate_sources

HEAD = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
"""


def problems(spec: str) -> list[str]:
    """``field: message`` of each error, in the order of the lines."""
    found = validate_sources((("f.yaml", HEAD + spec),), "shop")
    return [f"{one.field}: {one.message}" for one in found if one.severity == "error"]


def test_a_wrong_type_does_not_hide_a_wrong_value_beside_it() -> None:
    found = problems("""
  hosts: [web]
  http:
  - timeout: [1]
    route: [{destination: {host: web}, weight: -1}]
""")
    assert len(found) == 2
    assert found[0].startswith("spec.http[0].timeout: ")
    assert found[1].startswith("spec.http[0].route[0].weight: ")


def test_an_unknown_field_does_not_hide_a_wrong_value_elsewhere() -> None:
    found = problems("""
  hosts: [web]
  http:
  - route: [{destination: {hoost: web, host: web}}]
  - match: [{uri: {exact: a, prefix: b}}]
    route: [{destination: {host: web}, weight: -1}]
""")
    assert found[0].startswith("spec.http[0].route[0].destination.hoost: unknown field")
    assert any(one.startswith("spec.http[1].route[0].weight: ") for one in found[1:])


@pytest.mark.parametrize(
    "spec",
    [
        "  hosts: 5\n  http: [{route: [{destination: {host: web}}]}]",
        "  hosts: [web]\n  http: 5",
        "  hosts: [web]\n  http: [5]",
        "  hosts: [web]\n  http: [{route: 5}]",
        "  hosts: [web]\n  http: [{route: [{destination: 5}]}]",
        "  hosts: [web]\n  http: [{route: [{destination: {}}]}]",
        "  hosts: [5]\n  http: [{route: [{destination: {host: web}}]}]",
        "  5",
    ],
)
def test_a_record_that_was_left_out_is_not_reported_as_missing(spec: str) -> None:
    assert len(problems(spec)) == 1


def test_the_old_name_of_the_share_of_mirrored_requests_is_read() -> None:
    assert (
        problems("""
  hosts: [web]
  http: [{route: [{destination: {host: web}}], mirror: {host: b}, mirror_percent: 50}]
""")
        == []
    )
    (found,) = problems("""
  hosts: [web]
  http: [{route: [{destination: {host: web}}], mirror: {host: b}, mirror_percent: 101}]
""")
    assert found.startswith("spec.http[0].mirrorPercent: ")
