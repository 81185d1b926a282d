"""validate: offline, every error, with file, line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

GOOD: Final = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - name: v1
    labels: {version: v1}
---
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{name: http, port: 9080}]}
"""


def test_a_valid_file_needs_no_daemon(meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(GOOD)
    result = meshctl("validate", "-f", str(tmp_path / "f.yaml"))
    assert (result.code, result.out) == (0, "valid\n")


@pytest.mark.parametrize(
    "text", ["", "# nothing\n---\n", "apiVersion: v1\nkind: List\nitems: []\n"]
)
def test_manifests_without_objects_are_an_error(meshctl: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    result = meshctl("validate", "-f", str(path))
    assert (result.code, result.out) == (1, "")
    assert result.err == f"{path}:1: the manifest contains no objects\n"


def test_a_file_without_objects_may_stand_beside_others(meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    (tmp_path / "good.yaml").write_text(GOOD)
    result = meshctl("validate", "-f", str(tmp_path))
    assert (result.code, result.out, result.err) == (0, "valid\n", "")


def test_every_error_is_told_with_its_place(meshctl: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(GOOD.replace("host:", "hots:").replace("- name: v1", "- name: 1"))
    result = meshctl("validate", "-f", str(path))
    assert (result.code, result.out) == (1, "")
    places = {line.split(": ")[0] for line in result.err.splitlines()}
    assert {f"{path}:5", f"{path}:7"} <= places


def test_json_has_exactly_the_documented_fields(meshctl: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(GOOD.replace("host: reviews", "host: [reviews]"))
    result = meshctl("validate", "-f", str(path), "-o", "json")
    assert result.code == 1
    (finding,) = json.loads(result.out)
    assert list(finding) == [
        "file",
        "line",
        "kind",
        "namespace",
        "name",
        "field",
        "severity",
        "message",
    ]
    assert (finding["file"], finding["line"]) == (str(path), 5)
    assert (finding["kind"], finding["field"]) == ("DestinationRule", "spec.host")


def test_a_valid_file_is_an_empty_list(meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(GOOD)
    result = meshctl("validate", "-f", str(tmp_path / "f.yaml"), "-o", "json")
    assert (result.code, json.loads(result.out)) == (0, [])


def test_text_that_is_not_yaml_is_a_finding(meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("a: [1,\n")
    result = meshctl("validate", "-f", str(tmp_path / "f.yaml"), "-o", "json")
    assert result.code == 1
    assert "not YAML" in json.loads(result.out)[0]["message"]


def test_a_missing_file_is_a_finding(meshctl: Any) -> None:
    result = meshctl("validate", "-f", "/nowhere.yaml", "-o", "json")
    assert result.code == 1
    assert json.loads(result.out)[0]["file"] == "/nowhere.yaml"
