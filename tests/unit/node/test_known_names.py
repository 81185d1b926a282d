"""Names are answered for when proxies know their addresses, and no longer than there are any."""

from __future__ import annotations

import msgspec

from meshd.model.service import Endpoint, ServiceRecord
from meshd.node.known_names import KnownNames, Services


def _services(*records: ServiceRecord) -> Services:
    return {one.host: one for one in records}


def _told(names: KnownNames) -> dict[str, tuple[str, ...]]:
    return {
        host: one.addresses or tuple(end.address for end in one.endpoints)
        for host, one in names.told.items()
    }


SHOP = ServiceRecord(host="shop", namespace="n", addresses=("198.19.0.1",))
BANK = ServiceRecord(host="bank", namespace="n", addresses=("198.19.0.2",))
PODS = ServiceRecord(
    host="pods",
    namespace="n",
    headless=True,
    endpoints=(Endpoint(address="198.18.0.1", port=80, service_port=80),),
)
MORE = Endpoint(address="198.18.0.2", port=80, service_port=80)


def _known(*records: ServiceRecord) -> KnownNames:
    """What is answered for while proxies lead connections to these services."""
    services = _services(*records)
    return KnownNames().followed(services, services, lead=True)


def test_what_proxies_have_never_been_seen_to_know_is_answered_for() -> None:
    newest = _services(SHOP)
    assert KnownNames().followed(newest, None, lead=True).told is newest
    assert KnownNames().followed(newest, _services(BANK), lead=False).told is newest


def test_a_new_name_waits_until_proxies_lead_its_connections() -> None:
    newest = _services(SHOP, BANK)
    before = _known(SHOP)
    compiling = before.followed(newest, before.newest, lead=True)
    assert _told(compiling) == {"shop": SHOP.addresses}
    published = compiling.followed(newest, newest, lead=False)
    assert _told(published) == {"shop": SHOP.addresses}
    taken = published.followed(newest, newest, lead=True)
    assert taken.told is newest


def test_a_name_that_goes_is_answered_for_no_more_at_once() -> None:
    before = _known(SHOP, BANK)
    assert _told(before.followed(_services(BANK), before.newest, lead=True)) == {
        "bank": BANK.addresses
    }


def test_a_name_with_another_address_has_the_former_one_until_proxies_know_the_other() -> None:
    before = _known(SHOP)
    moved = _services(msgspec.structs.replace(SHOP, addresses=("198.19.0.9",)))
    assert _told(before.followed(moved, before.newest, lead=True)) == {"shop": SHOP.addresses}
    both = _services(msgspec.structs.replace(SHOP, addresses=(*SHOP.addresses, "fd00:198::1")))
    assert _told(before.followed(both, before.newest, lead=True)) == {"shop": SHOP.addresses}


def test_of_a_headless_service_those_endpoints_are_told_that_there_were_if_any_are_left() -> None:
    before = _known(PODS)
    more = _services(msgspec.structs.replace(PODS, endpoints=(*PODS.endpoints, MORE)))
    assert _told(before.followed(more, before.newest, lead=True)) == {"pods": ("198.18.0.1",)}
    other = _services(msgspec.structs.replace(PODS, endpoints=(MORE,)))
    assert _told(before.followed(other, before.newest, lead=True)) == {"pods": ("198.18.0.2",)}
