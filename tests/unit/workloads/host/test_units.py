from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import InvalidInputError
from meshd.workloads.host.units import cgroup_of, slice_of, unit_name, workload_name

_NAMES = st.text("abcXYZ019-_.:@\\", min_size=1, max_size=12).filter(lambda t: not t.endswith("@"))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("nginx", "nginx.service"),
        ("nginx.service", "nginx.service"),
        ("web@1", "web@1.service"),
        ("a.b", "a.b.service"),
        ("php8.2-fpm.service", "php8.2-fpm.service"),
    ],
)
def test_a_unit_may_be_named_without_its_suffix(text: str, unit: str) -> None:
    assert unit_name(text) == unit


@pytest.mark.parametrize("text", ["", "nginx.socket", "a/b", "a b"])
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a systemd service"):
        unit_name(text)


@pytest.mark.parametrize("text", ["web@", "web@.service"])
def test_of_a_template_its_instances_can_be_enrolled(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is a template.*; enroll its instances web@NAME"):
        unit_name(text)


@pytest.mark.parametrize(
    "text",
    [
        *("ssh", "sshd.service", "ssh@1", "meshd", "systemd-networkd", "systemd-resolved", "dbus"),
        *("NetworkManager", "networking", "dhcpcd", "dhclient", "user@1000", "getty@tty1"),
        *("serial-getty@ttyS0", "console-getty", "rescue"),
    ],
)
def test_the_host_itself_never_depends_on_the_mesh(text: str) -> None:
    with pytest.raises(InvalidInputError, match="never captured"):
        unit_name(text)


def test_names_that_look_like_those_are_free() -> None:
    assert unit_name("sshportal") == "sshportal.service"


def test_a_name_for_the_workload_is_made_of_the_units() -> None:
    assert workload_name("nginx.service") == "nginx"
    assert workload_name("web@1.service") == "web-1"
    assert workload_name("My_App.service") == "my-app"


@given(_NAMES, _NAMES)
def test_no_slice_is_shared_or_inside_another(one: str, other: str) -> None:
    first, second = cgroup_of(f"{one}.service"), cgroup_of(f"{other}.service")
    assert (first == second) == (one == other)
    assert not first.startswith(f"{second}/")
    # One dash for each level: systemd.slice(5).
    assert slice_of(f"{one}.service").count("-") == 1
    assert first.count("/") == 1
