"""Which names a namespace knows otherwise than most do."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from meshd.model.service import ServiceRecord
from meshd.resolver.views import addresses, known_by_all, known_otherwise, present, view

NAMESPACES = ("shop", "office", "lab")


def service(namespace: str, host: str, *given: str, **more: Any) -> ServiceRecord:
    return ServiceRecord(host=host, namespace=namespace, addresses=given, **more)


PUBLIC = service("shop", "api.test", "198.19.0.1")
OWN = service("office", "api.test", "198.19.0.2", apart="office")
PRIVATE = service("lab", "secret.test", "198.19.0.3", export_to=(".",))
SHARED = service("lab", "some.test", "198.19.0.4", export_to=("office", "."))


def otherwise(*services: ServiceRecord) -> dict[str, list[str]]:
    found = known_otherwise(services, NAMESPACES, "cluster.local")
    return {name: [one.addresses[0] for one in known] for name, known in found.items()}


def test_names_that_are_exported_to_all_namespaces_are_known_in_all() -> None:
    assert known_by_all((PUBLIC,)) == (PUBLIC,)
    assert otherwise(PUBLIC) == {}


def test_private_names_are_known_in_the_namespaces_that_they_are_exported_to() -> None:
    services = (PUBLIC, PRIVATE, SHARED)
    assert known_by_all(services) == (PUBLIC,)
    assert otherwise(*services) == {"lab": ["198.19.0.3", "198.19.0.4"], "office": ["198.19.0.4"]}


def test_a_namespaces_own_service_comes_before_that_of_others() -> None:
    assert known_by_all((PUBLIC, OWN)) == (PUBLIC,)
    assert otherwise(PUBLIC, OWN) == {"office": ["198.19.0.2"]}


def test_public_names_come_before_a_private_wildcard() -> None:
    wild = service("office", "*.test", "198.19.0.9", export_to=(".",))
    assert otherwise(PUBLIC, wild) == {"office": ["198.19.0.9", "198.19.0.1"]}
    assert otherwise(PUBLIC, OWN, wild) == {"office": ["198.19.0.2", "198.19.0.9"]}


def test_two_services_with_the_same_address_are_one_name() -> None:
    same = service("office", "api.test", "198.19.0.1", apart="office")
    assert otherwise(PUBLIC, same) == {}


def test_addresses_follow_from_names_and_stay() -> None:
    first = addresses(NAMESPACES, {})
    assert first == addresses(reversed(NAMESPACES), {})
    assert len({*first.values()}) == len(NAMESPACES)
    assert all(ipaddress.ip_address(one).is_loopback for one in first.values())
    taken = {"other": first["lab"]}
    assert addresses(("other", "lab"), taken)["lab"] != first["lab"]
    assert addresses(("lab",), {"lab": "127.64.9.9"}) == {"lab": "127.64.9.9"}


@pytest.mark.parametrize(
    "name", ["shop", "shop@", "shop@10.0.0.1", "shop@127.0.0.1", "--x@127.64.0.1", "@127.64.0.1"]
)
def test_a_directory_of_another_name_is_no_view(tmp_path: Path, name: str) -> None:
    for one in (name, "shop@127.64.0.1"):
        view(tmp_path, "x", "127.64.0.2").directory.with_name(one).mkdir(parents=True)
    assert present(tmp_path) == (view(tmp_path, "shop", "127.64.0.1"),)


def test_the_one_for_wildcards_is_at_an_address_that_no_other_has() -> None:
    own = view(Path("/run/x"), "shop", "127.95.255.254")
    assert own.wildcards_address == "127.127.255.254"
