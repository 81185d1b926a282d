"""Steps (c), (d) and (e): versions as subsets, routes by user, routes by weight."""

from __future__ import annotations

from typing import Final

from meshd.demo.tutorial.counting import SIGMAS, likely, uniq_counts
from meshd.demo.tutorial.enrollment import SAMPLE
from meshd.demo.tutorial.tutorial import Tutorial

_REQUESTS: Final = 1000
_LOOKS: Final = {"john": ("v2", "black"), "mary": ("v3", "red"), "nobody": ("v1", "")}
"""What each user sees: a version of reviews, and the colour of its stars."""


def to_version_1(tutorial: Tutorial) -> None:
    tutorial.done(
        f"meshctl apply --wait -f {SAMPLE}/networking/destination-rule-all-mtls.yaml"
        f" -f {SAMPLE}/networking/virtual-service-all-v1.yaml"
    )
    counts = versions(tutorial, 50)
    tutorial.expect("all requests go to version 1", counts == {"reviews-v1": 50}, counts)
    answer = tutorial.run("curl -sS http://$GATEWAY/productpage | grep -c glyphicon-star")
    tutorial.expect("and no page shows stars", answer.output.strip() == "0", answer.output)
    answer = tutorial.run("meshctl explain curl reviews:9080")
    tutorial.expect(
        "meshctl explain tells the same: subset v1, mutual TLS with the mesh's certificates",
        "outbound|9080|v1|reviews.default.svc.cluster.local" in answer.output
        and "mesh TLS as spiffe://cluster.local/ns/default/sa/curl" in answer.output,
    )


def by_user(tutorial: Tutorial) -> None:
    tutorial.done(f"meshctl apply --wait -f {SAMPLE}/networking/virtual-service-reviews-test.yaml")
    for user in ("john", "mary"):
        answer = tutorial.run(
            f"curl -sS -o /dev/null -w '%{{http_code}}' -c $MESHD_HOME/{user}.jar"
            f" -d username={user} -d passwd= http://$GATEWAY/login",
            shown=False,
        )
        tutorial.expect(f"{user} signs in: 302", answer.output == "302", answer.output)
    for user, (version, color) in _LOOKS.items():
        answer = tutorial.run(
            f"{page_of(user)} | grep -oE 'reviews-v[0-9]|color=\"[a-z]+\"' | sort | uniq -c"
        )
        wanted = {f"reviews-{version}": 1} | ({f'color="{color}"': 2} if color else {})
        counts = uniq_counts(answer.output)
        stars = f"{color} stars" if color else "no stars"
        who = "everyone else" if user == "nobody" else user
        tutorial.expect(f"{who} gets {version}: {stars}", counts == wanted, counts)


def page_of(user: str) -> str:
    """Return the command that asks for a user's page; the user has signed in before."""
    jar = "" if user == "nobody" else f" -b $MESHD_HOME/{user}.jar"
    return f"curl -sS{jar} http://$GATEWAY/productpage"


def by_weight(tutorial: Tutorial) -> None:
    for name, rare, share in (("90-10", "v2", 0.1), ("50-v3", "v3", 0.5)):
        tutorial.done(
            f"meshctl apply --wait -f {SAMPLE}/networking/virtual-service-reviews-{name}.yaml"
        )
        counts = versions(tutorial, _REQUESTS)
        bounds = likely(_REQUESTS, share)
        got = counts.get(f"reviews-{rare}", 0)
        tutorial.expect(
            f"{got} of {_REQUESTS} go to {rare}: {share:.0%} would be {share * _REQUESTS:.0f},"
            f" and chance allows {bounds[0]} to {bounds[-1]} ({SIGMAS:g} sigma)",
            got in bounds,
        )
        rest = counts.get("reviews-v1", 0)
        tutorial.expect(f"and all others, {rest}, to v1", rest == _REQUESTS - got, counts)


def versions(tutorial: Tutorial, count: int) -> dict[str, int]:
    """Return how many requests each version of reviews answered."""
    answer = tutorial.run(
        "meshctl testbed exec deploy/curl -- curl -sS"
        f" 'http://reviews:9080/reviews/0?n=[1-{count}]'"
        " | grep -o 'reviews-v[0-9]' | sort | uniq -c",
        patience=60,
    )
    return uniq_counts(answer.output)
