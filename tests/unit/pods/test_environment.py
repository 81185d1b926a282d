"""Expansion of variables, and what a container's process is started with."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.kubernetes.types import Container, DataReference, EnvFromSource, EnvVar, EnvVarSource
from meshd.api.read import read_objects
from meshd.pods.environment import command, environment, expand, pod_fields, resolve
from meshd.pods.images import Image
from meshd.pods.lookup import DataObjects, Lookup

NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
VALUES = st.text(max_size=12)
FIELDS = pod_fields(
    name="web-1",
    namespace="shop",
    uid="shop.web-1",
    service_account="web",
    node="n1",
    addresses=("198.18.0.10", "fd00:198::1"),
    host_address="198.18.0.2",
    labels={"app": "web"},
    annotations={},
)


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.text(max_size=30))
def test_a_text_is_found_again_when_its_dollars_are_doubled(
    variables: dict[str, str], text: str
) -> None:
    assert expand(text.replace("$", "$$"), variables) == text


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.data())
def test_a_reference_becomes_the_value_wherever_it_stands(
    variables: dict[str, str], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(variables)))
    assert expand(f"<$({name})>", variables) == f"<{variables[name]}>"


@given(NAMES, st.dictionaries(NAMES, VALUES, max_size=4))
def test_a_reference_to_nothing_stays_as_it_is(name: str, variables: dict[str, str]) -> None:
    variables.pop(name, None)
    assert expand(f"$({name})", variables) == f"$({name})"


def test_a_doubled_dollar_keeps_a_reference_from_being_expanded() -> None:
    assert expand("$$(A) $(A) $$$(A) $A $(", {"A": "1"}) == "$(A) 1 $1 $A $("


def test_a_value_is_not_expanded_a_second_time() -> None:
    assert expand("$(A)", {"A": "$(B)", "B": "no"}) == "$(B)"


def resolved(
    *env: EnvVar, env_from: tuple[EnvFromSource, ...] = (), data: str = ""
) -> tuple[dict[str, str], Lookup]:
    pod = (
        "{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop},"
        " spec: {containers: [{name: c, image: i}]}}"
    )
    (read,) = read_objects(pod, "pod.yaml")
    objects = [one.object for one in read_objects(data, "data.yaml", "shop")]
    lookup = Lookup(read, ("spec",), DataObjects.of(objects))
    container = Container(name="c", image="i", env=env, env_from=env_from)
    return resolve(("containers", 0), container, FIELDS, lookup), lookup


def referring(name: str, **source: Any) -> EnvVar:
    return EnvVar(name=name, value_from=msgspec.convert(source, EnvVarSource))


def test_a_variable_sees_those_before_it_only() -> None:
    found, _ = resolved(
        EnvVar(name="A", value="$(B)"),
        EnvVar(name="B", value="2"),
        EnvVar(name="C", value="$(B)"),
    )
    assert found == {"A": "$(B)", "B": "2", "C": "2"}


def test_field_references_are_resolved_and_others_are_named() -> None:
    found, lookup = resolved(
        referring("NAME", fieldRef={"fieldPath": "metadata.name"}),
        referring("IP", fieldRef={"fieldPath": "status.podIP"}),
        referring("APP", fieldRef={"fieldPath": "metadata.labels['app']"}),
        referring("NONE", fieldRef={"fieldPath": "metadata.labels['x']"}),
        referring("ALL", fieldRef={"fieldPath": "metadata.labels"}),
        referring("CPU", resourceFieldRef={"resource": "limits.cpu"}),
    )
    assert found == {"NAME": "web-1", "IP": "198.18.0.10", "APP": "web", "NONE": ""}
    assert lookup.notes == [
        f"pod.yaml:1: Pod shop/web-1: spec.containers[0].env[{index}]: {what} is left out in the "
        "testbed"
        for index, what in ((4, "ALL (metadata.labels)"), (5, "CPU (resourceFieldRef)"))
    ]


DATA = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {LEVEL: debug, url: "http://$(LEVEL)"}
binaryData: {raw: gICA}
---
apiVersion: v1
kind: Secret
metadata: {name: db}
data: {password: aHVudGVyMg==}
stringData: {user: root}
"""


def test_variables_come_from_config_maps_and_secrets() -> None:
    found, lookup = resolved(
        referring("PASSWORD", secretKeyRef={"name": "db", "key": "password"}),
        referring("USER", secretKeyRef={"name": "db", "key": "user"}),
        referring("LEVEL", configMapKeyRef={"name": "settings", "key": "LEVEL"}),
        EnvVar(name="DSN", value="$(USER):$(PASSWORD)"),
        data=DATA,
    )
    assert found == {
        "PASSWORD": "hunter2",
        "USER": "root",
        "LEVEL": "debug",
        "DSN": "root:hunter2",
    }
    assert not lookup.findings


def test_all_entries_become_variables_which_own_ones_win_over() -> None:
    found, _ = resolved(
        EnvVar(name="DB_user", value="own-$(DB_password)"),
        env_from=(
            EnvFromSource(prefix="DB_", secret_ref=DataReference(name="db")),
            EnvFromSource(config_map_ref=DataReference(name="none", optional=True)),
        ),
        data=DATA,
    )
    assert found == {"DB_password": "hunter2", "DB_user": "own-hunter2"}


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            {"secretKeyRef": {"name": "none", "key": "k"}},
            "secretKeyRef: no Secret shop/none in these manifests or the mesh",
        ),
        (
            {"secretKeyRef": {"name": "db", "key": "pasword"}},
            'secretKeyRef: Secret shop/db has no "pasword" (it has: password, user)',
        ),
        (
            {"configMapKeyRef": {"name": "none", "key": "k"}},
            "configMapKeyRef: no ConfigMap shop/none in these manifests; "
            "add the file that has it with -f",
        ),
        (
            {"configMapKeyRef": {"name": "settings", "key": "raw"}},
            "configMapKeyRef: is not text, which a variable's value has to be; mount it as a "
            "volume",
        ),
    ],
)
def test_missing_references_are_named_unless_they_are_optional(
    source: dict[str, dict[str, Any]], problem: str
) -> None:
    found, lookup = resolved(referring("A", **source), data=DATA)
    assert found == {}
    (finding,) = lookup.findings
    assert str(finding).endswith(f"spec.containers[0].env[0].valueFrom.{problem}")
    ((field, reference),) = source.items()
    if reference["key"] != "raw":
        optional = {field: reference | {"optional": True}}
        found, lookup = resolved(referring("A", **optional), data=DATA)
        assert (found, lookup.findings) == ({}, [])


def test_the_command_of_a_container_replaces_the_images_command_and_arguments() -> None:
    image = Image(command=("entry",), args=("default",))
    own = Container(name="c", image="i", command=("mine", "$(A)"))
    assert command(image, own, {"A": "1"}) == ("mine", "1")


def test_the_args_of_a_container_replace_the_images_arguments_only() -> None:
    image = Image(command=("entry",), args=("default",))
    assert command(image, Container(name="c", image="i"), {}) == ("entry", "default")
    own = Container(name="c", image="i", args=("mine",))
    assert command(image, own, {}) == ("entry", "mine")


def test_the_environment_of_a_container_wins_over_the_images() -> None:
    found = environment(Image(env={"A": "image", "B": "image"}), {"A": "own"}, "web-1")
    assert (found["A"], found["B"], found["HOSTNAME"]) == ("own", "image", "web-1")
