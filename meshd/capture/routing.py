"""The route that brings an application's replies back to the proxy, and the namespace's sysctls.

Acts on the namespace in which the process is; see ``rules`` for what the route is for.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from meshd.capture.rules import Family
from meshd.errors import SystemRefusedError
from meshd.model.interception import INBOUND_CONNMARK, INBOUND_ROUTE_TABLE

RULE: Final = f"rule fwmark {INBOUND_CONNMARK:#x}/0xfff lookup {INBOUND_ROUTE_TABLE}"
ROUTE: Final = f"route local default dev lo table {INBOUND_ROUTE_TABLE}"

_PREFERENCE: Final = 32764
_MASK: Final = 0xFFF
_RTN_LOCAL: Final = 2
_RT_SCOPE_HOST: Final = 254
_MIGRATE: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")
_ADDRESS_FAMILY: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


def missing(family: Family) -> tuple[str, ...]:
    """Which of ``RULE`` and ``ROUTE`` are not there."""
    present = present_in(family)
    return tuple(line for line in (RULE, ROUTE) if line not in present)


def present_in(family: Family) -> tuple[str, ...]:
    """Which of ``RULE`` and ``ROUTE`` are there."""
    with IPRoute() as netlink:
        return tuple(_present(netlink, _ADDRESS_FAMILY[family]))


def add(family: Family, lines: tuple[str, ...]) -> None:
    """Raises SystemRefusedError."""
    with IPRoute() as netlink:
        if RULE in lines:
            _request(netlink.rule, "add", _rule(family))
        if ROUTE in lines:
            _request(netlink.route, "add", _route(family))


def remove(family: Family, lines: tuple[str, ...]) -> None:
    """Raises SystemRefusedError."""
    with IPRoute() as netlink:
        if RULE in lines:
            _request(netlink.rule, "del", _rule(family))
        if ROUTE in lines:
            _request(netlink.route, "del", _route(family))


def migrate_requests() -> None:
    """Connections that wait at a proxy that is replaced go to another member of the pool.

    Where it cannot be set (kernels before 5.14, a read-only /proc/sys), those few are reset; that
    is no reason not to capture.
    """
    with contextlib.suppress(OSError):
        if _MIGRATE.read_text(encoding="ascii").strip() != "1":
            _MIGRATE.write_text("1", encoding="ascii")


def _present(netlink: IPRoute, address_family: int) -> Iterator[str]:
    for rule in netlink.get_rules(family=address_family):
        if (
            rule.get("FRA_TABLE") == INBOUND_ROUTE_TABLE
            and rule.get("FRA_FWMARK") == INBOUND_CONNMARK
            and rule.get("FRA_FWMASK") == _MASK
        ):
            yield RULE
    for route in netlink.get_routes(family=address_family, table=INBOUND_ROUTE_TABLE):
        if route["type"] == _RTN_LOCAL and route["dst_len"] == 0:
            yield ROUTE


def _rule(family: Family) -> dict[str, Any]:
    return {
        "family": _ADDRESS_FAMILY[family],
        "priority": _PREFERENCE,
        "fwmark": INBOUND_CONNMARK,
        "fwmask": _MASK,
        "table": INBOUND_ROUTE_TABLE,
    }


def _route(family: Family) -> dict[str, Any]:
    route: dict[str, Any] = {
        "family": _ADDRESS_FAMILY[family],
        "dst": "default",
        "type": "local",
        "oif": socket.if_nametoindex("lo"),
        "table": INBOUND_ROUTE_TABLE,
    }
    return route | ({"scope": _RT_SCOPE_HOST} if family is Family.IPV4 else {})


def _request(ask: Callable[..., Any], verb: str, what: dict[str, Any]) -> None:
    try:
        ask(verb, **what)
    except NetlinkError as error:
        if error.code in (errno.EEXIST, errno.ENOENT, errno.ESRCH):
            return  # somebody else was faster
        raise SystemRefusedError(
            f"cannot {verb} routing {'rule' if 'fwmark' in what else 'route'}"
            f" of table {INBOUND_ROUTE_TABLE}: {error}"
        ) from None
