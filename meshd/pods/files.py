"""The testbed's own directory: its layout, and the files of a pod."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path

from meshd.base.errors import NotReadyError, SystemRefusedError
from meshd.model.pod import PodPlan, VolumePlan
from meshd.pods import kernel
from meshd.pods.addresses import DNS_ADDRESS
from meshd.pods.network import host_link, remove_namespace, run_batch
from meshd.settings import Paths


def resolv_conf(namespace: str, domain: str) -> str:
    """Return the text of resolv.conf(5), as Kubernetes writes it."""
    search = f"{namespace}.svc.{domain} svc.{domain} {domain}"
    return f"nameserver {DNS_ADDRESS}\nsearch {search}\noptions ndots:5\n"


def hosts(plan: PodPlan) -> str:
    """Return the text of hosts(5)."""
    return (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        f"{plan.address}\t{plan.hostname}\n"
        f"{plan.address_v6}\t{plan.hostname}\n"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """The files of one testbed. Removing the directory removes them."""

    paths: Paths
    domain: str = "cluster.local"

    @property
    def directory(self) -> Path:
        return self.paths.run / "testbed"

    @property
    def lock(self) -> Path:
        """Return the file that the supervisor locks for as long as it lives; it holds the pid."""
        return self.paths.run / "testbed.lock"

    @property
    def socket(self) -> Path:
        return self.paths.run / "testbed.sock"

    @property
    def supervisor_log(self) -> Path:
        return self.paths.run / "testbed.log"

    @property
    def namespaces(self) -> Path:
        return self.directory / "netns"

    @property
    def hidden(self) -> tuple[Path, ...]:
        """Return the paths that no pod's process sees: keys and sockets."""
        return (self.paths.run, self.paths.lib, self.paths.etc)

    def netns(self, uid: str) -> Path:
        return self.namespaces / uid

    def pod(self, uid: str) -> Path:
        return self.directory / "pods" / uid

    def log(self, uid: str, container: str) -> Path:
        return self.pod(uid) / f"{container}.log"

    def mounted(self, uid: str) -> Mapping[str, Path]:
        return {
            "/etc/resolv.conf": self.pod(uid) / "resolv.conf",
            "/etc/hosts": self.pod(uid) / "hosts",
        }

    def volume(self, uid: str, name: str) -> Path:
        return self.pod(uid) / "volumes" / name

    def prepare(self, plan: PodPlan) -> None:
        directory = self.pod(plan.uid)
        directory.mkdir(parents=True, exist_ok=True)
        for volume in plan.volumes:
            self._fill(self.volume(plan.uid, volume.name), volume, plan.user)
        for mount in (mount for each in plan.every_container for mount in each.mounts):
            if mount.writable and mount.sub_path:
                part = self.volume(plan.uid, mount.volume) / mount.sub_path
                part.mkdir(parents=True, exist_ok=True)
                os.chown(part, plan.user, plan.user)
        (directory / "resolv.conf").write_text(resolv_conf(plan.namespace, self.domain))
        (directory / "hosts").write_text(hosts(plan))

    def _fill(self, directory: Path, volume: VolumePlan, user: int) -> None:
        """Write a volume's files, all owned by the pod's user.

        An image's user is mostly root: so a mode of 0400 means what its author meant.
        """
        directory.mkdir(parents=True, exist_ok=True)
        os.chown(directory, user, user)
        for file in volume.files:
            path = directory / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            private = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(private, "wb") as opened:
                opened.write(file.content)
                os.fchown(opened.fileno(), user, user)
                os.fchmod(opened.fileno(), file.mode & 0o777)

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Hold the lock of this testbed within the block. Raises NotReadyError."""
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NotReadyError(f"{self.directory} is in use by another process") from None
            if not self._is_current(descriptor):
                raise NotReadyError(f"{self.directory} was taken away just now; try again")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            yield
        finally:
            os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        """Return whether the lock is still the file of its name: ``forget`` removes it."""
        with contextlib.suppress(FileNotFoundError):
            return self.lock.stat().st_ino == os.fstat(descriptor).st_ino
        return False

    def owner(self) -> int | None:
        """Return the pid of the process that holds the lock."""
        try:
            with self.lock.open("rb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    text = lock.read()
                    return int(text) if text.isdigit() else 0
        except FileNotFoundError:
            pass
        return None

    def leftovers(self) -> tuple[str, ...]:
        """Return the uids of pods of which something is left."""
        found = {
            path.name for path in (self.namespaces, self.directory / "pods") for path in _in(path)
        }
        return tuple(sorted(found))

    def clear(self) -> None:
        """Take away all that a testbed leaves, however it ended. Needs the lock."""
        for path in _in(self.namespaces):
            remove_namespace(path)
        remove_namespace(self.directory / "switch")
        with contextlib.suppress(SystemRefusedError):
            # It goes with the switch's namespace, but some moments later.
            run_batch(f"link delete {host_link(self.directory)}\n")
        for point in kernel.mounts_below(self.directory):
            kernel.unmount(point)
        shutil.rmtree(self.directory, ignore_errors=True)

    def forget(self) -> None:
        """Remove the last files too. Needs the lock, and ends its use."""
        self.supervisor_log.unlink(missing_ok=True)
        self.lock.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.paths.run.rmdir()  # unless meshd lives there


def _in(directory: Path) -> tuple[Path, ...]:
    return tuple(directory.iterdir()) if directory.is_dir() else ()
