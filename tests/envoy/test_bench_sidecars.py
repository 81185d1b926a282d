"""The proxies take the configuration of the sidecars that the bench compares meshd with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.bench import sidecars
from tests.envoy.captured.place import ENVOY
from tests.waiting import PATIENCE

KINDS = {"http": 8080, "tcp": 9000, "http2": 8090, "grpc": 8091}
PORTS = {"http": 80, "tcp": 90, "http2": 91, "grpc": 92}


@pytest.mark.parametrize("istio", [False, True])
def test_both_sides_are_valid(tmp_path: Path, *, istio: bool) -> None:
    sidecars.write_certificates(tmp_path)
    sidecars.write_bootstraps(tmp_path, "198.18.0.9", KINDS, PORTS, istio=istio)
    for side in ("client", "server"):
        config = str(tmp_path / f"{side}.json")
        done = subprocess.run(
            [str(ENVOY), "--mode", "validate", "--config-path", config],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr[-2000:]
