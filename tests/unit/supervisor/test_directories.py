"""Whose each directory is: in the table, and in what systemd makes before the service starts."""

from __future__ import annotations

from pathlib import Path

from meshd.settings import Paths
from meshd.supervisor.directories import wanted
from meshd.supervisor.privileges import User, Users

_CHECKOUT = Path(__file__).parents[3]
_USERS = {
    "root": 0,
    "meshd": 1,
    "meshd-proxy": 2,
    "meshd-identity": 3,
    "meshd-server": 4,
    "meshd-telemetry": 5,
    "meshd-roles": 6,
    "meshd-kubernetes": 7,
}
USERS = Users(
    meshd=User(1, 1),
    proxy=User(2, 2),
    identity=User(3, 3),
    server=User(4, 4),
    telemetry=User(5, 5),
    roles=6,
    kubernetes=User(7, 7),
)
PATHS = Paths(Path("/etc/meshd"), Path("/var/lib/meshd"), Path("/run/meshd"))


def test_systemd_makes_the_directories_that_the_supervisor_makes() -> None:
    text = (_CHECKOUT / "systemd/tmpfiles.d/meshd.conf").read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    listed = {path: (_USERS[user], _USERS[group], mode) for _, path, mode, user, group, _ in lines}
    assert listed == {
        str(one.path): (one.uid, one.gid, f"{one.mode:04o}") for one in wanted(PATHS, USERS)
    }


def test_no_two_users_may_write_in_one_directory() -> None:
    """But for the state directory, in which only who made a file may replace it."""
    for one in wanted(PATHS, USERS):
        shared = one.mode & 0o022
        assert not shared or one.path == PATHS.lib
        assert one.path != PATHS.lib or one.mode & 0o1000


def test_only_the_identity_role_enters_the_directory_of_keys() -> None:
    (keys,) = (one for one in wanted(PATHS, USERS) if one.path == PATHS.keys)
    assert (keys.uid, keys.mode) == (USERS.identity.uid, 0o700)
    assert PATHS.node_file.parent == PATHS.keys
