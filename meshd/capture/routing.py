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
from meshd.model.interception import INBOUND_CONNMARK

_PREFERENCE: Final = 32764
_MASK: Final = 0xFFF
_RTN_LOCAL: Final = 2
_RT_SCOPE_HOST: Final = 254
_MIGRATE: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")
_ADDRESS_FAMILY: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


def rule_line(table: int) -> str:
    return f"rule fwmark {INBOUND_CONNMARK:#x}/0xfff lookup {table}"


def route_line(table: int) -> str:
    return f"route local default dev lo table {table}"


def missing(family: Family, table: int) -> tuple[str, ...]:
    """Which of ``rule_line`` and ``route_line`` are not there."""
    present = present_in(family, table)
    return tuple(line for line in (rule_line(table), route_line(table)) if line not in present)


def present_in(family: Family, table: int) -> tuple[str, ...]:
    """Which of ``rule_line`` and ``route_line`` are there."""
    with IPRoute() as netlink:
        return tuple(_present(netlink, _ADDRESS_FAMILY[family], table))


def add(family: Family, table: int, lines: tuple[str, ...]) -> None:
    """Raises SystemRefusedError."""
    _change("add", family, table, lines)


def remove(family: Family, table: int, lines: tuple[str, ...]) -> None:
    """Raises SystemRefusedError."""
    _change("del", family, table, lines)


def _change(verb: str, family: Family, table: int, lines: tuple[str, ...]) -> None:
    with IPRoute() as netlink:
        if rule_line(table) in lines:
            _request(netlink.rule, verb, _rule(family, table))
        if route_line(table) in lines:
            _request(netlink.route, verb, _route(family, table))


def migrate_requests() -> None:
    """Connections that wait at a proxy that is replaced go to another member of the pool.

    Where it cannot be set (kernels before 5.14, a read-only /proc/sys), those few are reset; that
    is no reason not to capture.
    """
    with contextlib.suppress(OSError):
        if _MIGRATE.read_text(encoding="ascii").strip() != "1":
            _MIGRATE.write_text("1", encoding="ascii")


def _present(netlink: IPRoute, address_family: int, table: int) -> Iterator[str]:
    for rule in netlink.get_rules(family=address_family):
        if (
            rule.get("FRA_TABLE") == table
            and rule.get("FRA_FWMARK") == INBOUND_CONNMARK
            and rule.get("FRA_FWMASK") == _MASK
        ):
            yield rule_line(table)
    for route in netlink.get_routes(family=address_family, table=table):
        if route["type"] == _RTN_LOCAL and route["dst_len"] == 0:
            yield route_line(table)


def _rule(family: Family, table: int) -> dict[str, Any]:
    return {
        "family": _ADDRESS_FAMILY[family],
        "priority": _PREFERENCE,
        "fwmark": INBOUND_CONNMARK,
        "fwmask": _MASK,
        "table": table,
    }


def _route(family: Family, table: int) -> dict[str, Any]:
    route: dict[str, Any] = {
        "family": _ADDRESS_FAMILY[family],
        "dst": "default",
        "type": "local",
        "oif": socket.if_nametoindex("lo"),
        "table": table,
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
            f" of table {what['table']}: {error}"
        ) from None
