"""Of the connections that are open when rules change, those end that were allowed and are not."""

from __future__ import annotations

import pytest

from meshd.api.read import read_objects
from meshd.compile.explain.denied import Change, Rules, denied, peers
from meshd.compile.policy.authorization import authorization, by_namespace
from meshd.compile.policy.served import Spoken
from meshd.model.open_connection import OpenConnection
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot

SERVER = Workload(
    uid="shop.web",
    name="web",
    namespace="shop",
    netns="/n/web",
    addresses=("198.18.1.9", "FD00:0::9"),
)
PORTS = {8080: Spoken.HTTP, 9000: Spoken.OPAQUE, 7000: Spoken.SNIFFED}
ALICE, BOB, OUTSIDE = "198.18.1.1", "198.18.1.2", "198.18.1.3"
NOBODY_ELSE = "{rules: [{from: [{source: {principals: ['*/ns/front/sa/alice']}}]}]}"
NOT_ALICE = "{action: DENY, rules: [{from: [{source: {principals: ['*/ns/front/sa/alice']}}]}]}"
NO_PUT = "{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}"
GET_ONLY = "{rules: [{to: [{operation: {methods: [GET]}}]}]}"


def client(name: str, address: str) -> Workload:
    return Workload(
        uid=f"front.{name}",
        name=name,
        namespace="front",
        netns="/n",
        service_account=name,
        addresses=(address,),
    )


KNOWN = peers((client("alice", ALICE), client("bob", BOB), SERVER), "cluster.local")


def rules(spec: str) -> Rules:
    """None: there is no policy."""
    if not spec:
        return None
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
    snapshot = build_snapshot(
        [one.object for one in read_objects(text, "p.yaml")], (SERVER,), MeshOptions(), {}
    )
    policies = by_namespace(snapshot.authorization_policies)
    return authorization(policies, SERVER, snapshot.options)


def ended(*specs: str, port: int = 9000, server: str = "198.18.1.9") -> set[str]:
    """The clients whose connections end when the last of these comes after the others."""
    *before, now = map(rules, specs)
    every = [OpenConnection(one, 40000, server, port) for one in (ALICE, BOB, OUTSIDE)]
    return {one.client for one in denied(Change(SERVER, PORTS, tuple(before), now), every, KNOWN)}


@pytest.mark.parametrize("port", [9000, 7000, 1234])
@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        (("", NOT_ALICE), {ALICE}),
        (("", NOBODY_ELSE), {BOB, OUTSIDE}),
        (("", "{}"), {ALICE, BOB, OUTSIDE}),
        (("{rules: [{}]}", NOBODY_ELSE), {BOB, OUTSIDE}),
        (("", NOT_ALICE, NOT_ALICE), {ALICE}),
        ((NOT_ALICE, "", NOBODY_ELSE), {BOB, OUTSIDE}),
        ((NOT_ALICE, ""), set[str]()),
        (("{}", NOT_ALICE), set[str]()),
        (("", f"{{rules: [{{from: [{{source: {{ipBlocks: [{OUTSIDE}]}}}}]}}]}}"), {ALICE, BOB}),
    ],
)
def test_connections_that_are_denied_now_end(
    specs: tuple[str, ...], expected: set[str], port: int
) -> None:
    assert ended(*specs, port=port) == expected


def test_a_client_that_former_rules_did_not_allow_is_not_who_its_address_says() -> None:
    assert ended(NOBODY_ELSE, "{}") == {ALICE}


def test_requests_are_judged_by_proxies() -> None:
    assert ended("", "{}", port=8080) == set()


@pytest.mark.parametrize("spec", [NO_PUT, GET_ONLY])
def test_what_only_requests_have_ends_what_can_have_no_requests(spec: str) -> None:
    assert ended("", spec) == {ALICE, BOB, OUTSIDE}
    assert ended("", spec, port=7000) == set()


def test_both_families_are_judged() -> None:
    assert ended("", "{}", server="fd00::9") == {ALICE, BOB, OUTSIDE}


def test_connections_of_which_too_little_is_known_stay() -> None:
    twice = peers((client("alice", ALICE), client("bob", ALICE)), "cluster.local")
    change = Change(SERVER, PORTS, (None,), rules("{}"))
    own, other = SERVER.addresses[0], OpenConnection(BOB, 1, "198.18.1.77", 9000)
    every = [OpenConnection(ALICE, 1, own, 9000), OpenConnection(own, 2, own, 9000), other]
    assert not list(denied(change, every, twice))
    named = rules("{rules: [{when: [{key: connection.sni, values: [x]}]}]}")
    change = Change(SERVER, PORTS, (None,), named)
    assert not list(denied(change, [OpenConnection(BOB, 1, own, 9000)], KNOWN))
