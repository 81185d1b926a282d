"""The links between pods: a bridge in a namespace of its own, a pair of links for each pod.

Pure functions write text for ``ip -batch``; the class runs it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.pods import kernel, source_guard
from meshd.pods.addresses import DNS_ADDRESS, HOST, SWITCH, Subnet

_POD_SYSCTLS: Final = {
    "net/ipv4/ip_unprivileged_port_start": "0",  # as container runtimes have it
    "net/ipv4/ping_group_range": "0 2147483647",
}

_SWITCH_SYSCTLS: Final = {
    "net/ipv4/icmp_ratelimit": "0",  # refuses each DNS query, not only the first of a second
}


def _write_sysctls(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        Path("/proc/sys", name).write_text(value, encoding="ascii")


def _link_name(prefix: str, *parts: str) -> str:
    """Return a name of at most 15 bytes (IFNAMSIZ), the same for the same parts."""
    return prefix + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def host_link(directory: Path) -> str:
    """Return the host's end of the link to the testbed in a directory."""
    return _link_name("mtb-", str(directory))


def pod_port(uid: str) -> str:
    """Return the switch's end of a pod's link."""
    return _link_name("p", uid)


def switch_batch(subnet: Subnet, uplink: str, host_namespace: int) -> str:
    """Return the batch for the switch's namespace: the bridge, and a link to the host.

    The DNS address exists so that pods outside the mesh are refused at once, not after a minute.
    The bridge has a hardware address of its own: otherwise it takes the lowest of its ports', which
    changes whenever such a port comes or goes, and pods send to the former one until they ask
    again, half a minute later. Nothing gets through the gateway until then, nor answers to probes.
    """
    length, length_v6 = subnet.network.prefixlen, subnet.prefix_v6
    own = f"address {subnet.hardware_address(SWITCH)}"
    return f"""\
link set lo up
link add br0 {own} type bridge stp_state 0 forward_delay 0 mcast_snooping 0
address add {subnet.address(SWITCH)}/{length} dev br0
address add {subnet.address_v6(SWITCH)}/{length_v6} dev br0 nodad
address add {DNS_ADDRESS}/32 dev br0
link set br0 up
link add uplink type veth peer name {uplink} netns /proc/self/fd/{host_namespace}
link set uplink master br0 up
"""


def host_batch(subnet: Subnet, uplink: str) -> str:
    """Return the batch for the host's namespace: it joins the testbed's network, and routes
    nothing."""
    return f"""\
address add {subnet.address(HOST)}/{subnet.network.prefixlen} dev {uplink}
address add {subnet.address_v6(HOST)}/{subnet.prefix_v6} dev {uplink} nodad
link set {uplink} up
"""


def port_batch(uid: str, pod_namespace: Path, hardware_address: str) -> str:
    """Return the batch for a pod's link, inside the switch's namespace."""
    port = pod_port(uid)
    return f"""\
link add {port} type veth peer name eth0 address {hardware_address} netns {pod_namespace}
link set {port} master br0 up
"""


def pod_batch(subnet: Subnet, number: int) -> str:
    """Return the batch for the pod's namespace.

    The gateway is known in advance, so that no pod on the switch can claim to be it.
    """
    length, length_v6 = subnet.network.prefixlen, subnet.prefix_v6
    gateway = f"lladdr {subnet.hardware_address(SWITCH)} dev eth0 nud permanent"
    return f"""\
link set lo up
address add {subnet.address(number)}/{length} dev eth0
address add {subnet.address_v6(number)}/{length_v6} dev eth0 nodad
link set eth0 up
neigh replace {subnet.address(SWITCH)} {gateway}
neigh replace {subnet.address_v6(SWITCH)} {gateway}
route add default via {subnet.address(SWITCH)}
route add default via {subnet.address_v6(SWITCH)}
"""


@contextlib.contextmanager
def entered(namespace: Path) -> Generator[None]:
    """Have this thread in the namespace within the block, which must not await."""
    with _descriptor("/proc/thread-self/ns/net") as own, _descriptor(str(namespace)) as target:
        kernel.enter(target, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            kernel.enter(own, kernel.CLONE_NEWNET)


def create_namespace(path: Path) -> None:
    """Make a network namespace that lives for as long as it is mounted at ``path``."""
    path.touch(mode=0o600)
    with _descriptor("/proc/thread-self/ns/net") as own:
        kernel.unshare(kernel.CLONE_NEWNET)
        try:
            kernel.mount("/proc/thread-self/ns/net", str(path), flags=kernel.MS_BIND)
        finally:
            kernel.enter(own, kernel.CLONE_NEWNET)


def remove_namespace(path: Path) -> None:
    """Let a namespace go, and end whatever still runs in it. Nothing is done when it is gone."""
    ended: set[int] = set()
    # Again, for what was being started meanwhile by a process that was ended.
    while _is_mounted(path) and (running := set(kernel.processes_in(path)) - ended):
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended |= running
    while _is_mounted(path):
        kernel.unmount(str(path))
    path.unlink(missing_ok=True)


def _is_mounted(path: Path) -> bool:
    return str(path) in kernel.mounts_below(path)


@contextlib.contextmanager
def _descriptor(path: str) -> Generator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def run_batch(text: str, *, descriptors: tuple[int, ...] = ()) -> None:
    """Let ``ip`` do it in the namespace that this thread is in. Raises SystemRefusedError."""
    try:
        done = subprocess.run(
            ["ip", "-batch", "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=descriptors,
        )
    except FileNotFoundError:
        raise SystemRefusedError("there is no program ip; install iproute2") from None
    if done.returncode != 0:
        reason = " ".join(done.stderr.split())
        raise SystemRefusedError(f"the testbed's network cannot be made: ip says: {reason}")


class Network:
    """The switch and its pods' links. ``directory`` is the testbed's own."""

    def __init__(self, directory: Path, subnet: Subnet) -> None:
        self._subnet = subnet
        self.switch = directory / "switch"
        self._uplink = host_link(directory)

    def create(self) -> None:
        """Raises SystemRefusedError, OSError."""
        create_namespace(self.switch)
        with _descriptor("/proc/thread-self/ns/net") as host:
            with entered(self.switch):
                _write_sysctls(_SWITCH_SYSCTLS)
                run_batch(switch_batch(self._subnet, self._uplink, host), descriptors=(host,))
            run_batch(host_batch(self._subnet, self._uplink))

    def add(self, uid: str, namespace: Path, number: int) -> None:
        """Make a pod's namespace, and join it to the switch."""
        create_namespace(namespace)
        sender = source_guard.Sender(
            pod_port(uid),
            self._subnet.hardware_address(number),
            self._subnet.address(number),
            self._subnet.address_v6(number),
        )
        with entered(self.switch):
            source_guard.write(source_guard.admitted(sender))
            run_batch(port_batch(uid, namespace, sender.hardware_address))
        with entered(namespace):
            _write_sysctls(_POD_SYSCTLS)
            run_batch(pod_batch(self._subnet, number))

    def remove(self, uid: str, namespace: Path) -> None:
        """Undo ``add``, whether it was done in full or in part. The link goes at once."""
        with contextlib.suppress(SystemRefusedError), entered(self.switch):
            run_batch(f"link delete {pod_port(uid)}\n")
        with contextlib.suppress(SystemRefusedError), entered(self.switch):
            source_guard.write(source_guard.removed(pod_port(uid)))
        remove_namespace(namespace)
