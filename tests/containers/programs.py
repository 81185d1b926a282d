"""Where the programs of a cluster are: Kubernetes' own binary, and those of Debian's packages.

The packages are unpacked only: installing them would start a container runtime on this host.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[2]
DEBIAN: Final = CHECKOUT / "build" / "containers"
"""What ``.ci/setup containers`` has unpacked."""
CNI: Final = DEBIAN / "usr/lib/cni"
BUSYBOX: Final = DEBIAN / "bin/busybox"
PATH: Final = tuple(DEBIAN / place for place in ("usr/local/bin", "usr/sbin", "usr/bin"))
NAMES: Final = (
    *("etcd", "kube-apiserver", "kube-controller-manager"),
    *("kube-proxy", "kube-scheduler", "kubelet"),
)


def kubernetes() -> Path:
    """Return the binary. Raises AssertionError if it has not been built."""
    done = subprocess.run(
        [CHECKOUT / ".ci/kube", "path"], capture_output=True, text=True, check=True
    )
    binary = Path(done.stdout.strip())
    assert binary.exists(), f"{binary} is not there: run make kube"
    return binary


def unpacked(program: str) -> Path:
    """Return the path of a program of Debian's. Raises AssertionError if it is not there."""
    found = next((place / program for place in PATH if (place / program).exists()), None)
    assert found, f"{program} is not below {DEBIAN}: run .ci/setup containers"
    return found
