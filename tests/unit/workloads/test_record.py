from __future__ import annotations

import json
import stat
from pathlib import Path

import msgspec
import pytest

from meshd.base.errors import SystemRefusedError
from meshd.model.workload import NamedPort, Workload
from meshd.workloads.lifecycle import Life, Phase
from meshd.workloads.record import Loaded, Record, Renamed, load, save

_WORKLOAD = Workload(
    uid="default.reviews",
    name="reviews",
    namespace="default",
    netns="/run/netns/reviews",
    labels={"app": "reviews"},
    addresses=("198.18.0.7", "fd00:198::7"),
    ports=(NamedPort("http", 9080),),
)
_RECORD = Record(
    registered={_WORKLOAD.uid: _WORKLOAD},
    lives={_WORKLOAD.uid: Life(_WORKLOAD, Phase.CAPTURED, "former")},
)


def test_saved_records_are_loaded_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "workloads.json"
    save(path, Record())
    save(path, _RECORD)
    assert load(path) == Loaded(_RECORD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_file_nothing_is_registered(tmp_path: Path) -> None:
    assert load(tmp_path / "workloads.json") == Loaded()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b'{"other": 1}', b'{"registered": {'],
)
def test_a_file_that_is_no_record_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "workloads.json"
    path.write_bytes(content)
    found = load(path, keep=True)
    assert found == Loaded(lost=found.lost)
    assert found.lost.startswith(str(path))
    assert "\n" not in found.lost
    assert (tmp_path / "workloads.json.damaged-1").read_bytes() == content
    assert load(path, keep=True) == found  # and no second copy of the same
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "workloads.json"
    save(path, _RECORD)
    (tmp_path / ".workloads.json.new").mkdir()
    with pytest.raises(SystemRefusedError, match=str(path)):
        save(path, Record())
    assert load(path) == Loaded(_RECORD)


def test_a_workload_that_cannot_be_used_costs_itself_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "workloads.json"
    save(path, _RECORD)
    content = json.loads(path.read_bytes())
    good = next(iter(content["registered"].values()))
    content["registered"]["mesh.bad"] = good | {"uid": "mesh.bad", "addresses": ["not-an-ip"]}
    content["lives"]["mesh.worse"] = 1
    path.write_text(json.dumps(content))
    content["registered"]["mesh.other"] = good
    path.write_text(json.dumps(content))
    found = load(path, keep=True)
    assert found.record == _RECORD
    assert found.problems.keys() == {"mesh.bad", "mesh.worse", "mesh.other"}
    assert all(problem.startswith(f"{path}: ") for problem in found.problems.values())
    assert json.loads((tmp_path / "workloads.json.damaged-1").read_text()) == content
    assert found.unusable["mesh.bad"].netns == _WORKLOAD.netns


def test_a_workload_of_another_node_that_has_not_changed_stays_the_same_object() -> None:
    """So that what follows from it can be told to be the same without a look at it."""
    web, db = (
        Workload(uid=f"shop.{name}", name=name, namespace="shop", netns="", node="other")
        for name in ("web", "db")
    )
    renamed = Renamed()
    before = renamed.all([web, db])
    changed = msgspec.structs.replace(db, addresses=("198.18.5.3",))
    after = renamed.all([changed, msgspec.structs.replace(web)])
    assert after[1] is before[0]
    assert after[0].addresses == ("198.18.5.3",)
    assert [one.uid for one in before] == ["other/shop.web", "other/shop.db"]
