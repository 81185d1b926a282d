"""Which routing rules and routes are written and removed, told from what ``ip`` is asked to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.capture.rules import routing
from meshd.capture.rules.rule import Family
from meshd.model.interception import INBOUND_ROUTE_TABLE

OURS = '{"priority":0,"src":"all","fwmark":"0x111","fwmask":"0xfff","table":"15100"}'
FORMER = '{"priority":0,"src":"all","fwmark":"0x111","fwmask":"0xfff","table":"%s"}'
REMOVED = ("rule del priority 0 fwmark 0x111/0xfff table 100", "route del local default dev lo")


class Ip:
    """Stands in for ``ip`` of a host whose administrator has named table 100."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "log"
        program = directory / "ip"
        program.write_text(
            f"#!/bin/sh\ncd {directory}\nnames=names\n"
            'for one; do [ "$one" = -N ] && names=numbers; done\n'
            "while read -r line; do echo $line >> log\n"
            'case $line in "rule show"*) cat $names ;; esac; done\n'
        )
        program.chmod(0o755)

    def has(self, *rules: str) -> None:
        for form, name in (("numbers", "100"), ("names", "storage")):
            text = ",".join(rule.replace("%s", name) for rule in rules)
            self._directory.joinpath(form).write_text(f"[{text}]\n")

    @property
    def changes(self) -> str:
        lines = self._log.read_text().splitlines()
        return "\n".join(line for line in lines if " show " not in line)


@pytest.fixture
def ip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ip:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return Ip(tmp_path)


def mend() -> None:
    shown = routing.shown(Family.IPV4, INBOUND_ROUTE_TABLE)
    lines = routing.missing(shown, INBOUND_ROUTE_TABLE)
    routing.add(Family.IPV4, INBOUND_ROUTE_TABLE, lines)


def test_the_rule_of_an_earlier_version_is_removed_whatever_its_table_is_called(ip: Ip) -> None:
    ip.has(FORMER)
    mend()
    assert all(command in ip.changes for command in REMOVED)


def test_the_rule_of_an_earlier_version_that_came_back_is_removed_beside_ours(ip: Ip) -> None:
    """As after a downgrade and another upgrade."""
    ip.has(FORMER, OURS)
    mend()
    assert all(command in ip.changes for command in REMOVED)


def test_what_others_have_in_the_former_table_stays(ip: Ip) -> None:
    ip.has(OURS)
    mend()
    assert "table 100\n" not in ip.changes
    assert "rule add" not in ip.changes
