from __future__ import annotations

import hashlib

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
def test_a_unit_that_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a systemd service"):
        unit_name(text)


@pytest.mark.parametrize("text", ["dbus-", "sshd-.service", "systemd-@1.service"])
def test_what_stands_for_all_units_that_begin_so_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="all units whose names begin so"):
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


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        ("nginx.service", "nginx"),
        ("my_app.service", "my_app"),
        ("my-app.service", "my_app_4c9a75"),
        ("web@1.service", "web_1_08d190"),
    ],
)
def test_slices_are_named_as_in_files_and_records_of_earlier_versions(unit: str, name: str) -> None:
    assert slice_of(unit) == f"meshd_services-{name}.slice"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a-b", "a_b"),
        ("a-b", "a_b_a1bb3c"),
        ("a_123456", "a_123456_" + hashlib.sha256(b"a_123456").hexdigest()),
        ("a@b", "a:b"),
        ("a\\x2db", "a-b"),
        ("A-b", "a-b"),
        ("x" * 200 + "-" * 20, "x" * 200 + "_" * 20),
        ("-" * 100, slice_of("-" * 100).removeprefix("meshd_services-").removesuffix(".slice")),
    ],
)
def test_slices_differ_though_names_look_alike(one: str, other: str) -> None:
    first, second = slice_of(f"{one}.service"), slice_of(f"{other}.service")
    assert first != second
    assert max(len(first), len(second)) <= 255


@given(_NAMES, _NAMES)
def test_no_slice_is_shared_or_inside_another(one: str, other: str) -> None:
    first, second = cgroup_of(f"{one}.service"), cgroup_of(f"{other}.service")
    assert (first == second) == (one == other)
    assert not first.startswith(f"{second}/")
    # One dash for each level: systemd.slice(5).
    assert slice_of(f"{one}.service").count("-") == 1
    assert first.count("/") == 1
