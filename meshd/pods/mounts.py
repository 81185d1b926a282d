"""Volumes inside a container's mount namespace, at paths that the host need not have.

Nothing is created in the host's own file system: where a path does not exist, the nearest existing
directory becomes a file system of the container's own, with its former content.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from meshd.pods import kernel

_SAFE: Final = kernel.MS_NOSUID | kernel.MS_NODEV


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """A mount; ``source`` is a volume's directory, of which ``sub_path`` is the part to be seen."""

    target: str
    source: Path
    sub_path: str = ""
    writable: bool = False


def open_sources(mounts: Iterable[Mount]) -> tuple[tuple[Mount, int], ...]:
    """Open the sources, as the volumes' directories are hidden later. Raises OSError."""
    return tuple((each, _open_inside(each.source, each.sub_path)) for each in mounts)


def _open_inside(volume: Path, sub_path: str) -> int:
    """Open a part of a volume.

    As in Kubernetes, symbolic links are followed inside the volume, and not out of it: a container
    may have put one there that leads to files of the host, or of another pod. Raises OSError.
    """
    directory = os.open(volume, os.O_PATH | os.O_CLOEXEC)
    try:
        return kernel.open_beneath(directory, str(PurePosixPath(sub_path)))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        message = f"subPath {sub_path} leads out of the volume by a symbolic link"
        raise OSError(error.errno, message) from None
    finally:
        os.close(directory)


def mount_volumes(opened: Iterable[tuple[Mount, int]]) -> None:
    """Mount volumes in a mount namespace of the container's own; outer paths first. Raises
    OSError."""
    own: set[int] = set()
    """Devices of the file systems that were mounted here for places."""
    for mount, descriptor in opened:
        source = Path(f"/proc/self/fd/{descriptor}")
        target = Path(os.path.realpath(mount.target))
        if not target.exists():
            _make_place(target, own, is_directory=source.is_dir())
        kernel.mount(str(source), str(target), flags=kernel.MS_BIND)
        limits = _SAFE | (0 if mount.writable else kernel.MS_RDONLY)
        kernel.mount("none", str(target), flags=kernel.MS_BIND | kernel.MS_REMOUNT | limits)


def _make_place(target: Path, own: set[int], *, is_directory: bool) -> None:
    nearest = next(parent for parent in target.parents if parent.is_dir())
    if nearest.stat().st_dev not in own:
        _take_over(nearest)
        own.add(nearest.stat().st_dev)
    directory = target if is_directory else target.parent
    directory.mkdir(parents=True, exist_ok=True)
    if not is_directory:
        target.touch()


def _take_over(directory: Path) -> None:
    """Put a file system of our own in a directory's place, with all that is in the directory."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(held)
        mode = os.fstat(held).st_mode & 0o7777
        options = f"mode={mode:o},size=1m"
        kernel.mount("tmpfs", str(directory), "tmpfs", _SAFE, options)
        if directory == Path("/"):
            _enter_root(held)
        for entry in os.scandir(held):
            with contextlib.suppress(FileNotFoundError):  # it may go while we look
                _show(entry, directory / entry.name, held)
    finally:
        os.close(held)
        os.chdir("/")


def _enter_root(held: int) -> None:
    """Make what was mounted on the root directory the root directory."""
    namespace = os.open("proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=held)
    kernel.enter(namespace, kernel.CLONE_NEWNS)
    os.close(namespace)
    os.fchdir(held)


def _show(entry: os.DirEntry[str], place: Path, held: int) -> None:
    """Show ``entry`` of the working directory, which was taken over, at a place."""
    if entry.is_symlink():
        place.symlink_to(os.readlink(entry.name, dir_fd=held))
        return
    if entry.is_dir(follow_symlinks=False):
        place.mkdir()
    else:
        place.touch()
    kernel.mount(entry.name, str(place), flags=kernel.MS_BIND | kernel.MS_REC)
