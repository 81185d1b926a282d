"""Pods are told by the control groups that kubelet has made, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.capture.pods.located import pod_of, processes

UID = "0b1c2d3e-0000-4000-8000-00000000000a"
OTHER = "ffffffff-0000-4000-8000-00000000000b"
STATIC = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("path", "uid"),
    [
        (f"/kubepods/burstable/pod{UID}/abc", UID),
        (f"/kubepods/pod{UID}", UID),
        (f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-abc.scope", UID),
        (
            "/kubepods.slice/kubepods-besteffort.slice/"
            f"kubepods-besteffort-pod{UID.replace('-', '_')}.slice/cri-abc.scope",
            UID,
        ),
        (f"/kubelet/kubepods/besteffort/pod{STATIC}/abc", STATIC),
        (f"/kubepods/pod{UID}/abc/pod{OTHER}/x", UID),
        (f"/kubepods/tripod{UID}/abc", ""),
        (f"/kubepods/pod{UID}x/abc", ""),
        ("/system.slice/podman.service", ""),
        ("/", ""),
    ],
)
def test_the_first_group_of_a_pod_says_whose_process_it_is(path: str, uid: str) -> None:
    assert pod_of(f"12:memory:/\n4:cpu:{path}\n0::/") == uid
    assert pod_of(f"0::{path}\n") == uid


def test_processes_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    groups = {
        "30": f"0::/kubepods/pod{UID}/b",
        "7": f"0::/kubepods/pod{UID}/a",
        "8": f"0::/kubepods/pod{OTHER}/a",
        "9": "0::/",
        "self": f"0::/kubepods/pod{UID}/c",
    }
    for pid, text in groups.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cgroup").write_text(text)
    (tmp_path / "10").mkdir()  # it has just ended
    assert list(processes({UID}, tmp_path)) == [(UID, 7), (UID, 30)]
