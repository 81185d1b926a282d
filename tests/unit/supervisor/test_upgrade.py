"""Files of a version with one user for all roles go to whom they belong now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshd.settings import Paths
from meshd.supervisor import directories, upgrade
from meshd.supervisor.privileges import User, Users

BEFORE = 65111
"""The one user; no file of the machine is its."""
USERS = Users(
    meshd=User(BEFORE, BEFORE),
    proxy=User(65112, 65112),
    identity=User(65113, 65113),
    server=User(65114, 65114),
    telemetry=User(65115, 65115),
    roles=65116,
    kubernetes=User(65117, 65117),
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """As the version before left them."""
    found = Paths(tmp_path / "etc", tmp_path / "lib", tmp_path / "run")
    files = {
        found.keys / "root-key.pem": 0o600,
        found.keys / "node.pem": 0o600,
        found.keys / "leaves" / "one.json": 0o600,
        found.lib / "applied.json": 0o600,
        found.lib / "services.json": 0o644,
        found.run / "identities.json": 0o600,
        found.run / "workloads.json": 0o600,
        found.run / "healthy.json": 0o600,
        found.run / "telemetry.port": 0o644,
        found.run / "mesh.sock": 0o660,
        found.admin_run / "proxy-0.sock": 0o660,
    }
    for path, mode in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
        path.chmod(mode)
    for path in (found.lib, *found.lib.rglob("*"), *found.run.rglob("*")):
        os.chown(path, BEFORE, BEFORE)
    directories.make(found, USERS)
    upgrade.take_over(found, USERS)
    return found


def owner(path: Path) -> int:
    return path.stat().st_uid


def test_keys_and_the_record_of_who_has_certificates_are_the_identity_roles(paths: Paths) -> None:
    for path in (paths.keys, *paths.keys.rglob("*"), paths.allowed):
        assert owner(path) == USERS.identity.uid
    assert paths.allowed.read_text() == "identities.json"
    assert paths.node_file.stat().st_mode & 0o777 == 0o600


def test_a_node_key_that_the_mesh_role_could_read_goes_back(paths: Paths) -> None:
    directory = paths.lib / "node"
    directory.mkdir()
    (directory / "node.pem").write_text("newer")
    upgrade.take_over(paths, USERS)
    assert paths.node_file.read_text() == "node.pem"  # anybody's directory is not believed
    os.chown(directory, USERS.identity.uid, BEFORE)
    upgrade.take_over(paths, USERS)
    assert paths.node_file.read_text() == "newer"
    assert owner(paths.node_file) == USERS.identity.uid
    assert not directory.exists()


def test_what_the_mesh_role_keeps_stays_its_own_and_nobody_else_reads_it(paths: Paths) -> None:
    for name in ("applied.json", "services.json"):
        assert owner(paths.lib / name) == USERS.meshd.uid
        assert not (paths.lib / name).stat().st_mode & 0o077
    for path in (paths.workloads, paths.healthy):
        assert owner(path) == USERS.meshd.uid
        assert path.read_text() == path.name


def test_proxies_that_go_on_are_seen_by_telemetry(paths: Paths) -> None:
    assert (paths.admin_run / "proxy-0.sock").stat().st_gid == USERS.telemetry.gid


def test_a_former_place_leads_to_the_new_one(paths: Paths) -> None:
    paths.telemetry_port.write_text("15020\n")
    assert (paths.run / "telemetry.port").read_text() == "15020\n"
    assert paths.meshctl.readlink() == Path("mesh/mesh.sock")


def test_nothing_is_left_that_a_role_cannot_replace(paths: Paths) -> None:
    left = {path.name for path in paths.run.iterdir() if path.is_file() and not path.is_symlink()}
    assert left == set()


def test_doing_it_again_changes_nothing(paths: Paths) -> None:
    before = {path: path.lstat() for path in paths.run.parent.rglob("*")}
    directories.make(paths, USERS)
    upgrade.take_over(paths, USERS)
    assert {path: path.lstat() for path in paths.run.parent.rglob("*")} == before


def test_links_to_files_of_others_are_not_given_away(paths: Paths, tmp_path: Path) -> None:
    """Whoever had the one user may have put them there."""
    other = tmp_path / "other"
    other.write_text("root's")
    (paths.keys / "soft").symlink_to(other)
    os.link(other, paths.keys / "hard")
    (paths.lib / "soft").symlink_to(other)
    upgrade.take_over(paths, USERS)
    assert owner(other) == 0
    assert other.stat().st_mode & 0o777 == 0o644
