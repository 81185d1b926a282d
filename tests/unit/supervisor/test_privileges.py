"""The command lines that give each process its privileges and no others."""

from __future__ import annotations

import pytest

from meshd.supervisor.privileges import Role, User, Users, proxy_command, role_command

USERS = Users(
    meshd=User(101, 201),
    proxy=User(102, 202),
    identity=User(103, 203),
    server=User(104, 204),
    telemetry=User(105, 205),
    kubernetes=User(106, 206),
    roles=300,
    journal=400,
)
_WHO = {
    Role.IDENTITY: (103, "--groups=300"),
    Role.MESH: (101, "--groups=300,205"),
    Role.SERVER: (104, "--groups=300"),
    Role.TELEMETRY: (105, "--groups=300,400"),
    Role.KUBERNETES: (106, "--groups=300"),
}


@pytest.mark.parametrize("role", list(_WHO))
def test_roles_without_privileges_have_none_and_each_is_a_user_of_its_own(role: Role) -> None:
    command = role_command(role, USERS, ("x",))
    uid, groups = _WHO[role]
    assert {f"--reuid={uid}", f"--regid={uid + 100}", groups, "--no-new-privs"} < set(command)
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
