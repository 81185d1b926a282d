from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.api.base import Key
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import list_at
from meshd.config import requests
from meshd.config.store import Store
from meshd.model.snapshot import MeshOptions
from meshd.registry import snapshots
from meshd.wire import Apply, Changed, DeleteNamed, Get, Named, Rejected
from tests.unit import storing

SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {ports: [{port: 9080}]}\n"
)
ROUTE = """\
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
      weight: 100
    timeout: 500ms
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
"""
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: b}]}\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "config.d").mkdir()
    return Store(tmp_path / "config.d", tmp_path / "lib")


def apply(store: Store, *texts: str, delete: bool = False, dry_run: bool = False) -> Changed:
    request = Apply((("-", "---\n".join(texts)),), delete=delete, dry_run=dry_run)
    answer = storing.apply(store, request)
    assert isinstance(answer, Changed), answer
    return answer


def rejection(store: Store, *texts: str, delete: bool = False) -> list[str]:
    request = Apply((("f.yaml", "---\n".join(texts)),), delete=delete)
    answer = storing.apply(store, request)
    assert isinstance(answer, Rejected), answer
    return [str(finding) for finding in answer.findings]


def test_applying_stores_and_says_what_changed(store: Store) -> None:
    answer = apply(store, SERVICE, RULE, ROUTE)
    assert [(change.kind, change.result) for change in answer.changes] == [
        ("Service", "created"),
        ("DestinationRule", "created"),
        ("VirtualService", "created"),
    ]
    assert answer.warnings == ()


def test_the_outcome_of_a_dry_run_is_what_applying_stores(store: Store) -> None:
    apply(store, SERVICE, RULE, ROUTE)
    request = Apply((("f.yaml", ROUTE.replace("500ms", "2s") + "---\n" + RULE),), dry_run=True)
    answer = storing.apply(store, request)
    assert isinstance(answer, Changed)
    changed = {Key(one.kind, one.namespace, one.name) for one in answer.changes[:1]}
    after, reads = requests.outcome(store.moment, request, changed)
    assert [str(key) for key in reads] == ["VirtualService default/reviews"]
    assert store.objects != after
    apply(store, ROUTE.replace("500ms", "2s"))
    assert store.objects == after


def test_the_outcome_of_a_deletion_lacks_what_is_deleted(store: Store) -> None:
    apply(store, SERVICE, RULE)
    key = Key("DestinationRule", "default", "reviews")
    after, reads = requests.outcome(
        store.moment, DeleteNamed((Named("dr", ("reviews",)),), dry_run=True), {key}
    )
    assert ([one.kind for one in after], reads) == (["Service"], {})


def test_the_order_of_applying_does_not_matter(store: Store) -> None:
    answer = apply(store, ROUTE)
    assert [warning.split(": ", 2)[2] for warning in answer.warnings] == [
        'spec.http[0].route[0].destination.host: "reviews" is not a Service or ServiceEntry '
        "(reviews.default.svc.cluster.local)",
        'spec.http[0].route[0].destination.subset: "v1" is in no DestinationRule for host reviews',
    ]
    assert apply(store, RULE, SERVICE).warnings == ()
    assert apply(store, ROUTE).warnings == ()


def test_an_object_of_another_namespace_than_asked_for_is_refused(store: Store) -> None:
    head = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n"
    text = head + "spec: {ports: [{port: 80}]}"
    request = Apply((("-", text),), namespace="other", only_namespace=True)
    answer = storing.apply(store, request)
    assert isinstance(answer, Rejected)
    assert "metadata.namespace: is not other, which -n says" in str(answer.findings[0])
    assert not store.objects


def test_one_error_leaves_everything_as_it_was(store: Store) -> None:
    assert rejection(store, SERVICE, ROUTE.replace("weight: 100", "weight: -1")) == [
        "f.yaml:14: VirtualService default/reviews: spec.http[0].route[0].weight: "
        "-1 is out of range; it must be from 0 to 2147483647"
    ]
    assert dict(store.objects) == {}


def test_errors_of_reading_and_of_validating_are_told_together(store: Store) -> None:
    broken = ROUTE.replace("weight: 100", "weight: -1")
    assert len(rejection(store, "kind: 5\n", broken, SERVICE.replace("9080", "0"))) == 3


def test_objects_of_testbeds_are_skipped_with_a_warning(store: Store) -> None:
    answer = apply(store, SERVICE, POD)
    assert [change.kind for change in answer.changes] == ["Service"]
    assert ["Pod" in warning for warning in answer.warnings] == [True]


def test_deleting_by_file_and_by_name(store: Store) -> None:
    apply(store, SERVICE, RULE, ROUTE)
    answer = apply(store, ROUTE, delete=True)
    assert [change.result for change in answer.changes] == ["deleted"]
    assert rejection(store, ROUTE, delete=True) == [
        "f.yaml:1: VirtualService default/reviews: not found"
    ]
    named = storing.delete_named(store, DeleteNamed((Named("svc", ("reviews",)),)))
    assert [(change.kind, change.result) for change in named.changes] == [("Service", "deleted")]
    assert [key.kind for key in store.objects] == ["DestinationRule"]


@pytest.mark.parametrize(
    "text",
    [
        ROUTE.replace("hosts:", "host:"),
        ROUTE.replace("v1alpha3", "v9"),
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\n",
    ],
)
def test_a_manifest_that_is_not_valid_deletes_what_it_names(store: Store, text: str) -> None:
    apply(store, ROUTE)
    answer = apply(store, text, delete=True)
    assert [change.result for change in answer.changes] == ["deleted"]
    assert answer.warnings
    assert len(rejection(store, text, delete=True)) > 0
    assert store.objects == {}


def test_a_manifest_of_another_api_group_deletes_nothing(store: Store) -> None:
    apply(store, SERVICE)
    knative = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: reviews}\n"
    assert "has no Service" in rejection(store, knative, delete=True)[0]
    assert [key.name for key in store.objects] == ["reviews"]


def test_an_empty_namespace_is_the_default_one(store: Store) -> None:
    storing.apply(store, Apply((("-", SERVICE),), namespace=""))
    assert [key.namespace for key in store.objects] == ["default"]


@pytest.mark.parametrize("ignore_missing", [False, True])
@pytest.mark.parametrize("is_named", [False, True])
def test_an_object_that_is_not_in_force_can_be_deleted_in_each_way(
    store: Store, *, is_named: bool, ignore_missing: bool
) -> None:
    apply(store, ROUTE)
    store.withhold(str)
    assert store.objects == {}
    if is_named:
        named = (Named("vs", ("reviews",)),)
        answer = storing.delete_named(store, DeleteNamed(named, ignore_missing=ignore_missing))
    else:
        written = Apply((("-", ROUTE),), delete=True, ignore_missing=ignore_missing)
        answer = storing.apply(store, written)
    assert isinstance(answer, Changed)
    assert [change.result for change in answer.changes] == ["deleted"]


def test_objects_of_several_kinds_are_deleted_together_or_not_at_all(store: Store) -> None:
    apply(store, SERVICE, RULE, ROUTE)
    several = (Named("svc", ("reviews",)), Named("dr", ("reviews", "reviews", "ratings")))
    with pytest.raises(InvalidInputError, match="DestinationRule default/ratings"):
        storing.delete_named(store, DeleteNamed(several))
    assert len(store.objects) == 3
    answer = storing.delete_named(store, DeleteNamed(several, ignore_missing=True))
    assert [change.kind for change in answer.changes] == ["Service", "DestinationRule"]


def test_an_object_that_lives_in_a_file_names_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "config.d" / "mine.yaml").write_text(SERVICE)
    store.refresh()
    (message,) = rejection(store, SERVICE)
    assert message.endswith(f"is in the file {tmp_path}/config.d/mine.yaml:1; change it there")


def test_objects_are_got_by_kind_name_and_namespace(store: Store) -> None:
    apply(store, SERVICE, RULE, ROUTE, SERVICE.replace("name: reviews", "name: a, namespace: b"))
    (route,) = requests.get(store.moment, Get("vs", "reviews", "default")).objects
    assert route["apiVersion"] == "networking.istio.io/v1"
    assert list_at(route, "spec", "http")[0] == {
        "route": [{"destination": {"host": "reviews", "subset": "v1"}, "weight": 100}],
        "timeout": "0.5s",
    }
    assert len(requests.get(store.moment, Get("services")).objects) == 2
    assert len(requests.get(store.moment, Get("services", namespace="b")).objects) == 1
    with pytest.raises(InvalidInputError, match="VirtualService default/x not found"):
        requests.get(store.moment, Get("vs", "x", "default"))
    with pytest.raises(
        InvalidInputError, match=r"unknown kind servces \(did you mean services\?\)"
    ):
        requests.get(store.moment, Get("servces"))


def test_applying_the_output_of_get_changes_nothing(store: Store) -> None:
    apply(store, SERVICE, RULE, ROUTE)
    texts = [json.dumps(found) for kind in ("svc", "dr", "vs")
             for found in requests.get(store.moment, Get(kind)).objects]  # fmt: skip
    answer = apply(store, *(text + "\n" for text in texts))
    assert {change.result for change in answer.changes} == {"unchanged"}


def test_validating_needs_no_store_and_sorts_by_place() -> None:
    text = POD.replace("containers: [{name: a, image: b}]", "containers: []") + "---\nkind: 5\n"
    findings = requests.validate_sources([("b.yaml", text), ("a.yaml", "a: [")])
    assert [(finding.file, finding.line) for finding in findings] == [
        ("a.yaml", 2),
        ("b.yaml", 4),
        ("b.yaml", 6),
    ]


def take(store: Store, cidr: str = "198.19.0.0/16") -> snapshots.Taken:
    taken = snapshots.take(snapshots.Given.of(store), [], MeshOptions(), cidr)
    store.keep_addresses(taken.addresses)
    return taken


def test_virtual_addresses_survive_a_restart(store: Store, tmp_path: Path) -> None:
    apply(store, SERVICE, SERVICE.replace("reviews", "ratings"))
    taken = take(store)
    assert taken.problems == ()
    before = {host: record.addresses for host, record in taken.snapshot.services.items()}
    again = Store(tmp_path / "config.d", tmp_path / "lib")
    apply(again, SERVICE.replace("reviews", "another"))
    after = take(again).snapshot.services
    assert before.items() <= {host: record.addresses for host, record in after.items()}.items()


def test_a_service_that_finds_no_address_is_named(store: Store) -> None:
    apply(store, *(SERVICE.replace("reviews", name) for name in ("a", "b", "c")))
    taken = take(store, "198.19.0.0/30")
    assert len(taken.problems) == 1
    assert "198.19.0.0/30 is full; widen mesh.service_cidr" in taken.problems[0]
    records = taken.snapshot.services.values()
    assert sorted(len(record.addresses) for record in records) == [0, 1, 1]
