"""The machine's limits are read where they are, in any kind of control group."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.proxy.machine import read

MIB = 1024 * 1024


def place(root: Path, files: dict[str, str]) -> Path:
    texts = {
        "proc/meminfo": "MemTotal:        2097152 kB\nMemFree: 1 kB\n",
        "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    }
    for name, text in (texts | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({}, 2048),
        ({"proc/self/cgroup": "0::/meshd.slice/meshd.service\n"}, 2048),
        (
            {
                "proc/self/cgroup": "0::/meshd.slice/meshd.service\n",
                "sys/fs/cgroup/meshd.slice/meshd.service/memory.max": "max\n",
                "sys/fs/cgroup/meshd.slice/memory.max": f"{512 * MIB}\n",
            },
            512,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/a/b\n0::/a\n",
                "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{300 * MIB}\n",
            },
            300,
        ),
    ],
)
def test_memory_is_the_least_of_what_machine_and_control_groups_have(
    tmp_path: Path, files: dict[str, str], memory: int
) -> None:
    assert read(place(tmp_path, files)).memory == memory * MIB


def test_what_is_not_there_is_not_known(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.memory, found.tracked, found.ports) == (0, 0, 0)


def test_the_kernels_own_limits_are_read(tmp_path: Path) -> None:
    tracked = {"proc/sys/net/netfilter/nf_conntrack_max": "65536\n"}
    found = read(place(tmp_path, tracked))
    assert found.tracked == 65536
    assert found.ports == 28231
    assert found.files == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def test_a_process_takes_all_open_files_that_it_may_have() -> None:
    program = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, 200));"
        "from meshd.proxy.machine import raise_open_files; raise_open_files();"
        "print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(200, 200)"
