"""Expansion of variables, and what a container's process is started with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.model.kubernetes import Container, EnvVar
from meshd.testbed.environment import command, environment, expand, pod_fields, resolve
from meshd.testbed.images import Image

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


def test_a_variable_sees_those_before_it_only() -> None:
    found, _ = resolve(
        (
            EnvVar(name="A", value="$(B)"),
            EnvVar(name="B", value="2"),
            EnvVar(name="C", value="$(B)"),
        ),
        {},
    )
    assert found == {"A": "$(B)", "B": "2", "C": "2"}


def test_field_references_are_resolved_and_others_are_named() -> None:
    variables = (
        EnvVar(name="NAME", value_from={"fieldRef": {"fieldPath": "metadata.name"}}),
        EnvVar(name="IP", value_from={"fieldRef": {"fieldPath": "status.podIP"}}),
        EnvVar(name="APP", value_from={"fieldRef": {"fieldPath": "metadata.labels['app']"}}),
        EnvVar(name="NONE", value_from={"fieldRef": {"fieldPath": "metadata.labels['x']"}}),
        EnvVar(name="KEY", value_from={"secretKeyRef": {"name": "s", "key": "k"}}),
    )
    found, without = resolve(variables, FIELDS)
    assert found == {"NAME": "web-1", "IP": "198.18.0.10", "APP": "web", "NONE": ""}
    assert without == [4]


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
