"""System calls that a proxy never makes, denied so that an attacker inside cannot make them either.

A proxy keeps CAP_SYS_ADMIN for setns(2) and CAP_NET_ADMIN for marks on its sockets; both allow far
more than that. The calls listed here are denied with EPERM, for the process and all that it starts.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from meshd.proxy.seccomp import Argument, Compare, Filter

_DENIED: Final = (
    # file systems and their namespaces
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "mount_setattr"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "swapon", "swapoff", "quotactl", "quotactl_fd"),
    *("name_to_handle_at", "open_by_handle_at", "mknod", "mknodat", "fanotify_init"),
    # namespaces of its own
    *("unshare",),
    # other processes, and the kernel
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"),
    *("bpf", "perf_event_open", "userfaultfd", "kexec_load", "kexec_file_load", "lookup_dcookie"),
    *("init_module", "finit_module", "delete_module", "iopl", "ioperm", "modify_ldt", "syslog"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    # keys
    *("add_key", "request_key", "keyctl"),
    # the machine
    *("reboot", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "acct", "vhangup"),
    *("sethostname", "setdomainname", "personality"),
)
_NEW_NAMESPACES: Final = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000
_MORE_NAMESPACES: Final = 0x20000000 | 0x40000000 | 0x00020000
"""CLONE_NEWCGROUP, UTS, IPC and USER; PID, NET and NS (sched.h)."""
_NETLINK_NETFILTER: Final = 12
_REPLACE_TABLE: Final = 64
"""IPT_SO_SET_REPLACE and IP6T_SO_SET_REPLACE (linux/netfilter_ipv4/ip_tables.h)."""
_DENIED_FAMILIES: Final = (
    socket.AF_PACKET,
    socket.AF_VSOCK,
    socket.AF_ALG,
    socket.AF_KEY,
    44,  # AF_XDP, which this Python does not name
)


def confine(*more: str) -> None:
    """Confine this process for ever; ``more`` system calls are denied, too. Raises OSError."""
    calls = Filter()
    for name in (*_DENIED, *more):
        calls.deny(errno.EPERM, name)
    for flag in _bits(_NEW_NAMESPACES | _MORE_NAMESPACES):
        calls.deny(errno.EPERM, "clone", [Argument(0, Compare.MASKED_EQUAL, flag, flag)])
    # Its flags are in memory, where no filter sees them: the C library then falls back to clone.
    calls.deny(errno.ENOSYS, "clone3")
    for family in _DENIED_FAMILIES:
        calls.deny(errno.EPERM, "socket", [_equal(0, family)])
    # The redirecting rules are the capture role's alone, in whichever tables.
    netlink = [_equal(0, socket.AF_NETLINK), _equal(2, _NETLINK_NETFILTER)]
    calls.deny(errno.EPERM, "socket", netlink)
    for level in (socket.IPPROTO_IP, socket.IPPROTO_IPV6):
        calls.deny(errno.EPERM, "setsockopt", [_equal(1, level), _equal(2, _REPLACE_TABLE)])
    calls.load()


def _equal(number: int, value: int) -> Argument:
    """Describe an ``int``: the kernel looks at the lower half of the register, a filter at all."""
    return Argument(number, Compare.MASKED_EQUAL, 0xFFFFFFFF, value)


def _bits(mask: int) -> list[int]:
    return [1 << bit for bit in range(32) if mask & (1 << bit)]
