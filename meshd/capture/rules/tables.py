"""Reading and writing the kernel's tables: nf_tables and legacy, behind one Protocol.

Everything here acts on the namespace in which the process is, and is meant for the short-lived
child of ``inside.run``: a wrong match makes libiptc abort the process.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules import inside, nfnetlink
from meshd.capture.rules.delta import (
    Action,
    Change,
    Tables,
    apply_changes,
    emptied_tables,
    parse_save,
)
from meshd.capture.rules.rule import Family
from meshd.capture.rules.rules import jump_to

ByFamily = Mapping[Family, Tables]
Plan = Mapping[Family, Sequence[Change]]

_PROGRAM: Final = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
LEGACY_NAMES: Final = {
    Family.IPV4: Path("/proc/thread-self/net/ip_tables_names"),
    Family.IPV6: Path("/proc/thread-self/net/ip6_tables_names"),
}
_NFPROTO: Final = {Family.IPV4: 2, Family.IPV6: 10}


class Backend(Protocol):
    """One of the kernel's two kinds of tables."""

    name: str
    remembers_new_tables: bool
    """Whether a table that we made can be taken away again."""

    def read(self, families: Iterable[Family]) -> dict[Family, Tables]:
        """Return the present tables. Raises SystemRefusedError."""
        ...

    def write(self, plan: Plan, before: ByFamily) -> None:
        """Write changes in their order, one batch for each run of changes to a table."""
        ...


def is_installed(backend: str) -> bool:
    return shutil.which(f"iptables-{backend}-save", path=_search_path()) is not None


def legacy_table_names(family: Family) -> tuple[str, ...]:
    """Return the legacy tables that exist in this namespace. Asking does not make any."""
    try:
        return tuple(LEGACY_NAMES[family].read_text(encoding="ascii").split())
    except OSError:
        return ()


class NftTables:
    """Writes nf_tables by ``iptables-nft-restore --noflush``; both families at the same time."""

    name = "nft"
    remembers_new_tables = True

    def read(self, families: Iterable[Family]) -> dict[Family, Tables]:
        return _read("nft", families)

    def write(self, plan: Plan, before: ByFamily) -> None:
        texts = {family: restore_text(changes) for family, changes in plan.items() if changes}
        _run_all(
            {
                family: ((f"{_PROGRAM[family]}-nft-restore", "--noflush", "-w"), text)
                for family, text in texts.items()
            }
        )
        if any(
            emptied_tables(before[family], apply_changes(changes, before[family]))
            for family, changes in plan.items()
        ):
            self._remove_emptied({family: before[family] for family in plan})

    def _remove_emptied(self, before: ByFamily) -> None:
        generation = nfnetlink.generation()
        after = self.read(before)
        tables = [
            (_NFPROTO[family], table)
            for family, there in before.items()
            for table in emptied_tables(there, after[family])
        ]
        if tables:
            # If somebody else works on them at this moment, they are theirs from now on.
            nfnetlink.delete_tables(tables, generation)


class LegacyTables:
    """Writes the older tables by libiptc."""

    name = "legacy"
    remembers_new_tables = False

    def read(self, families: Iterable[Family]) -> dict[Family, Tables]:
        result = _read("legacy", [family for family in families if legacy_table_names(family)])
        return {family: result.get(family, {}) for family in families}

    def write(self, plan: Plan, before: ByFamily) -> None:  # noqa: ARG002 - see ``Backend``
        # libiptc is loaded where it is needed only: it weighs more than the rest of the role.
        from meshd.capture.rules import legacy  # noqa: PLC0415

        for family, changes in plan.items():
            if changes:
                # libiptc knows one family in a process, and aborts it over a wrong match.
                inside.isolated(
                    functools.partial(legacy.commit_all, family, tuple(batches(changes))),
                    f"{family.label}, legacy tables",
                )


def batches(changes: Iterable[Change]) -> Iterator[tuple[str, list[Change]]]:
    """Yield runs of changes to the same table."""
    for table, run in itertools.groupby(changes, key=lambda change: change.table):
        yield table, list(run)


def restore_text(changes: Iterable[Change]) -> str:
    """Return the input of iptables-restore."""
    lines: list[str] = []
    for table, batch in batches(changes):
        lines += [f"*{table}", *itertools.chain.from_iterable(map(_lines, batch)), "COMMIT"]
    return "".join(line + "\n" for line in lines)


def _lines(change: Change) -> list[str]:
    match change.action:
        case Action.ADD_CHAIN:
            return [f":{change.chain} - [0:0]"]
        case Action.FILL_CHAIN:
            return [f"-F {change.chain}", *(f"-A {change.chain} {rule}" for rule in change.rules)]
        case Action.ADD_JUMP:
            return [f"-I {change.builtin} 1 {jump_to(change.chain)}"]
        case Action.DROP_JUMP:
            return [f"-D {change.builtin} {jump_to(change.chain)}"]
        case Action.DROP_CHAIN:
            return [f"-F {change.chain}", f"-X {change.chain}"]


def counted(table: str) -> list[str]:
    """Return one table of each existing kind and family, with counters, as iptables-save prints it.

    Raises SystemRefusedError.
    """
    printed: list[str] = []
    for backend in filter(is_installed, ("nft", "legacy")):
        commands = {
            family: ((f"{program}-{backend}-save", "-c", "-t", table), "")
            for family, program in _PROGRAM.items()
            if backend == "nft" or table in legacy_table_names(family)
        }
        printed += _run_all(commands).values()
    return printed


def _read(backend: str, families: Iterable[Family]) -> dict[Family, Tables]:
    commands = {family: ((f"{_PROGRAM[family]}-{backend}-save",), "") for family in families}
    return {family: parse_save(text) for family, text in _run_all(commands).items()}


def _run_all(commands: Mapping[Family, tuple[tuple[str, ...], str]]) -> dict[Family, str]:
    """Run one program per family, all at once; what they printed."""
    environment = {"PATH": _search_path(), "LC_ALL": "C"}
    running: dict[Family, subprocess.Popen[str]] = {}
    for family, (command, _) in commands.items():
        try:
            running[family] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        except FileNotFoundError:
            raise SystemRefusedError(
                f"{command[0]} is not installed (Debian's package iptables has it)"
            ) from None
    printed: dict[Family, str] = {}
    failures: list[str] = []
    for family, process in running.items():
        command, text = commands[family]
        output, complaint = process.communicate(text)
        printed[family] = output
        if process.returncode != 0:
            failures.append(f"{command[0]}: {' '.join(complaint.split())}")
    if failures:
        raise SystemRefusedError("; ".join(failures))
    return printed


def _search_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
