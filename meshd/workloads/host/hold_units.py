"""The files of an enrolled unit below /etc/systemd/system. Pure.

What root runs before the unit starts is a unit of its own, ``meshd-hold@NAME.service``: inside the
enrolled unit it would have that unit's environment, root directory, namespaces, output and time
limit, all of which others may control. The enrolled unit and the sockets that pass connections to
it require it and come after it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import string
from collections.abc import Iterable
from typing import Final

from meshd.base.errors import InvalidInputError
from meshd.workloads.host.units import slice_of

DROP_IN: Final = "50-meshd.conf"
HOLD_PREFIX: Final = "meshd-hold@"
_LONGEST: Final = 255 - len(f"{HOLD_PREFIX}.service")
"""Characters of an instance: the name of a unit has at most 255, systemd.unit(5)."""
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + ":_.")
_PATH: Final = re.compile(r"/[A-Za-z0-9/._+@:~-]*")
"""What means itself in each setting of a unit."""
_SANDBOX: Final = """\
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_DAC_OVERRIDE
ProtectSystem=strict
ReadWritePaths=/run
ProtectHome=read-only
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
"""
"""It writes rules, notes and locks, and reads what is enrolled. No PrivateTmp, which waits for what
comes later at boot than some units that are held."""


_RESTORING: Final = " ".join(
    (
        "network-pre.target",
        "netfilter-persistent.service",
        "iptables.service",
        "ip6tables.service",
        "iptables-restore.service",
        "ip6tables-restore.service",
        "ferm.service",
        "ufw.service",
        "firewalld.service",
    )
)
"""What restores an administrator's own rules at boot."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The input of the files of one enrolled unit."""

    unit: str
    meshctl: str
    """Absolute path."""
    home: str = ""
    """MESHD_HOME of the node, if it has one."""
    sockets: tuple[str, ...] = ()
    """Socket units that pass connections to the unit."""
    early: bool = False
    """It may start before the basic system is up, which meshd itself waits for."""


def hold_of(unit: str) -> str:
    """Return the unit that holds a unit."""
    return f"{HOLD_PREFIX}{escaped(_name(unit))}.service"


def unit_drop_in(unit: str) -> str:
    return f"{unit}.d/{DROP_IN}"


def boot_drop_in(unit: str) -> str:
    """Return the drop-in by which the unit's slice exists as soon as the system boots."""
    return f"sysinit.target.d/{DROP_IN.removesuffix('.conf')}-{escaped(_name(unit))}.conf"


def own_paths(unit: str) -> frozenset[str]:
    """Return all files of an enrolled unit but those of its sockets."""
    return frozenset({hold_of(unit), unit_drop_in(unit), slice_of(unit), boot_drop_in(unit)})


def in_order_of_removal(unit: str, paths: Iterable[str]) -> list[str]:
    """Return files in the order in which they are to be removed: the unit that others require is
    the last, since whatever requires a unit without a file does not start."""
    return sorted(paths, key=lambda path: (path == hold_of(unit), path))


def socket_drop_in(unit: str, socket: str) -> str:
    """Return the path of a socket's drop-in, named after the unit, since a socket may have
    several."""
    return f"{socket}.d/{DROP_IN.removesuffix('.conf')}-{escaped(_name(unit))}.conf"


def held_sockets(unit: str, paths: Iterable[str]) -> frozenset[str]:
    """Return the sockets whose drop-ins for the unit are among the paths."""
    sockets = {path.partition(".d/")[0] for path in paths if ".socket.d/" in path}
    return frozenset(one for one in sockets if socket_drop_in(unit, one) in paths)


def files(wanted: Preparation) -> dict[str, str]:
    """Return texts by path below the directory of units. Raises InvalidInputError."""
    for path in filter(None, (wanted.meshctl, wanted.home)):
        if not _PATH.fullmatch(path):
            raise InvalidInputError(
                f"{path!r} cannot be named in a unit of systemd; use letters, digits and ._+@:~-"
            )
    unit = wanted.unit
    return {
        hold_of(unit): _hold(wanted),
        unit_drop_in(unit): _of_unit(wanted),
        slice_of(unit): _slice(unit),
        boot_drop_in(unit): f"{_head(unit)}Wants={slice_of(unit)}\n",
        **{socket_drop_in(unit, socket): _of_socket(unit) for socket in wanted.sockets},
    }


def escaped(text: str) -> str:
    """Escape a text as systemd-escape(1) does; a result that is too long is cut and made unique.

    No escaped text has a dash, which stands before the digest of one that is cut.
    """
    result = "".join(
        one if one in _PLAIN and (one != "." or index) else f"\\x{ord(one):02x}"
        for index, one in enumerate(text)
    )
    if len(result) <= _LONGEST:
        return result
    return f"{result[:100]}-{hashlib.sha256(text.encode()).hexdigest()}"


def _name(unit: str) -> str:
    return unit.removesuffix(".service")


def _head(unit: str) -> str:
    return f"# Written by meshctl enroll {unit}; meshctl unenroll {unit} removes it.\n[Unit]\n"


def _hold(wanted: Preparation) -> str:
    """Return the unit that holds an enrolled unit.

    Without meshd on the host it delays nothing; if it fails, so does the unit's start. It starts
    again with the unit each time, also when systemd restarts that, and cannot be stopped, which
    would stop the unit.
    """
    unit, slice_ = wanted.unit, slice_of(wanted.unit)
    home = f"Environment=MESHD_HOME={wanted.home}\n" if wanted.home else ""
    writable = f"ReadWritePaths=-{wanted.home}\n" if wanted.home else ""
    mounts = f"{wanted.meshctl} {wanted.home or '/etc/meshd /var/lib/meshd'}"
    return f"""\
{_head(unit)}Description=Hold {unit} until its traffic is captured
Documentation=man:meshd(8)
DefaultDependencies=no
RequiresMountsFor={mounts}
ConditionFileIsExecutable={wanted.meshctl}
Requires={slice_}
After={slice_}
Wants=modprobe@ip_tables.service modprobe@ip6_tables.service
After=modprobe@ip_tables.service modprobe@ip6_tables.service
Conflicts=shutdown.target
Before=shutdown.target
StartLimitIntervalSec=0
RefuseManualStop=yes

[Service]
Type=oneshot
{home}ExecStart={wanted.meshctl} capture hold {unit.replace(chr(92), chr(92) * 2)}
Slice=system.slice
TimeoutStartSec=60
MemoryMax=512M
TasksMax=64
{_SANDBOX}{writable}"""


def _of_unit(wanted: Preparation) -> str:
    meshd = "" if wanted.early else "Wants=meshd.service\nAfter=meshd.service\n"
    return f"{_head(wanted.unit)}{meshd}{_behind_hold(wanted.unit)}\n[Service]\n" + (
        f"Slice={slice_of(wanted.unit)}\n"
    )


def _slice(unit: str) -> str:
    """Return the slice; rules name its cgroup, without which iptables-restore refuses a whole
    file."""
    return f"""\
{_head(unit)}Description=Slice of {unit}, whose traffic is captured
Documentation=man:meshd(8)
Before={_RESTORING}
"""


def _of_socket(unit: str) -> str:
    return f"{_head(unit)}{_behind_hold(unit)}"


def _behind_hold(unit: str) -> str:
    hold = hold_of(unit)
    return f"Requires={hold}\nAfter={hold}\n"
