"""What systemd is told of an enrolled unit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import InvalidInputError
from meshd.workloads.host.hold_units import Preparation, escaped, files, held_sockets, hold_of
from meshd.workloads.host.systemd import (
    Prepared,
    Systemd,
    Unit,
    described,
    listens_on_network,
    passing_to,
)

MESHCTL: Final = "/opt/meshd/bin/meshctl"
WEB: Final = Preparation(unit="web.service", meshctl=MESHCTL, sockets=("web.socket",))
_NAMES: Final = st.text("abcXYZ019-_.:@\\", min_size=1, max_size=200)


def test_what_root_runs_is_a_unit_that_the_service_and_its_sockets_require() -> None:
    texts = files(WEB)
    hold, service, socket = (
        texts["meshd-hold@web.service"],
        texts["web.service.d/50-meshd.conf"],
        texts["web.socket.d/50-meshd-web.conf"],
    )
    assert len(texts) == 5
    assert f"ExecStart={MESHCTL} capture hold web.service\n" in hold
    for text in (service, socket):
        assert "Requires=meshd-hold@web.service\nAfter=meshd-hold@web.service\n" in text
        assert "Exec" not in text
    assert "Slice=meshd_services-web.slice\n" in service
    assert "After=meshd_services-web.slice\n" in hold


def test_the_slice_is_there_before_rules_that_name_it_are_restored() -> None:
    texts = files(WEB)
    assert texts["sysinit.target.d/50-meshd-web.conf"].endswith(
        "\n[Unit]\nWants=meshd_services-web.slice\n"
    )
    before = texts["meshd_services-web.slice"].partition("\nBefore=")[2].split()
    assert {"network-pre.target", "netfilter-persistent.service"} <= set(before)


def test_the_hold_is_bounded_and_holds_nobody_up_without_meshd() -> None:
    hold = files(WEB)["meshd-hold@web.service"]
    for line in (
        "Type=oneshot",
        "TimeoutStartSec=60",
        "MemoryMax=512M",
        "StartLimitIntervalSec=0",
        "RefuseManualStop=yes",
        f"ConditionFileIsExecutable={MESHCTL}",
    ):
        assert f"\n{line}\n" in hold
    assert "RemainAfterExit" not in hold


def test_a_unit_before_the_basic_system_does_not_wait_for_meshd() -> None:
    early = Preparation(unit="web.service", meshctl=MESHCTL, early=True)
    text = files(early)["web.service.d/50-meshd.conf"]
    assert "meshd.service" not in text
    assert "Requires=meshd-hold@web.service\n" in text


def test_a_home_of_its_own_is_that_of_the_hold_too() -> None:
    text = files(Preparation(unit="web.service", meshctl=MESHCTL, home="/srv/one"))
    assert "Environment=MESHD_HOME=/srv/one\n" in text["meshd-hold@web.service"]
    assert "ReadWritePaths=-/srv/one\n" in text["meshd-hold@web.service"]


@pytest.mark.parametrize("path", ["/srv/a b/meshctl", "/srv/%n/meshctl", 'x"', "meshctl", "/a\nb"])
def test_a_path_that_would_mean_something_else_is_refused(path: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be named in a unit"):
        files(Preparation(unit="web.service", meshctl=path))


def test_a_backslash_in_a_name_is_one_for_systemd() -> None:
    text = files(Preparation(unit=r"dev\x2da.service", meshctl=MESHCTL))
    assert text[r"meshd-hold@dev\x5cx2da.service"].count(r"capture hold dev\\x2da.service") == 1


@given(_NAMES, _NAMES)
def test_each_unit_has_a_hold_of_its_own_with_a_name_that_is_not_too_long(
    one: str, other: str
) -> None:
    first, second = hold_of(f"{one}.service"), hold_of(f"{other}.service")
    assert (first == second) == (one == other)
    assert len(first) <= 255


@pytest.mark.parametrize("name", ["web", "web@1", "a-b", r"a\x2db", ".a.b", "php8.2-fpm"])
def test_names_are_escaped_as_systemd_does_it(name: str) -> None:
    program = shutil.which("systemd-escape")
    assert program
    done = subprocess.run([program, "--", name], capture_output=True, text=True, check=True)
    assert escaped(name) == done.stdout.rstrip("\n")


def test_a_socket_may_pass_connections_to_several_units() -> None:
    other = Preparation(unit="shop.service", meshctl=MESHCTL, sockets=("web.socket",))
    both = [*files(WEB), *files(other)]
    assert held_sockets("web.service", both) == {"web.socket"}
    assert len(set(both)) == 10


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """Whose files are in a directory of their own, and which is not told of them."""

    def systemctl(*_: str) -> str:
        return ""

    monkeypatch.setattr("meshd.workloads.host.systemd._systemctl", systemctl)
    return Systemd(tmp_path)


def test_files_of_an_older_version_are_written_anew(systemd: Systemd, tmp_path: Path) -> None:
    old = tmp_path / "web.service.d/50-meshd.conf"
    old.parent.mkdir()
    old.write_text("[Service]\nExecCondition=+/bin/sh -c 'meshctl capture hold %n'\n")
    assert systemd.prepared() == ("web.service",)
    assert not systemd.preparation_of("web.service").is_held
    systemd.prepare(WEB)
    assert "ExecCondition" not in old.read_text()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        *files(WEB)
    }


def test_a_socket_that_is_its_no_more_is_held_no_more(systemd: Systemd, tmp_path: Path) -> None:
    systemd.prepare(WEB)
    assert systemd.preparation_of("web.service") == Prepared(True, frozenset({"web.socket"}))
    systemd.prepare(Preparation(unit="web.service", meshctl=MESHCTL))
    assert systemd.preparation_of("web.service") == Prepared(True, frozenset())
    assert systemd.is_prepared("web.service")


def test_nothing_is_left_but_what_others_have_written(systemd: Systemd, tmp_path: Path) -> None:
    systemd.prepare(WEB)
    others = tmp_path / "web.socket.d/limits.conf"
    others.write_text("[Socket]\n")
    systemd.undo("web.service")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [others]
    assert not (tmp_path / "web.service.d").exists()


def test_a_unit_is_told_by_its_own_name_and_its_sockets() -> None:
    text = "Id=mariadb.service\nTriggeredBy=mariadb-extra.socket backup.timer mariadb.socket\n"
    unit = described("mysql.service", text)
    assert (unit.asked, unit.name) == ("mysql.service", "mariadb.service")
    assert unit.sockets == {"mariadb-extra.socket", "mariadb.socket"}
    assert described("web.service", "").name == "web.service"


@pytest.mark.parametrize(
    ("listeners", "is_on_network"),
    [
        (("[::]:80 (Stream)",), True),
        (("127.0.0.1:80 (Stream)",), True),
        (("/run/web.sock (Stream)", "0.0.0.0:53 (Datagram)"), True),
        (("/run/web.sock (Stream)", "@web (Datagram)", "/run/fifo (FIFO)"), False),
        (("route 1361 (Netlink)", "/dev/rfkill (Special)"), False),
        ((), False),
    ],
)
def test_only_a_socket_that_others_could_reach_is_held(
    listeners: tuple[str, ...], is_on_network: bool
) -> None:
    text = "".join(f"Listen={one}\n" for one in listeners)
    assert listens_on_network(described("web.socket", text)) is is_on_network


def test_the_sockets_of_a_unit_are_found_from_either_side() -> None:
    def socket(name: str, triggers: str = "") -> Unit:
        return described(name, f"Id={name}\nTriggers={triggers}\nListen=[::]:80 (Stream)\n")

    unit = described("web.service", "Id=web.service\nTriggeredBy=a.socket local.socket\n")
    local = described("local.socket", "Id=local.socket\nListen=/run/web (Stream)\n")
    others = (socket("other.socket", "other.service"), local)
    assert passing_to(unit, (socket("b.socket", "web.service"), socket("a.socket"), *others)) == (
        "a.socket",
        "b.socket",
    )
