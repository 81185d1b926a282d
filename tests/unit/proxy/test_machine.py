"""The machine's limits are read where they are, in any kind of control group."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"sys/fs/cgroup/a.slice/a.service/cpu.max": "max 100000\n"}, 16),
        ({"sys/fs/cgroup/a.slice/cpu.max": "250000 100000\n"}, 3),
        ({"sys/fs/cgroup/a.slice/cpu.max": "20000 100000\n"}, 1),
        ({"sys/fs/cgroup/a.slice/cpu.max": "6400000 100000\n"}, 16),
        (
            {
                "sys/fs/cgroup/a.slice/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a.slice/a.service/cpu.max": "800000 100000\n",
            },
            4,
        ),
        ({"sys/fs/cgroup/other.slice/cpu.max": "100000 100000\n"}, 16),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/a\n0::/b\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/a\n0::/b\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
    ],
)
def test_cores_are_those_that_every_control_group_leaves(
    tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    own = {"proc/self/cgroup": "0::/a.slice/a.service\n"}
    assert read(place(tmp_path, own | files), usable=16).cores == cores


@pytest.mark.parametrize(
    ("line", "group"),
    [
        ("0::/a.slice/b@c:d.service", "a.slice/b@c:d.service"),
        ("0::/a\udcff/b", "a\udcff/b"),
        ("0::/../../a", ""),
        ("4:cpuacct,cpu:/a\n5:cpuacct,memory:/a", "cpu/a memory/a"),
        ("5:cpuset:/x:cpu:y\n4:cpu:/a\n3:memory:/a", "cpu/a memory/a"),
        ("4:cpu,cpuacct:/docker/a\n5:memory:/docker/a", "cpu,cpuacct memory"),
    ],
)
def test_control_groups_have_any_names_and_any_controllers_beside_theirs(
    tmp_path: Path, line: str, group: str
) -> None:
    limits = {"memory.limit_in_bytes": 512 * MIB, "cpu.cfs_quota_us": 3, "cpu.cfs_period_us": 1}
    if line.startswith("0::"):
        limits = {"memory.max": 512 * MIB, "cpu.max": "3 1"}
    for name in group.split(" "):
        place(tmp_path, {f"sys/fs/cgroup/{name}/{limit}": f"{limits[limit]}\n" for limit in limits})
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_bytes(os.fsencode(f"{line}\n"))
    found = read(tmp_path, usable=16)
    assert (found.cores, found.memory) == (3, 512 * MIB)


def test_cores_are_no_more_than_the_process_may_run_on() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from meshd.proxy.machine import read; print(read().cores)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


def test_limits_that_no_file_of_the_kernel_tells_are_not_known(tmp_path: Path) -> None:
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
