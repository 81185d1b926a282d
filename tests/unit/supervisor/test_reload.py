"""Only what a change of the settings concerns begins anew."""

from __future__ import annotations

import msgspec
import pytest

from meshd.settings import Settings
from meshd.supervisor.reload import Consequence, consequence

ROLES = frozenset({"capture", "identity", "mesh", "resolver"})
BEFORE = Settings()


def changed(section: str, **values: object) -> Settings:
    part = msgspec.structs.replace(getattr(BEFORE, section), **values)
    return msgspec.structs.replace(BEFORE, **{section: part})


def test_nothing_begins_anew_when_nothing_has_changed() -> None:
    assert consequence(BEFORE, Settings(), ROLES) == Consequence()


@pytest.mark.parametrize(
    ("after", "resolver", "proxies"),
    [
        (changed("proxy", count=BEFORE.proxy.count + 1), False, False),
        (changed("proxy", concurrency=BEFORE.proxy.concurrency + 1), False, True),
        (msgspec.structs.replace(BEFORE, node="another"), False, True),
        (changed("mesh", dns_upstreams=("127.0.0.1:9",)), True, True),
        (changed("mesh", access_log="all"), True, False),
        (msgspec.structs.replace(BEFORE, log_level="debug"), False, False),
    ],
)
def test_roles_always_the_resolver_for_the_mesh_and_proxies_for_what_they_cannot_change(
    after: Settings, resolver: bool, proxies: bool
) -> None:
    restarted = ROLES if resolver else ROLES - {"resolver"}
    assert consequence(BEFORE, after, ROLES) == Consequence(restarted, proxies)
