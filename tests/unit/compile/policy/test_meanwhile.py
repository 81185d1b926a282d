"""Until a change of policies is compiled, a workload takes what both the old and the new allow."""

from __future__ import annotations

import random

import msgspec
import pytest

from meshd.api.base import Key
from meshd.compile.explain.authorization import Facts, facts_of, judge
from meshd.compile.plan.authorization import (
    Asking,
    Authorization,
    Field,
    Peer,
    RequestPrincipal,
    Rule,
    Text,
)
from meshd.compile.plan.origin import Origin
from meshd.compile.policy.authorization import authorization, by_namespace, of_connections
from meshd.compile.policy.meanwhile import MOST_PAIRS, meanwhile
from meshd.model.extension_provider import AuthorizationProvider
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload
from tests.envoy.authorization import policies

OPTIONS = MeshOptions(trust_domain=policies.TRUST_DOMAIN, root_namespace=policies.ROOT)
LABELS = {"app": "web"}
SERVER = Workload(uid="w", name="w", namespace="shop", netns="", labels=LABELS)


def rules(chance: random.Random) -> Authorization | None:
    chosen = policies.policies(chance, LABELS) if chance.random() < 0.9 else ()
    return authorization(by_namespace(chosen), SERVER, OPTIONS)


def changed(chance: random.Random, before: Authorization | None) -> Authorization | None:
    """Other rules, or most of these."""
    now = rules(chance)
    if before is None or now is None or chance.random() < 0.5:
        return now
    kept = tuple(one for one in before.allow or () if chance.random() < 0.7)
    return Authorization(deny=before.deny[1:], allow=(*kept, *(now.allow or ())) or None)


@pytest.mark.parametrize("seed", range(200))
def test_what_is_taken_meanwhile_is_what_both_allow(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    before = rules(chance)
    now = changed(chance, before)
    both = meanwhile(before, now)
    for _ in range(5):
        case = policies.case(chance, 5)
        call = Facts(
            peer=case.peer,
            client=case.client,
            server=case.server,
            port=case.port,
            server_name=case.server_name,
        )
        for request in case.requests:
            facts = facts_of(call, request)
            allowed = [judge(one, facts).allowed for one in (before, now, both)]
            assert allowed[2] is (allowed[0] and allowed[1])
        said = [judge(one and of_connections(one), call).allowed for one in (before, now, both)]
        assert said[2] is (said[0] and said[1])


@pytest.mark.parametrize("seed", range(50))
def test_no_rule_of_a_filter_hides_another_one(seed: int) -> None:
    """Rules of a filter are told apart by their names."""
    chance = random.Random(seed)  # noqa: S311
    before = rules(chance)
    both = meanwhile(before, changed(chance, before)) or Authorization()
    for of_filter in (both.deny, both.allow or ()):
        named: dict[str, Rule] = {}
        for one in of_filter:
            assert named.setdefault(one.name, one) == one


def fitting(name: str, index: int) -> Rule:
    key = Key("AuthorizationPolicy", "shop", name)
    peer = Field((Peer(Text("exact", f"{name}-{index}")),))
    return Rule(origin=Origin(key, f"spec.rules[{index}]"), clauses=(((peer,),),))


def test_what_allows_no_more_than_before_is_as_it_was_and_what_adds_a_rule_is_as_it_will_be() -> (
    None
):
    narrow = Authorization(deny=(fitting("d", 0),), allow=(fitting("a", 0),))
    wide = Authorization(allow=(fitting("a", 0), fitting("a", 1)))
    assert meanwhile(narrow, wide) is narrow
    assert meanwhile(narrow, None) is narrow
    assert meanwhile(wide, narrow) == narrow
    assert meanwhile(None, narrow) is narrow
    assert meanwhile(narrow, narrow) is narrow


def asking(name: str, *rules: Rule) -> Authorization:
    provider = AuthorizationProvider(name=name, host="p.test", port=90, speaks="grpc")
    identity = Identity("mesh.test", "shop", "web")
    return Authorization(
        asking=Asking(provider=provider, rules=rules, identity=identity, address="")
    )


def test_a_provider_is_asked_about_what_either_asks() -> None:
    before, now = asking("x", fitting("a", 0), fitting("b", 0)), asking("x", fitting("b", 0))
    deny = (fitting("d", 0),)
    assert meanwhile(Authorization(), now) == now
    assert meanwhile(before, Authorization(deny=deny)) == msgspec.structs.replace(before, deny=deny)
    assert meanwhile(before, now) is before
    both = meanwhile(now, asking("x", fitting("c", 0)))
    assert both is not None
    assert both.asking is not None
    assert [one.clauses for one in both.asking.rules] == [
        fitting("c", 0).clauses,
        fitting("b", 0).clauses,
    ]
    # Of two providers, one can be asked: the other one waits.
    assert meanwhile(before, asking("y", fitting("c", 0))) is before


def test_policies_that_need_tokens_wait_for_the_filters_that_read_them() -> None:
    nobody = Field((RequestPrincipal(Text("present"), Text("present")),), negated=True)
    asking = msgspec.structs.replace(fitting("d", 0), clauses=(((nobody,),),))
    before = Authorization(allow=(fitting("a", 0),))
    assert meanwhile(before, Authorization(deny=(asking,))) is before
    assert meanwhile(None, Authorization(allow=(asking,))) is None


def test_of_too_many_rules_only_what_is_denied_does_not_wait() -> None:
    many = range(int(MOST_PAIRS**0.5) + 1)
    before = Authorization(allow=tuple(fitting("a", index) for index in many))
    allow = tuple(fitting("b", index) for index in many)
    now = Authorization(deny=(fitting("d", 0),), allow=allow)
    assert meanwhile(before, now) == Authorization(deny=now.deny, allow=before.allow)
