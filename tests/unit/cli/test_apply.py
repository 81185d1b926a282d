"""apply and delete: what is sent, and what people and scripts read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.api.finding import Finding
from meshd.base.json_values import JsonObject

CHANGED = wire.Changed(
    (
        wire.Change("VirtualService", "default", "reviews", "created"),
        wire.Change("Service", "default", "reviews", "unchanged"),
    ),
    ("f.yaml:1: retired",),
)


@pytest.fixture(autouse=True)
def answers(daemon: Any) -> None:
    daemon.says(CHANGED)


def test_it_says_what_changed_as_kubectl_does(meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("a: 1")
    result = meshctl("apply", "-f", str(tmp_path / "f.yaml"))
    assert result.code == 0
    assert result.lines == [
        "virtualservice.networking.istio.io/reviews created",
        "service/reviews unchanged",
    ]
    assert result.err == "warning: f.yaml:1: retired\n"


@pytest.mark.parametrize(("words", "status"), [((), 1), (("--dry-run",), 2)])
def test_manifests_without_objects_are_an_error(
    words: tuple[str, ...], status: int, daemon: Any, meshctl: Any, tmp_path: Path
) -> None:
    daemon.says(wire.Changed(()))
    (tmp_path / "f.yaml").write_text("")
    result = meshctl("apply", "-f", str(tmp_path / "f.yaml"), *words)
    assert (result.code, result.out) == (status, "")
    assert result.err == "nothing was done: the manifests contain no objects\n"


def test_json_has_exactly_the_documented_fields(meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("a: 1")
    result = meshctl("apply", "-f", str(tmp_path / "f.yaml"), "-o", "json")
    assert json.loads(result.out)[0] == {
        "kind": "VirtualService",
        "namespace": "default",
        "name": "reviews",
        "result": "created",
    }


def test_options_reach_the_daemon(daemon: Any, meshctl: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a: 1")
    meshctl("apply", "-f", str(path), "-n", "shop", "--dry-run", "--wait", "--timeout", "1m30s")
    assert daemon.asked == [
        wire.Apply(
            ((str(path), "a: 1"),), namespace="shop", dry_run=True, wait=90.0, only_namespace=True
        )
    ]


def test_without_wait_nothing_is_waited_for(daemon: Any, meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("a: 1")
    meshctl("apply", "-f", str(tmp_path / "f.yaml"))
    assert daemon.asked[0].wait == 0


def test_a_dry_run_says_that_it_is_one(meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("a: 1")
    result = meshctl("apply", "--dry-run", "-f", str(tmp_path / "f.yaml"))
    assert result.lines[0].endswith("reviews created (dry run)")


EFFECT = wire.Effect(
    "changed",
    "route",
    "reviews.default.svc:9080",
    (wire.Detail("weight of v2", "", "20"),),
    namespaces=("default",),
    object="VirtualService default/reviews",
    field="spec.http[0].route[1]",
    place="f.yaml:9",
)
UNCHANGED = (wire.Change("Service", "default", "reviews", "unchanged"),)


def dry_run(meshctl: Any, tmp_path: Path, *options: str) -> Any:
    (tmp_path / "f.yaml").write_text("a: 1")
    return meshctl("apply", "--dry-run", "-f", str(tmp_path / "f.yaml"), *options)


def test_a_dry_run_tells_what_would_change(daemon: Any, meshctl: Any, tmp_path: Path) -> None:
    daemon.says(wire.Changed(CHANGED.changes, foreseen=wire.Foreseen((EFFECT,))))
    result = dry_run(meshctl, tmp_path)
    assert result.lines[2:] == [
        "route of reviews.default.svc:9080 in namespace default: weight of v2 0 → 20"
        " (VirtualService default/reviews spec.http[0].route[1], f.yaml:9)"
    ]


def test_a_dry_run_ends_like_kubectl_diff(daemon: Any, meshctl: Any, tmp_path: Path) -> None:
    daemon.says(wire.Changed(UNCHANGED, foreseen=wire.Foreseen()))
    result = dry_run(meshctl, tmp_path)
    assert (result.code, result.lines[-1]) == (
        0,
        "nothing would change for any workload in the mesh",
    )
    daemon.says(wire.Changed(CHANGED.changes, foreseen=wire.Foreseen((EFFECT,))))
    assert dry_run(meshctl, tmp_path).code == 1
    daemon.says(wire.Rejected((Finding("f.yaml", 1, "is no object"),)))
    result = dry_run(meshctl, tmp_path)
    assert (result.code, result.err) == (2, "f.yaml:1: is no object\n")


def test_a_dry_run_warns_of_what_would_be_left_out(
    daemon: Any, meshctl: Any, tmp_path: Path
) -> None:
    foreseen = wire.Foreseen((), left_out=("DestinationRule default/big: too much",))
    daemon.says(wire.Changed(UNCHANGED, foreseen=foreseen))
    result = dry_run(meshctl, tmp_path)
    assert "would be put out of force: DestinationRule default/big: too much" in result.err


def test_a_dry_run_in_json_has_the_effects(daemon: Any, meshctl: Any, tmp_path: Path) -> None:
    daemon.says(wire.Changed(CHANGED.changes, foreseen=wire.Foreseen((EFFECT,))))
    value = json.loads(dry_run(meshctl, tmp_path, "-o", "json").out)
    assert value["changes"][0]["result"] == "created"
    (effect,) = value["foreseen"][0]["effects"]
    assert effect["details"] == [{"fact": "weight of v2", "before": "", "after": "20"}]
    assert (effect["namespaces"], effect["place"]) == (["default"], "f.yaml:9")


def test_a_deletion_can_be_a_dry_run(daemon: Any, meshctl: Any) -> None:
    gone = wire.Change("VirtualService", "default", "reviews", "deleted")
    effect = wire.Effect("removed", "route", "reviews.default.svc:9080", namespaces=("a", "b"))
    daemon.says(wire.Changed((gone,), foreseen=wire.Foreseen((effect,))))
    result = meshctl("delete", "vs", "reviews", "--dry-run")
    assert (result.code, result.lines[-1]) == (
        1,
        "route of reviews.default.svc:9080 in namespaces a, b goes",
    )


def test_a_directory_stands_for_its_manifests(daemon: Any, meshctl: Any, tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json", "notes.txt", "sub/d.yaml"):
        path = tmp_path / "m" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    meshctl("apply", "-f", str(tmp_path / "m"))
    meshctl("apply", "-R", "-f", str(tmp_path / "m"))
    flat, deep = ([text for _, text in request.sources] for request in daemon.asked)
    assert flat == ["a.yaml", "b.yml", "c.json"]
    assert deep == ["a.yaml", "b.yml", "c.json", "sub/d.yaml"]


def test_files_and_standard_input_go_together(
    daemon: Any, meshctl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f.yaml").write_text("file")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"input")))
    meshctl("apply", "-f", str(tmp_path / "f.yaml"), "-f", "-")
    assert daemon.asked[0].sources == ((str(tmp_path / "f.yaml"), "file"), ("-", "input"))


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"x" * (8 * 1024 * 1024 + 1)])
def test_input_that_cannot_be_a_manifest_is_one_line(
    daemon: Any, meshctl: Any, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
    result = meshctl("apply", "-f", "-")
    assert (result.code, daemon.asked) == (1, [])
    assert result.err.startswith("-:1: ")
    assert result.err.count("\n") == 1


def test_a_missing_file_is_named_and_nothing_is_sent(daemon: Any, meshctl: Any) -> None:
    result = meshctl("apply", "-f", "/nowhere.yaml")
    assert (result.code, daemon.asked) == (1, [])
    assert result.err == "/nowhere.yaml: no such file or directory\n"


@pytest.mark.parametrize("verb", ["apply", "delete"])
@pytest.mark.parametrize("content", [None, b"\xff: 1"])
def test_a_file_that_cannot_be_used_is_an_error_of_a_dry_run(
    meshctl: Any, tmp_path: Path, verb: str, content: bytes | None
) -> None:
    path = tmp_path / "f.yaml"
    if content:
        path.write_bytes(content)
    result = meshctl(verb, "--dry-run", "-f", str(path))
    assert (result.code, result.err.startswith(str(path))) == (2, True)


def test_an_empty_directory_is_an_error(meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = meshctl("apply", "-f", str(tmp_path / "empty"))
    assert result.code == 1
    assert "no file there ends in" in result.err


def test_every_finding_of_a_rejection_is_a_line(daemon: Any, meshctl: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("a: 1")
    daemon.says(
        wire.Rejected(
            (
                Finding("f.yaml", 3, "is required", "Gateway", "default", "g", "spec.servers"),
                Finding("f.yaml", 9, "unknown field"),
            )
        )
    )
    result = meshctl("apply", "-f", str(tmp_path / "f.yaml"))
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == [
        "f.yaml:3: Gateway default/g: spec.servers: is required",
        "f.yaml:9: unknown field",
    ]


def test_delete_by_kind_and_names(daemon: Any, meshctl: Any) -> None:
    assert meshctl("delete", "vs", "reviews", "ratings", "-n", "shop").code == 0
    assert daemon.asked == [
        wire.DeleteNamed((wire.Named("VirtualService", ("reviews", "ratings")),), "shop")
    ]


def test_delete_by_kind_slash_name(daemon: Any, meshctl: Any) -> None:
    meshctl("delete", "vs/reviews", "destinationrule.networking.istio.io/ratings")
    assert daemon.asked == [
        wire.DeleteNamed(
            (
                wire.Named("VirtualService", ("reviews",)),
                wire.Named("DestinationRule", ("ratings",)),
            )
        )
    ]


def test_a_missing_object_is_no_error_with_ignore_not_found(
    daemon: Any, meshctl: Any, tmp_path: Path
) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a: 1")
    daemon.says(wire.Changed(()))
    named = meshctl("delete", "vs", "x", "--ignore-not-found")
    assert (named.code, named.lines, named.err) == (0, [], "")
    meshctl("delete", "-f", str(path), "--ignore-not-found")
    assert [request.ignore_missing for request in daemon.asked] == [True, True]


STORED: tuple[JsonObject, ...] = (
    {"kind": "VirtualService", "metadata": {"name": "a", "labels": {"team": "books"}}},
    {"kind": "VirtualService", "metadata": {"name": "b"}},
)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--all"], ("a", "b")),
        (["-l", "team=books"], ("a",)),
        (["-l", "!team"], ("b",)),
        (["-l", "team in (films)"], None),
    ],
)
def test_delete_by_labels_or_all(
    daemon: Any, meshctl: Any, options: list[str], names: tuple[str, ...] | None
) -> None:
    def answer(asked: wire.AnyMessage) -> wire.Message:
        return wire.Objects(STORED) if isinstance(asked, wire.Get) else wire.Changed(())

    daemon.answer = answer
    assert meshctl("delete", "vs", "-n", "shop", *options).code == 0
    wanted = [wire.DeleteNamed((wire.Named("VirtualService", names),), "shop")] if names else []
    assert daemon.asked == [wire.Get("VirtualService", "", "shop"), *wanted]


@pytest.mark.parametrize(
    "words", [["vs"], ["vs", "a", "--all"], ["vs", "-l", "a b"], ["vs", "-l", "=a"]]
)
def test_a_manifest_without_names_deletes_nothing(
    daemon: Any, meshctl: Any, words: list[str]
) -> None:
    assert meshctl("delete", *words).code == 2
    assert daemon.asked == []


@pytest.mark.parametrize(
    ("words", "dry"),
    [
        (["apply", "--dry-run=client", "-n", "a"], True),
        (["apply", "--dry-run=server", "-n", "a"], True),
        (["apply", "--dry-run=none", "-n", "a"], False),
        (["-n", "a", "apply"], False),
        (["--namespace=a", "apply", "--dry-run"], True),
    ],
)
def test_options_are_taken_as_kubectl_takes_them(
    daemon: Any, meshctl: Any, tmp_path: Path, words: list[str], dry: bool
) -> None:
    (tmp_path / "f.yaml").write_text("a: 1")
    # The configuration of CHANGED would change, which is the status of a dry run.
    assert meshctl(*words, "-f", str(tmp_path / "f.yaml")).code == int(dry)
    (asked,) = daemon.asked
    assert (asked.namespace, asked.dry_run) == ("a", dry)


def test_delete_by_manifest(daemon: Any, meshctl: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a: 1")
    meshctl("delete", "-f", str(path))
    assert daemon.asked == [wire.Apply(((str(path), "a: 1"),), delete=True)]


def test_name_prints_names_only(meshctl: Any) -> None:
    result = meshctl("delete", "vs", "reviews", "-o", "name")
    assert result.lines == ["virtualservice.networking.istio.io/reviews", "service/reviews"]
