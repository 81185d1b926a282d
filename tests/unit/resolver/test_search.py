"""Domains that resolvers try behind a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.resolver import search


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(search, "_NAMESPACES", tmp_path)
    return tmp_path / "resolv.conf"


def test_search_domains_come_from_host_namespaces_and_settings(host: Path, tmp_path: Path) -> None:
    host.write_text("nameserver 192.0.2.1\nsearch old.test\nsearch Corp.test. lab.test\n")
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue" / "resolv.conf").write_text("domain blue.test\n")
    found = search.domains("mesh.test", ["more.test"], ["/run/netns/blue", "/run/netns/red"], host)
    assert found == ("blue.test", "corp.test", "lab.test", "more.test")


def test_those_of_the_mesh_and_what_is_no_domain_are_left_out(host: Path) -> None:
    host.write_text("search shop.svc.mesh.test svc.mesh.test mesh.test . a/b/ x..y\n")
    assert search.domains("mesh.test", [], [], host) == ()


def test_a_file_that_is_not_there_says_nothing(host: Path) -> None:
    assert search.domains("mesh.test", [], [], host) == ()
