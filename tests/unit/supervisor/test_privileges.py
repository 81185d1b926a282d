"""The command lines that give each process its privileges and no others."""

from __future__ import annotations

import pytest

from meshd.supervisor.privileges import Role, User, Users, proxy_command, role_command

USERS = Users(User(101, 201), User(102, 202))


@pytest.mark.parametrize("role", [Role.IDENTITY, Role.MESH, Role.TELEMETRY])
def test_roles_without_privileges_have_none(role: Role) -> None:
    command = role_command(role, USERS, ("x",))
    assert {"--reuid=101", "--regid=201", "--clear-groups", "--no-new-privs"} < set(command)
    assert {"--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"} < set(command)
    assert command[-2:] == ("--", "x")


def test_capture_is_root_with_little_of_it() -> None:
    command = role_command(Role.CAPTURE, USERS, ("x",))
    assert "--reuid=0" in command
    assert "--bounding-set=-all,+net_admin,+net_raw,+sys_admin,+sys_ptrace" in command
    assert "--inh-caps=-all" in command


def test_proxies_keep_three_capabilities_without_being_root() -> None:
    command = proxy_command(USERS, ("x",))
    only = "-all,+net_admin,+net_bind_service,+sys_admin"
    assert {"--reuid=102", "--regid=202", "--clear-groups", "--no-new-privs"} < set(command)
    kinds = ("inh-caps", "ambient-caps", "bounding-set")
    assert {f"--{kind}={only}" for kind in kinds} < set(command)
