"""The routes that bring an application's replies back to the proxy, and the namespace's sysctls.

Acts on the namespace in which the process is; see ``rules`` for what the route is for. It runs
``ip``: a netlink library would be a third of what the capture role holds in memory.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules.rule import Family
from meshd.model.interception import (
    FORMER_ROUTE_TABLE,
    INBOUND_CONNMARK,
    INBOUND_ROUTE_TABLE,
    PROXY_INBOUND_MARK,
)

_PREFERENCE: Final = 0
"""Behind the kernel's own of local addresses only, and before whatever rules others add later, such
as one for each address of a host with two of them: what they add without a preference comes before
all but the first, and what has the same one behind those that are there. It is for packets with our
mark and no others."""
_FORMER: Final = (1, 32764)
_LOCAL: Final = "from all lookup 255"
_LOCAL_ROUTE: Final = "2"
"""The type ``local`` as a number; rtnetlink(7), RTN_LOCAL."""
_MARK: Final = f"{INBOUND_CONNMARK:#x}"
_REPLY_MARK: Final = f"{PROXY_INBOUND_MARK:#x}"
_MASK: Final = "0xfff"
_NOTE: Final = 97
"""The protocol of a rule that notes something, see ``replies``; below 4 are the kernel's own, and
from 186 on those of routing daemons."""
_MIGRATE: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")
_NO_SUCH_TABLE: Final = "FIB table does not exist"
_SOMEBODY_WAS_FASTER: Final = ("File exists", "No such file or directory", "No such process")


def rule_line(table: int) -> str:
    return f"rule fwmark {_MARK}/{_MASK} lookup {table}"


def route_line(table: int) -> str:
    return f"route local default dev lo table {table}"


def reply_line() -> str:
    return f"rule fwmark {_REPLY_MARK}/{_MASK} lookup {INBOUND_ROUTE_TABLE}"


def missing(answers: Sequence[Any], table: int) -> tuple[str, ...]:
    """Return which of ``rule_line`` and ``route_line`` are missing.

    The first is while a rule of an earlier version is there: ``add`` replaces that. An earlier
    version may have written its rule again after a later one. ``answers``: see ``shown``. Pure.
    """
    present = set(_present(answers, table))
    if any(_is_former(rule) for answer in answers for rule in answer):
        present.discard(rule_line(table))
    return tuple(line for line in (rule_line(table), route_line(table)) if line not in present)


def present_in(answers: Sequence[Any], table: int) -> tuple[str, ...]:
    """Return which of ``rule_line`` and ``route_line`` exist. ``answers``: see ``shown``. Pure."""
    return tuple(_present(answers, table))


def shown(family: Family, table: int) -> list[Any]:
    """Return what ``ip`` shows: all routing rules, and the routes of the table.

    Raises SystemRefusedError.
    """
    return _ip(family, ["rule show", f"route show table {table}"])


def noted_reply_rule(answers: Sequence[Any]) -> bool | None:
    """Return whether ``reply_line`` has the note, see ``replies``; None: there is no such rule.

    Pure.
    """
    for found in (entry for answer in answers for entry in answer):
        if _is_for_replies(found):
            return found.get("protocol") == str(_NOTE)
    return None


def rule_by_marks(answers: Sequence[Any]) -> str:
    """Return a foreign routing rule that chooses by marks; empty: there is none. Pure."""
    for found in (entry for answer in answers for entry in answer):
        if "fwmark" in found and not _is_for_replies(found) and found["fwmark"] != _MARK:
            return f"rule fwmark {found['fwmark']} lookup {found.get('table', '?')}"
    return ""


def _is_for_replies(found: Mapping[str, object]) -> bool:
    marked = found.get("fwmark") == _REPLY_MARK and found.get("fwmask") == _MASK
    return marked and found.get("table") == str(INBOUND_ROUTE_TABLE)


def change_reply_rule(family: Family, *, add: bool, notes: bool) -> None:
    """Add or remove ``reply_line``, with or without the note. Raises SystemRefusedError."""
    note = f" protocol {_NOTE}" if notes else ""
    mark = f"fwmark {_REPLY_MARK}/{_MASK} table {INBOUND_ROUTE_TABLE}"
    verb = "add" if add else "del"
    _ip(family, [f"rule {verb} priority {_PREFERENCE} {mark}{note if add else ''}"])


def before_ours(family: Family, table: int) -> tuple[str, ...]:
    """Return foreign routing rules that come before ours, and may lead replies elsewhere."""
    command = ["ip", "-N", f"-{family.value}", "rule", "show"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    listed = [" ".join(line.split()) for line in done.stdout.splitlines()]
    ours = f"from all fwmark {_MARK}/{_MASK} lookup {table}"
    place = next((at for at, line in enumerate(listed) if line.endswith(ours)), 0)
    replies = f"from all fwmark {_REPLY_MARK}/{_MASK} lookup {INBOUND_ROUTE_TABLE}"
    return tuple(
        line for line in listed[:place] if not line.endswith(_LOCAL) and replies not in line
    )


def add(family: Family, table: int, lines: tuple[str, ...]) -> None:
    """Raises SystemRefusedError."""
    _change("add", family, table, lines)


def remove(family: Family, table: int, lines: tuple[str, ...]) -> None:
    """Raises SystemRefusedError."""
    _change("del", family, table, lines)


def _change(verb: str, family: Family, table: int, lines: tuple[str, ...]) -> None:
    if rule_line(table) in lines:
        mark = f"fwmark {_MARK}/{_MASK}"
        former = [f"rule del priority {one} {mark} table {table}" for one in _FORMER]
        ours = f"rule {verb} priority {_PREFERENCE} {mark} table {table}"
        _ip(family, [ours, *former, *_in_former_table(family)])
    if route_line(table) in lines:
        _ip(family, [f"route {verb} local default dev lo table {table}"])


def _in_former_table(family: Family) -> tuple[str, ...]:
    """Return the commands that remove what an earlier version has put into another table.

    Without its rule, the route is somebody else's.
    """
    mark = f"fwmark {_MARK}/{_MASK}"
    rules = tuple(
        f"rule del priority {rule['priority']} {mark} table {FORMER_ROUTE_TABLE}"
        for answer in _ip(family, [f"rule show {mark}"])
        for rule in answer
        if _is_former(rule)
    )
    return (*rules, f"route del local default dev lo table {FORMER_ROUTE_TABLE}") if rules else ()


def _is_former(rule: Mapping[str, object]) -> bool:
    """Return whether a routing rule is that of an earlier version, with another table."""
    marked = rule.get("fwmark") == _MARK and rule.get("fwmask") == _MASK
    return marked and rule.get("table") == str(FORMER_ROUTE_TABLE)


def migrate_requests() -> None:
    """Have connections that wait at a proxy that is replaced go to another member of the pool.

    Where it cannot be set (kernels before 5.14, a read-only /proc/sys), those few are reset; that
    is no reason not to capture.
    """
    with contextlib.suppress(OSError):
        if _MIGRATE.read_text(encoding="ascii").strip() != "1":
            _MIGRATE.write_text("1", encoding="ascii")


def _present(answers: Sequence[Any], table: int) -> Iterator[str]:
    for found in (entry for answer in answers for entry in answer):
        if found.get("fwmark") == _MARK and found.get("fwmask") == _MASK:
            if found.get("table") == str(table) and found.get("priority") == _PREFERENCE:
                yield rule_line(table)
        elif found.get("type") == _LOCAL_ROUTE and found.get("dst") == "default":
            yield route_line(table)


def _ip(family: Family, commands: Sequence[str]) -> list[Any]:
    """Return the answers of ``ip``, of each command that answers anything.

    All is in numbers: administrators name tables in /etc/iproute2/rt_tables.
    """
    done = subprocess.run(
        ["ip", "-N", "-json", f"-{family.value}", "-force", "-batch", "-"],
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        check=False,
    )
    known = (_NO_SUCH_TABLE, *_SOMEBODY_WAS_FASTER, "Command failed", "Dump terminated")
    for line in done.stderr.splitlines():
        if not any(text in line for text in known):
            raise SystemRefusedError(f"ip {'; ip '.join(commands)}: {line}")
    return [msgspec.json.decode(line) for line in done.stdout.splitlines() if line.startswith("[")]
