"""What stands for an object that nodes cannot be told of is taken by no node."""

from __future__ import annotations

import pytest

from meshd.api import kinds
from meshd.api.base import Object
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.write import api_version
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.config import withheld
from meshd.config.admission import admit
from meshd.config.policy_digest import digest_of
from meshd.fleet.server import mcp, stand_ins


def value(kind: type[Object]) -> JsonObject:
    metadata: JsonObject = {
        "name": "a",
        "labels": {"istio-injection": "enabled"},
        "annotations": {},
    }
    if kind.NAMESPACED:
        metadata["namespace"] = "shop"
    return {"apiVersion": api_version(kind), "kind": kind.KIND, "metadata": metadata}


@pytest.mark.parametrize("kind", kinds.STORED, ids=lambda kind: kind.KIND)
def test_no_node_takes_an_object_of_which_only_the_name_is_told(kind: type[Object]) -> None:
    try:
        told = mcp.encode(stand_ins.named(value(kind)))
    except InvalidInputError:
        assert not stand_ins.opens_if_absent(value(kind))
        return
    received = mcp.decode(told.type_url, told.body)
    with pytest.raises(InvalidInputError):
        admit(received)
    assert withheld.key_of(received) == withheld.key_of(value(kind))
    if stand_ins.opens_if_absent(value(kind)):
        is_policy = withheld.in_place_of(kind.KIND, "shop", "a") is not None
        assert withheld.is_lost(received) is not is_policy


@pytest.mark.parametrize("form", [form for _, form in stand_ins.FORMS])
def test_whatever_stands_for_a_policy_carries_its_digest(form: stand_ins.Form) -> None:
    spec: JsonObject = {"portLevelMtls": {"80": {"mode": "STRICT"}}}
    whole: JsonObject = {**value(PeerAuthentication), "spec": spec}
    told = mcp.encode(form(whole))
    received = mcp.decode(told.type_url, told.body)
    assert digest_of(received) == digest_of(whole)
    assert digest_of(form(received)) == digest_of(whole)


def test_a_namespace_keeps_the_labels_that_tell_whether_its_workloads_are_in_the_mesh() -> None:
    whole = value(kinds.BY_NAME["namespace"])
    told = admit(stand_ins.without_metadata(whole))
    assert told.metadata.labels == {"istio-injection": "enabled"}
