"""What dnsmasq is started with, and which of its words are passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.resolver import command, files, views
from meshd.resolver.tables import Tables
from meshd.settings import MeshSettings

DIRECTORY = Path("/run/x/dns")


def arguments(*upstreams: str) -> tuple[str, ...]:
    return of(command.NAME, *upstreams)


def of(name: str, *upstreams: str) -> tuple[str, ...]:
    return command.arguments(name, MeshSettings(dns_upstreams=upstreams, dns_port=5353), DIRECTORY)


def test_the_hosts_own_resolvers_are_asked_when_the_settings_name_none() -> None:
    assert "--resolv-file=/etc/resolv.conf" in arguments()
    assert "--no-resolv" not in arguments()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("192.0.2.1", "192.0.2.1#53"),
        ("192.0.2.1:54", "192.0.2.1#54"),
        ("2001:db8::1", "2001:db8::1#53"),
        ("[2001:db8::1]:54", "2001:db8::1#54"),
    ],
)
def test_named_resolvers_are_asked_and_no_others(text: str, told: str) -> None:
    assert [one for one in arguments(text) if one.startswith("--server=")] == [f"--server={told}"]
    assert "--no-resolv" in arguments(text)
    assert not any(one.startswith("--resolv-file") for one in arguments(text))


@pytest.mark.parametrize("text", ["", "dns.example.com", "192.0.2.1:", "192.0.2.1:0", "[::1]"])
def test_a_resolver_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="dns_upstreams"):
        MeshSettings(dns_upstreams=(text,))


def test_a_resolver_is_told_from_that_of_another_node() -> None:
    for name in command.NAMES:
        started = ("dnsmasq", *of(name))
        assert command.is_started_for(name, DIRECTORY, started)
        assert not command.is_started_for(name, Path("/run/y/dns"), started)
        (other,) = command.NAMES - {name}
        assert not command.is_started_for(other, DIRECTORY, started)


def test_the_one_for_wildcards_is_beside_the_other() -> None:
    listens = [one for one in of(command.WILDCARDS_NAME) if "listen" in one or "port" in one]
    assert sorted(listens) == ["--listen-address=127.0.0.2", "--port=5353"]


def test_a_namespace_with_names_of_its_own_has_two_that_ask_the_first_for_the_rest(
    tmp_path: Path,
) -> None:
    own = views.view(tmp_path, "shop", "127.64.0.7")
    settings = MeshSettings(dns_port=5353)
    assert command.of_namespaces(tmp_path) == ()
    files.make(own.directory)
    files.write(own.directory, Tables("127.0.0.1 a.test\n", "", ""))
    assert command.of_namespaces(tmp_path) == ("resolver.shop",)
    files.write(own.directory, Tables("127.0.0.1 a.test\n", "", "local=/*.b.test/\n"))
    names = command.of_namespaces(tmp_path)
    assert names == ("resolver.shop", "resolver-wildcards.shop")
    tables, wildcards = (command.arguments(name, settings, tmp_path) for name in names)
    assert {"--listen-address=127.64.0.7", "--server=127.0.0.1#5353", "--no-resolv"} <= {*tables}
    assert not any(word.startswith("--local=") for word in tables)
    assert f"--listen-address={own.wildcards_address}" in wildcards
    for name, words in zip(names, (tables, wildcards), strict=True):
        assert command.is_started_for(name, tmp_path, words)
    files.remove(own.directory)
    assert command.of_namespaces(tmp_path) == ()
    with pytest.raises(SystemRefusedError, match=r"resolver\.shop"):
        command.arguments("resolver.shop", settings, tmp_path)


def test_the_package_is_named_when_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(command, "_SYSTEM_PATH", str(tmp_path))
    with pytest.raises(SystemRefusedError, match="dnsmasq-base"):
        command.find()


@pytest.mark.parametrize(
    ("line", "routine"),
    [
        ("dnsmasq[7]: read /run/x/dns/hosts - 4 names", True),
        ("dnsmasq[7]: using nameserver 192.0.2.1#53", True),
        ("dnsmasq[7]: failed to load names from /run/x/dns/hosts: No such file or directory", True),
        ("dnsmasq[7]: failed to load names from /run/x/dns/hosts: Permission denied", False),
        ("dnsmasq[7]: Maximum number of concurrent DNS queries reached (max: 1000)", False),
        ("dnsmasq: failed to create listening socket for 127.0.0.1: Address in use", False),
    ],
)
def test_only_what_is_news_is_passed_on(line: str, routine: bool) -> None:
    assert command.is_routine(line) is routine
