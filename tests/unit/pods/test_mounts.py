"""Which part of a volume a container gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshd.pods.mounts import Mount, open_sources


def opened(volume: Path, sub_path: str) -> Path:
    ((_, descriptor),) = open_sources([Mount("/anywhere", volume, sub_path)])
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("sub_path", ["", "a", "a/b", "./a//b/"])
def test_a_part_of_a_volume_is_what_its_path_says(tmp_path: Path, sub_path: str) -> None:
    tmp_path.joinpath("a", "b").mkdir(parents=True)
    assert opened(tmp_path, sub_path) == tmp_path / sub_path


@pytest.mark.parametrize("sub_path", ["link", "link/passwd", "a/link", "a/up/etc", "a/up"])
def test_no_link_that_a_container_has_left_leads_out_of_its_volume(
    tmp_path: Path, sub_path: str
) -> None:
    """The next container would have any directory of the host, mounted by root."""
    volume = tmp_path / "volume"
    volume.joinpath("a").mkdir(parents=True)
    volume.joinpath("link").symlink_to("/etc")
    volume.joinpath("a", "link").symlink_to("/etc/passwd")
    volume.joinpath("a", "up").symlink_to("../..")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="leads out of the volume by a symbolic link"):
        opened(volume, sub_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_link_of_the_kernel_leads_out_of_a_volume() -> None:
    with pytest.raises(OSError, match="symbolic link"):
        opened(Path("/proc/self"), "cwd")


def test_links_inside_a_volume_are_followed(tmp_path: Path) -> None:
    """An init container unpacks a release, and has ``current`` lead to it."""
    tmp_path.joinpath("releases", "5").mkdir(parents=True)
    tmp_path.joinpath("current").symlink_to("releases/5")
    tmp_path.joinpath("releases", "same").symlink_to("../releases/5")
    assert opened(tmp_path, "current") == tmp_path / "releases" / "5"
    assert opened(tmp_path, "releases/same") == tmp_path / "releases" / "5"


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        opened(tmp_path, "a/b")
