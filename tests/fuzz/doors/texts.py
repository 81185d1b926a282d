"""Doors of texts: what the kernel and other programs write, and what people type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import typer

from meshd.api.base import Duration
from meshd.api.request_authentication.key_sets import NoKeySetError, key_set
from meshd.api.yaml import decode as decode_document
from meshd.api.yaml import read_documents
from meshd.base.errors import SystemRefusedError, UnreachableError
from meshd.base.printable import printable
from meshd.capture.rules.delta import parse_save
from meshd.cli.ports import parse_port
from meshd.cli.selectors import parse_selector
from meshd.fleet.joining.address import address_of
from meshd.issuers.fetching import configured
from meshd.resolver.command import is_routine
from meshd.settings import Settings
from meshd.supervisor import hang, lines
from meshd.telemetry import kernel_text, suppressed
from meshd.workloads.host.systemd import described
from meshd.workloads.host.units import cgroup_of, unit_name, workload_name
from tests import tokens
from tests.fuzz.door import Door
from tests.tokens import Key


def text(function: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: function(data.decode("utf-8", "replace"))


def typed(function: Callable[[str], object]) -> Callable[[bytes], object]:
    """An argument on the command line."""
    return lambda data: function(data.decode("utf-8", "surrogateescape"))


def _settings(written: str) -> None:
    for document in read_documents(written, "meshd.yaml"):
        decode_document(document, document.value, Settings)


def _duration(written: str) -> None:
    try:
        Duration.parse(written)
    except ValueError:
        return  # which decoding reports with the place


def _sockets(written: str) -> None:
    tuple(kernel_text.established(written))
    kernel_text.interfaces(written)
    kernel_text.sockets(written)
    kernel_text.own_mounts(kernel_text.mounts(written), [])


def _thread(written: str) -> None:
    stat, _, schedstat = written.partition("\n")
    hang.parse(stat, schedstat)


def _entry(written: str) -> None:
    """A field of a journal entry in each line."""
    parts = (line.partition("=") for line in written.split("\n"))
    entry = {name: value for name, _, value in parts}
    suppressed.read(entry)


def _logged(written: str) -> None:
    for line in written.split("\n"):
        lines.read(line)
        is_routine(line)
        printable(line)


def _unit(written: str) -> None:
    unit = unit_name(written)
    workload_name(unit)
    cgroup_of(unit)


def _shown(written: str) -> None:
    unit = described("a.service", written)
    for name in ("name", "load_state", "exists", "state", "result", "cgroup", "user", "sockets"):
        getattr(unit, name)


_TCP: Final = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"
    b" inode\n   0: 0100007F:3A98 0100007F:0050 01 00000000:00000000 00:00000000 00000000  1000"
    b"        0 4711 1 0000000000000000 20 4 30 10 -1\n"
)
_DEV: Final = b"a\nb\n  eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n"
_SS: Final = b"ESTAB 0 0 198.18.0.1:1 198.18.0.2:2 ino:47 sk:1 bytes_sent:10 bytes_received:9\n"
_MOUNT: Final = b"36 35 98:0 /m\\040x /mnt rw,noatime master:1 - ext3 /dev/x rw,upperdir=/a\n"
_SAVED: Final = b"*nat\n:PREROUTING ACCEPT [0:0]\n:MESHD - [0:0]\n-A PREROUTING -j MESHD\nCOMMIT\n"
_JOURNAL: Final = (
    b"MESHD_EVENT=suppressed\nMESHD_LINES=7\nMESHD_TEMPLATE=a %s",
    b"MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e\nMESSAGE=Suppressed 7 messages from a.service",
)
_LOG: Final = (
    b'meshd-access /run/netns/shop.web@1 GET /a "x" 200 - "-"\n[warning] a\ndnsmasq: started',
)
_SETTINGS: Final = (
    b"node: a\nrole: server\nmesh: {dns_upstreams: ['198.18.0.1:53', '[fd00:198::1]:53']}\n",
    b"capture: {dns_queries_per_second: 5, probe_interval: 1s}\nproxy: {count: 2}\n",
)

_KEYS: Final = tokens.key_set(Key("r", "RS256"), Key("e", "ES256"), Key("d", "EdDSA")).encode()
_SHOP: Final = b"https://a.test/shop"

DOORS: Final = (
    Door("key-set", text(key_set), (_KEYS,), (NoKeySetError,)),
    Door(
        "issuer-configuration",
        lambda data: configured(data, "https://a.test/shop/.well-known/openid-configuration"),
        (b'{"issuer": "%s", "jwks_uri": "%s/keys"}' % (_SHOP, _SHOP),),
        (UnreachableError,),
    ),
    Door("settings", text(_settings), _SETTINGS),
    Door("duration", text(_duration), (b"1h30m", b"1.5s", b"100ms"), ()),
    Door("proc-text", text(_sockets), (_TCP, _DEV, _SS, _MOUNT), ()),
    Door("proc-stat", text(_thread), (b"1 (a b) S 1 2\n100 200 3",), ()),
    Door("iptables-save", text(parse_save), (_SAVED,), (SystemRefusedError,)),
    Door("journal-entry", text(_entry), _JOURNAL, ()),
    Door("log-lines", text(_logged), _LOG, ()),
    Door("systemctl-show", text(_shown), (b"Id=a.service\nUID=7\nControlGroup=/a\nUser=b",), ()),
    Door("unit-name", typed(_unit), (b"web@1.service", b"web")),
    Door("server-address", typed(address_of), (b"a.test:15012", b"[fd00:198::1]:15012")),
    Door("port-option", typed(parse_port), (b"80:8080=http", b"80"), (typer.BadParameter,)),
    Door(
        "selector",
        typed(parse_selector),
        (b"a=b,c!=d,e in (f, g),!h", b"a notin (b)"),
        (typer.BadParameter,),
    ),
)
