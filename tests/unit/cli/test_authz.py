"""authz: what is asked, and how the answer is shown."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from meshd import wire

PATH = ("path", "/admin*", "(no.yaml:7)")
RULES = wire.Judging(
    "shop/web",
    (
        wire.JudgingRule("deny", "shop/no", "spec.rules[0]", "path /admin*", "no.yaml:7", 3),
        wire.JudgingRule("allow", "shop/yes", "spec.rules[1]", "everything", ""),
    ),
    "deny",
)


def explanation(verdict: str) -> wire.Explanation:
    told = "denied by AuthorizationPolicy shop/no: spec.rules[0]"
    steps = (wire.Step("route", "web"), wire.Step("authorization", told))
    return wire.Explanation(steps, verdict, "c", (), "spiffe://x")


def test_the_rules_about_a_workload_are_listed_in_order(daemon: Any, meshctl: Any) -> None:
    daemon.says(RULES)
    result = meshctl("authz", "check", "web", "-n", "shop")
    assert daemon.asked == [wire.AboutWorkload("web", "shop")]
    lines = result.out.splitlines()
    assert lines[0].split() == ["ACTION", "POLICY", "RULE", "COUNT", "FITS"]
    assert lines[1].split() == ["deny", "shop/no", "spec.rules[0]", "3", *PATH]
    assert lines[2].split() == ["allow", "shop/yes", "spec.rules[1]", "-", "everything"]
    assert lines[-1] == "otherwise: deny"
    value = json.loads(meshctl("authz", "check", "web", "-o", "json").out)
    assert [one["policy"] for one in value["rules"]] == ["shop/no", "shop/yes"]


def test_a_workload_without_policies_takes_everything(daemon: Any, meshctl: Any) -> None:
    daemon.says(wire.Judging("shop/web", (), "allow"))
    out = meshctl("authz", "check", "web").out
    assert out == "no AuthorizationPolicy is about shop/web\notherwise: allow\n"


@pytest.mark.parametrize(("verdict", "code"), [("denied: 403", 1), ("routed", 0)])
def test_a_trial_says_why_and_ends_with_1_if_denied(
    daemon: Any, meshctl: Any, verdict: str, code: int
) -> None:
    daemon.says(explanation(verdict))
    tried = ("authz", "try", "web", "http://db/x", "--method", "PUT", "--header", "a=b")
    result = meshctl(*tried)
    assert result.code == code
    assert daemon.asked == [
        wire.Explain("web", "db:80", "default", "/x", "PUT", (("a", "b"),)),
    ]
    assert result.out.splitlines() == [
        "denied by AuthorizationPolicy shop/no: spec.rules[0]",
        f"verdict: {verdict}",
    ]
    value = json.loads(meshctl(*tried, "-o", "json").out)
    assert value["allowed"] is (code == 0)


@pytest.mark.parametrize(("verdict", "code"), [("denied: 403", 1), ("routed", 0)])
def test_a_trial_does_not_know_what_an_extension_provider_says(
    daemon: Any, meshctl: Any, verdict: str, code: int
) -> None:
    asked = wire.Step("extension provider", "p is asked first")
    daemon.says(wire.Explanation((asked,), verdict, "", (), ""))
    result = meshctl("authz", "try", "web", "db")
    assert result.code == code
    assert result.out.splitlines()[0] == "p is asked first"
    assert ("if the extension provider allows it" in result.out) is (code == 0)
    value = json.loads(meshctl("authz", "try", "web", "db", "-o", "json").out)
    assert value["allowed"] is (None if code == 0 else False)


def test_a_trial_asks_for_a_connection_from_outside_as_explain_does(
    daemon: Any, meshctl: Any
) -> None:
    options = ("--as", "tls", "--server-name", "a.test", "--from-outside", "--client", "198.18.0.9")
    for verb in (("authz", "try"), ("explain",)):
        daemon.says(explanation("routed"))
        meshctl(*verb, "edge", "a.test:443", *options)
    first, second = daemon.asked
    assert first == second
    assert (first.begins_as, first.server_name) == ("tls", "a.test")
    assert (first.from_outside, first.client) == (True, "198.18.0.9")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--client", "198.18.0.9"), "--from-outside"),
        (("--from-outside", "--client", "edge"), "is not an address"),
    ],
)
def test_the_address_of_a_client_is_one_outside_the_mesh(
    meshctl: Any, options: tuple[str, ...], told: str
) -> None:
    refused = meshctl("authz", "try", "edge", "a.test", *options)
    assert refused.code == 2
    assert told in refused.err


@pytest.mark.parametrize(
    ("verdict", "told"),
    [("routed", "is about it"), ("outside the mesh", "was asked"), ("answered 404", "was asked")],
)
def test_a_trial_tells_why_no_policy_decides(
    daemon: Any, meshctl: Any, verdict: str, told: str
) -> None:
    daemon.says(wire.Explanation((), verdict, "", (), ""))
    assert f"no AuthorizationPolicy {told}" in meshctl("authz", "try", "web", "db").out


@pytest.mark.parametrize("verb", [("authz", "try"), ("explain",)])
def test_a_request_has_a_token_or_one_of_claims(
    daemon: Any, meshctl: Any, verb: tuple[str, ...]
) -> None:
    for given in ("a.b.c", '{"iss": "me"}'):
        daemon.says(explanation("routed"))
        meshctl(*verb, "web", "db", "--token", given)
    first, second = (asked.headers for asked in daemon.asked)
    assert first == (("authorization", "Bearer a.b.c"),)
    ((name, value),) = second
    payload = value.removeprefix("Bearer ").split(".")[1]
    assert (name, base64.urlsafe_b64decode(payload + "==")) == ("authorization", b'{"iss":"me"}')
    refused = meshctl(*verb, "web", "db", "--token", "{")
    assert (refused.code, "no JSON" in refused.err) == (2, True)
