from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.analysis.validate import check_fields
from meshd.api.base import Duration, Key
from meshd.api.kubernetes.types import Deployment, Service
from meshd.api.networking import VirtualService
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.read import RejectedError, read_objects, read_sources
from meshd.api.write import from_json, to_json
from meshd.base.json_values import list_at, mapping_at, value_at

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: reviews
  labels: {app: reviews}
  creationTimestamp: null
spec:
  selector: {app: reviews}
  ports:
  - {port: 9080, name: http, targetPort: 9081}
status:
  loadBalancer: {}
"""
ROUTE = """\
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
    timeout: 1m30s
"""


def said(text: str) -> list[str]:
    return [str(finding) for finding in read_sources([("f.yaml", text)]).findings]


def test_objects_come_with_the_place_they_were_written() -> None:
    service, route = read_objects(SERVICE + "---\n" + ROUTE, "f.yaml")
    assert isinstance(service.object, Service)
    assert service.object.key == Key("Service", "default", "reviews")
    assert service.place == "f.yaml:1"
    assert isinstance(route.object, VirtualService)
    assert route.object.spec.http[0].timeout == Duration(90)
    finding = route.finding(("spec", "http", 0, "route", 0, "destination", "subset"), "is odd")
    assert str(finding) == (
        "f.yaml:21: VirtualService shop/reviews: spec.http[0].route[0].destination.subset: is odd"
    )


def test_a_namespace_that_is_missing_is_the_default_one() -> None:
    service, route = read_objects(SERVICE + "---\n" + ROUTE, "f.yaml", "prod")
    assert service.object.metadata.namespace == "prod"
    assert route.object.metadata.namespace == "shop"


def test_a_list_holds_objects_with_places_of_their_own() -> None:
    text = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: a}
  spec: {ports: [{port: x}]}
- apiVersion: v1
  kind: ServiceAccount
  metadata: {name: b}
"""
    reading = read_sources([("f.yaml", text)])
    assert [read.place for read in reading.objects] == ["f.yaml:8"]
    assert [str(finding) for finding in reading.findings] == [
        "f.yaml:7: Service a: spec.ports[0].port: expected a whole number, not a text"
    ]


@pytest.mark.parametrize("version", ["v1alpha3", "v1beta1", "v1"])
def test_every_version_of_the_networking_api_is_read(version: str) -> None:
    (read,) = read_objects(ROUTE.replace("v1alpha3", version), "f.yaml")
    assert read.object.key == Key("VirtualService", "shop", "reviews")


def test_status_of_an_istio_object_is_passed_over_and_other_strays_are_not() -> None:
    assert said(ROUTE + "status: {observedGeneration: 1}\n") == []
    assert said(ROUTE + "hosts: [x]\n") == [
        "f.yaml:10: VirtualService shop/reviews: hosts: unknown field "
        "(known: apiVersion, kind, metadata, spec, status)"
    ]


def test_nulls_are_as_good_as_not_written() -> None:
    text = SERVICE.replace("labels: {app: reviews}", "labels:").replace("{app: reviews}", "")
    (read,) = read_objects(text, "f.yaml")
    assert read.object.metadata.labels == {}


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: x}\n",
            [
                "f.yaml:1: Deployment x: apiVersion: extensions/v1beta1 Deployment was retired; "
                "write apiVersion: apps/v1"
            ],
        ),
        (
            "apiVersion: rbac.istio.io/v1alpha1\nkind: ServiceRole\nmetadata: {name: x}\n",
            [
                "f.yaml:1: ServiceRole x: apiVersion: rbac.istio.io/v1alpha1 ServiceRole was "
                "retired: write an AuthorizationPolicy of security.istio.io/v1"
            ],
        ),
        (
            "apiVersion: config.istio.io/v1alpha2\nkind: RouteRule\nmetadata: {name: x}\n",
            [
                "f.yaml:1: RouteRule x: apiVersion: config.istio.io/v1alpha2 RouteRule was "
                "retired: write a VirtualService of networking.istio.io/v1"
            ],
        ),
        (
            "apiVersion: networking.istio.io/v2\nkind: Gateway\nmetadata: {name: x}\n",
            [
                "f.yaml:1: Gateway x: apiVersion: unknown version networking.istio.io/v2 of "
                "Gateway (known: networking.istio.io/v1alpha3, networking.istio.io/v1beta1, "
                "networking.istio.io/v1)"
            ],
        ),
        (
            "apiVersion: v1\nkind: Gateway\nmetadata: {name: x}\n",
            ["f.yaml:1: Gateway x: apiVersion: v1 has no Gateway (write networking.istio.io/v1)"],
        ),
        (
            "kind: Service\nmetadata: {name: x}\n",
            ["f.yaml:1: Service x: apiVersion: is required, a text such as v1"],
        ),
        (
            "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: x}\n",
            [
                "f.yaml:2: WasmPlugin x: kind: this version of meshd does not read "
                "WasmPlugin; leave it out"
            ],
        ),
        ("just text\n", ["f.yaml:1: not an object: apiVersion, kind and metadata are missing"]),
        (
            "- a\n- b\n",
            [
                f"f.yaml:{line}: not an object: apiVersion, kind and metadata are missing"
                for line in (1, 2)
            ],
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: Foo_1}\n",
            [
                'f.yaml:3: Service default/Foo_1: metadata.name: "Foo_1" is not a DNS label: at '
                'most 63 of a-z, 0-9 and "-", beginning and ending with a letter or digit'
            ],
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {generateName: x-}\n",
            [
                "f.yaml:3: Service default/: metadata.name: is required; "
                "generateName is not supported"
            ],
        ),
        (
            "apiVersion: v1\nkind: List\nitems: 5\n",
            ["f.yaml:3: items: the items of a List are a list"],
        ),
        (
            "apiVersion: v1\nkind: List\nitems: {}\n",
            ["f.yaml:3: items: the items of a List are a list"],
        ),
    ],
)
def test_an_unreadable_manifest_is_one_clear_line(text: str, messages: list[str]) -> None:
    assert said(text) == messages


def test_an_unknown_kind_names_the_nearest_and_all_known() -> None:
    (message,) = said("apiVersion: v1\nkind: Srvice\nmetadata: {name: x}\n")
    assert message.startswith(
        "f.yaml:2: Srvice x: kind: unknown kind Srvice of v1 (did you mean Service?); known are "
    )
    assert "VirtualService" in message


def test_all_errors_of_a_text_are_found() -> None:
    text = (
        SERVICE.replace("port: 9080", "port: many")
        + "---\napiVersion: v1\nkind: Nothing\n---\n"
        + ROUTE.replace("subset", "subst").replace("timeout", "timeut")
    )
    messages = said(text)
    assert len(messages) == 4
    assert [message.split(":")[1] for message in messages] == ["10", "15", "24", "25"]


def test_yaml_errors_of_one_source_leave_the_others_looked_at() -> None:
    reading = read_sources([("a.yaml", "a: ["), ("b.yaml", SERVICE), ("c.yaml", "kind: 5")])
    assert [finding.file for finding in reading.findings] == ["a.yaml", "c.yaml"]
    assert len(reading.objects) == 1


def test_an_object_written_twice_names_both_places() -> None:
    reading = read_sources([("a.yaml", SERVICE), ("b.yaml", "---\n" + SERVICE)])
    assert [str(finding) for finding in reading.findings] == [
        "b.yaml:2: Service default/reviews: is written twice, first at a.yaml:1; remove one"
    ]


def test_a_namespace_given_to_what_has_none_is_a_warning() -> None:
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, namespace: x}\n"
    reading = read_sources([("f.yaml", text)])
    assert [finding.severity for finding in reading.findings] == ["warning"]
    assert reading.objects[0].object.key == Key("Namespace", "", "shop")


def test_reading_raises_with_a_line_for_each_error() -> None:
    with pytest.raises(RejectedError) as caught:
        read_objects("kind: 5\n---\nkind: 6\n", "f.yaml")
    assert len(str(caught.value).splitlines()) == 2


def test_a_deployment_keeps_what_runs_it() -> None:
    text = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1, labels: {app: reviews}}
spec:
  replicas: 2
  strategy: {type: Recreate}
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}, annotations: {a: b}}
    spec:
      serviceAccountName: bookinfo-reviews
      volumes: [{name: tmp, emptyDir: {}}]
      containers:
      - name: reviews
        image: example/reviews:1
        imagePullPolicy: IfNotPresent
        args: [--port, "9080"]
        env: [{name: LOG_DIR, value: /tmp/logs}]
        ports: [{containerPort: 9080, name: http}]
        securityContext: {runAsUser: 1000}
        readinessProbe: {httpGet: {path: /health, port: http}, periodSeconds: 1}
"""
    (read,) = read_objects(text, "f.yaml")
    assert isinstance(read.object, Deployment)
    spec = read.object.spec.template.spec
    assert read.object.spec.replicas == 2
    assert spec.service_account_name == "bookinfo-reviews"
    assert spec.containers[0].env[0].value == "/tmp/logs"
    assert spec.containers[0].readiness_probe is not None


# ---- the retired authentication policy

OLD = """\
apiVersion: authentication.istio.io/v1alpha1
kind: Policy
metadata: {name: reviews}
spec:
"""


def translated(text: str) -> list[PeerAuthentication]:
    objects = (read.object for read in read_objects(text, "f.yaml"))
    return [found for found in objects if isinstance(found, PeerAuthentication)]


@pytest.mark.parametrize(
    ("peers", "mode"),
    [
        ("[{mtls: {}}]", "STRICT"),
        ("[{mtls: }]", "STRICT"),
        ("[{mtls: {mode: STRICT}}]", "STRICT"),
        ("[{mtls: {mode: PERMISSIVE}}]", "PERMISSIVE"),
        ("[]", "DISABLE"),
    ],
)
def test_a_policy_of_a_namespace_is_translated(peers: str, mode: str) -> None:
    (policy,) = translated(f"{OLD}  peers: {peers}\n")
    assert policy.key == Key("PeerAuthentication", "default", "reviews")
    assert policy.spec.selector is None
    assert policy.spec.mtls is not None
    assert policy.spec.mtls.mode == mode


def test_a_mesh_policy_is_translated_into_the_root_namespace() -> None:
    text = OLD.replace("kind: Policy", "kind: MeshPolicy") + "  peers: [{mtls: {}}]\n"
    (policy,) = translated(text)
    assert policy.key == Key("PeerAuthentication", "istio-system", "reviews")


def test_targets_become_selectors_of_their_services() -> None:
    text = f"{SERVICE}---\n{OLD}  targets: [{{name: reviews, ports: [{{number: 9080}}]}}]\n"
    (policy,) = translated(text + "  peers: [{mtls: {}}]\n")
    assert policy.spec.selector is not None
    assert policy.spec.selector.match_labels == {"app": "reviews"}
    assert {port: mtls.mode for port, mtls in (policy.spec.port_level_mtls or {}).items()} == {
        9081: "STRICT"
    }


def test_a_service_that_is_stored_already_is_found() -> None:
    known = {read.object.key: read.object for read in read_objects(SERVICE, "s.yaml")}
    text = OLD + "  targets: [{name: reviews}]\n  peers: [{mtls: }]\n"
    reading = read_sources([("f.yaml", text)], known=known)
    assert len(reading.objects) == 1
    assert [finding.severity for finding in reading.findings] == ["warning"]
    assert "PeerAuthentication default/reviews" in reading.findings[0].message


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("  targets: [{name: nowhere}]\n", "Service default/nowhere is not known"),
        ("  origins: [{jwt: {}}]\n", "checks of end users' tokens cannot"),
        (
            "  peers: [{jwt: {}}]\n",
            "checks of tokens cannot be translated; write a RequestAuthentication",
        ),
        ("  peers: {}\n  tragets: []\n", "unknown field"),
        ("  peers: [{mtls: {mode: SOME}}]\n", "SOME is not a mode"),
        ("  peers: [5]\n", "expected a mapping"),
        ("  - 5\n", "expected a mapping"),
    ],
)
def test_untranslatable_objects_are_reported(spec: str, message: str) -> None:
    (said_,) = said(OLD + spec)
    assert message in said_
    kind = "RequestAuthentication" if "tokens" in message else "PeerAuthentication"
    assert f"write a {kind} of security.istio.io/v1" in said_


# ---- whatever people hand in

_WORDS = st.sampled_from(
    [
        "apiVersion: v1\n",
        "apiVersion: networking.istio.io/v1\n",
        "apiVersion: authentication.istio.io/v1alpha1\n",
        "kind: Service\n",
        "kind: VirtualService\n",
        "kind: Policy\n",
        "kind: List\n",
        "items: [{}, 5, {kind: Service}]\n",
        "metadata: {name: a}\n",
        "metadata: 7\n",
        "metadata: {name: [x], labels: 5}\n",
        "spec: {hosts: [a], http: [{match: [{headers: {a: {exact: 1}}}]}]}\n",
        "spec: {ports: [{port: 1}], peers: [{mtls: {}}], targets: [{name: 5}]}\n",
        "spec: 5\n",
        "---\n",
        "- x\n",
    ]
)


@given(st.lists(_WORDS, max_size=8).map("".join) | st.text(max_size=100))
def test_any_text_is_read_or_its_errors_told(text: str) -> None:
    with contextlib.suppress(RejectedError):
        read_objects(text, "f.yaml")


def test_objects_survive_being_written_and_read_back() -> None:
    for read in read_objects(SERVICE + "---\n" + ROUTE, "f.yaml"):
        assert from_json(to_json(read.object)) == read.object


def test_written_objects_have_the_newest_version_and_leave_out_defaults() -> None:
    (route,) = read_objects(ROUTE, "f.yaml")
    written = to_json(route.object)
    assert list(written) == ["apiVersion", "kind", "metadata", "spec"]
    assert written["apiVersion"] == "networking.istio.io/v1"
    (http,) = list_at(written, "spec", "http")
    assert value_at(http, "timeout") == "90s"
    assert "gateways" not in mapping_at(written, "spec")


@pytest.mark.parametrize("kind", ["Role", "Ingress", "Job", "Endpoints"])
def test_a_kind_without_meaning_here_is_passed_over_with_a_line(kind: str) -> None:
    other = f"apiVersion: x.k8s.io/v1\nkind: {kind}\nmetadata: {{name: y}}\n---\n"
    reading = read_sources([("f.yaml", other + SERVICE)])
    assert [read.object.KIND for read in reading.objects] == ["Service"]
    (finding,) = reading.findings
    assert str(finding) == f"f.yaml:1: {kind} default/y: ignored: a {kind} has no meaning here"
    assert finding.severity == "warning"


def test_json_output_of_get_can_be_read_again() -> None:
    first = '[{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}},\n'
    second = ' {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "B"}, "spec": {}}]'
    reading = read_sources([("-", first + second)])
    assert [read.object.metadata.name for read in reading.objects] == ["a"]
    (error,) = reading.errors
    assert (error.line, error.field) == (2, "metadata.name")


def test_a_translated_policy_is_as_good_as_a_written_one() -> None:
    found = check_fields(read_sources([("f.yaml", OLD + "  peers: [{mtls: {}}]\n")]).objects)
    assert found == ()


@pytest.mark.parametrize("head", ["", "apiVersion: v1, kind: Service, "])
def test_the_items_of_a_list_of_one_kind_need_not_say_it(head: str) -> None:
    item = f"{{{head}metadata: {{name: a}}, spec: {{ports: [{{port: 80}}]}}}}"
    text = f"apiVersion: v1\nkind: ServiceList\nitems:\n- {item}\n"
    (found,) = read_objects(text, "f.yaml")
    assert str(found.object.key) == "Service default/a"


def test_a_list_without_items_has_none() -> None:
    assert read_objects("apiVersion: v1\nkind: List\n", "f.yaml") == ()
