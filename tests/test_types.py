"""Tests the check of types: mistakes with Envoy's messages are found, and ours are up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PROTOS: Final = ROOT / "meshd" / "protos"
DESCRIPTORS: Final = ROOT / "build" / "stubs" / "descriptors"

MISTAKES: Final = {
    "a misspelt field": 'route_components_pb2.RouteMatch(prefx="/")',
    "a wrong type": "cluster_pb2.Cluster(name=5)",
    "a wrong enum": "cluster_pb2.Cluster(type=cluster_pb2.Cluster.LEAST_REQUEST)",
    "a misspelt attribute": "cluster_pb2.Cluster().lb_polcy = cluster_pb2.Cluster.RANDOM",
    "a misspelt attribute of what the compiler returns": "wellknown.seconds(1).secnds = 2",
    "a misspelt field of our own message": "on_demand_secret_pb2.Config(config_sorce={})",
}
CORRECT: Final = (
    'route_components_pb2.RouteMatch(prefix="/")',
    'cluster_pb2.Cluster(name="a", type=cluster_pb2.Cluster.EDS)',
    "cluster_pb2.Cluster().lb_policy = cluster_pb2.Cluster.RANDOM",
    "wellknown.seconds(1).seconds = 2",
)
IMPORTS: Final = (
    "from envoy.config.cluster.v3 import cluster_pb2",
    "from envoy.config.route.v3 import route_components_pb2",
    "from meshd.compile.envoy import wellknown",
    "from meshd.protos import on_demand_secret_pb2",
)


def test_mistakes_with_messages_are_found_and_nothing_else(tmp_path: Path) -> None:
    lines = [*IMPORTS, *CORRECT, *MISTAKES.values()]
    planted = tmp_path / "planted.py"
    planted.write_text("\n".join(lines) + "\n", encoding="utf-8")

    assert {lines[number] for number in _lines_with_errors(planted)} == set(MISTAKES.values())


def _lines_with_errors(path: Path) -> set[int]:
    """As the check of the whole tree finds them, with the project's own settings."""
    command = [sys.executable, "-m", "pyright", "--outputjson", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return {
        found["range"]["start"]["line"]
        for found in json.loads(done.stdout)["generalDiagnostics"]
        if found["severity"] == "error"
    }


@pytest.mark.parametrize("source", sorted(path.stem for path in PROTOS.glob("*.proto")))
def test_generated_modules_are_what_the_proto_files_give(source: str, tmp_path: Path) -> None:
    path = f"meshd/protos/{source}"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "--proto_path=."),
            *(f"--descriptor_set_in={DESCRIPTORS}", f"--python_out={tmp_path}", f"{path}.proto"),
        ],
        cwd=ROOT,
        check=True,
    )
    module = f"{path}_pb2.py"
    assert _descriptor(ROOT / module) == _descriptor(tmp_path / module), "make protos"


def _descriptor(module: Path) -> list[str]:
    """All that a generated module says, without the version of what has written it."""
    lines = module.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("DESCRIPTOR = ")]
