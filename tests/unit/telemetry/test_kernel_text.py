"""What the kernel writes, as it writes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.telemetry import kernel_text

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"
TCP = f"""{HEAD} inode
   0: 00000000:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000   993        0 71 1 f
   1: 0247C612:9C40 0147C612:0050 01 00000000:00000000 00:00000000 00000000 20000        0 72 1 f
   2: 0247C612:9C42 0147C612:0050 06 00000000:00000000 03:00000000 00000000     0        0 0 3 f
   3: 0247C612:9C44 0147C612:0050 01 00000000:00000000 00:00000000 00000000     0        0 0 3 f
"""
DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo: 9000 90 0 0 0 0 0 0 9000 90 0 0 0 0 0 0
  eth0:1234 12 0 0 0 0 0 0 5678 10 0 0 0 0 0 0
"""
SS = (
    "0 0 198.18.71.2:40000 198.18.71.1:80 uid:33 ino:72 sk:1 cgroup:/x <-> cubic"
    " bytes_sent:700 bytes_retrans:50 bytes_acked:650 bytes_received:1500 segs_out:5\n"
    "0 0 127.0.0.1:22 127.0.0.1:5 ino:99 sk:2 <-> cubic rto:201\n"
    "0 0 127.0.0.1:23 127.0.0.1:6\n"
)
MOUNTS = """\
30 1 0:40 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/layers/a\\040b/diff,workdir=/w
31 30 0:41 / /proc rw,nosuid - proc proc rw
32 30 0:42 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw,size=65536k
33 30 8:1 /srv/data /var/lib/da\\040ta rw,relatime master:1 - ext4 /dev/sda1 rw
34 30 8:1 /srv/data /again rw,relatime - ext4 /dev/sda1 rw
35 30 8:1 /srv/image /app ro,relatime - ext4 /dev/sda1 rw
36 30 8:2 / /shared rw,relatime - xfs /dev/sda2 rw
37 30 8:1 /tmp/private /tmp rw,relatime - ext4 /dev/sda1 rw
"""


def test_only_connected_sockets_of_a_process_are_connections() -> None:
    assert list(kernel_text.established(TCP)) == [72]


def test_the_loopback_interface_carries_no_bytes_of_anybody() -> None:
    assert kernel_text.interfaces(DEV) == {"eth0": (1234, 5678)}


def test_bytes_of_a_connection_are_those_that_arrived() -> None:
    assert kernel_text.sockets(SS) == {72: (1500, 650), 99: (0, 0)}


def test_mounts_are_read_with_their_escapes() -> None:
    root, tmp, data, *_ = kernel_text.mounts(MOUNTS)
    assert (root.upper, root.is_temporary) == ("/layers/a b/diff", True)
    assert (tmp.point, tmp.is_temporary) == ("/tmp", True)
    assert (data.point, data.root, data.is_temporary) == ("/var/lib/da ta", "/srv/data", False)


def test_a_file_system_without_files_is_no_mount() -> None:
    assert "proc" not in {mount.kind for mount in kernel_text.mounts(MOUNTS)}


def test_only_what_is_written_and_not_shared_with_the_host_is_their_own() -> None:
    ours = kernel_text.mounts("36 1 8:2 / /home rw - xfs /dev/sda2 rw")
    points = [mount.point for mount in kernel_text.own_mounts(kernel_text.mounts(MOUNTS), ours)]
    assert points == ["/", "/tmp", "/var/lib/da ta", "/tmp"]


def test_a_private_directory_for_temporary_files_goes_with_the_service() -> None:
    assert kernel_text.mounts(MOUNTS)[-1].is_temporary


_Reader = Callable[[str], object]


def _established(text: str) -> object:
    return list(kernel_text.established(text))


_WHOLE: dict[_Reader, str] = {
    _established: TCP,
    kernel_text.interfaces: DEV,
    kernel_text.sockets: SS,
    kernel_text.mounts: MOUNTS,
}


@pytest.mark.parametrize("reader", list(_WHOLE))
def test_a_text_that_was_cut_off_is_read_as_far_as_it_goes(reader: _Reader) -> None:
    whole = _WHOLE[reader]
    for length in range(len(whole)):
        reader(whole[:length])


@pytest.mark.parametrize("reader", list(_WHOLE))
@given(st.text(st.sampled_from("0123456789: -/abcx\n\\"), max_size=200))
def test_no_text_is_an_exception(reader: _Reader, text: str) -> None:
    reader(text)
