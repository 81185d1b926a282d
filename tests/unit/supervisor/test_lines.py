"""What a proxy's lines say."""

from __future__ import annotations

import logging

import pytest

from meshd.supervisor.lines import Line, read


@pytest.mark.parametrize(
    ("mark", "level"),
    [
        ("debug", logging.DEBUG),
        ("info", logging.INFO),
        ("warning", logging.WARNING),
        ("error", logging.ERROR),
        ("critical", logging.CRITICAL),
    ],
)
def test_envoys_lines_have_the_level_that_it_gave_them(mark: str, level: int) -> None:
    assert read(f"[{mark}] [config] it happened") == Line(level, "[config] it happened")


def test_other_lines_are_warnings() -> None:
    assert read("meshd proxy: no Envoy") == Line(logging.WARNING, "meshd proxy: no Envoy")


def test_access_lines_are_of_a_workload_and_keep_what_people_read() -> None:
    text = '[2026-01-01T00:00:00.000Z] "GET /x HTTP/1.1" 503 UF,URX via_upstream - "-" 0 91'
    assert read(f"meshd-access /run/meshd/netns/mesh.a-1@18f {text}") == Line(
        logging.INFO, text, "mesh.a-1", "access", "access log 503 UF,URX"
    )


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (
            "403 - rbac_access_denied_matched_policy[ns[shop]-policy[no.x]-rule[2]] -",
            "denied by shop/no.x rule 2",
        ),
        ("403 - rbac_access_denied_matched_policy[none] -", "403 -"),
        ("401 - jwt_authn_access_denied{Jwt_is_expired} -", "token refused: Jwt is expired"),
        (
            "0 UH - rbac_access_denied_matched_policy[ns[shop]-policy[no]-rule[1]] -",
            "denied by shop/no rule 1",
        ),
        (
            '403 - via_upstream - "-" rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]',
            "403 -",
        ),
    ],
)
def test_what_a_policy_denies_is_counted_by_its_rule(outcome: str, kind: str) -> None:
    found = read(f'meshd-access /run/meshd/netns/mesh.a-1@18f [then] "GET /x HTTP/1.1" {outcome}')
    assert found.kind == f"access log {kind}"


RULE = "ns[shop]-policy[p.x]-rule[1]"


@pytest.mark.parametrize(
    ("noted", "kind"),
    [
        (f"audited={RULE} would_deny=- would_allow=-", "audited by shop/p.x rule 1"),
        (f"audited=- would_deny={RULE} would_allow=denied", "would be denied by shop/p.x rule 1"),
        (
            "audited=- would_deny=- would_allow=denied",
            "would be denied: no rule on trial allows it",
        ),
    ],
)
def test_what_policies_note_is_counted_by_its_rule(noted: str, kind: str) -> None:
    found = read(
        f'meshd-access /x/mesh.a-1@18f [then] "GET /x HTTP/1.1" 200 - policies {noted} "-"'
    )
    assert (found.workload, found.kind) == ("mesh.a-1", f"access log {kind}")


@pytest.mark.parametrize("line", ["meshd-access ", "meshd-access -", "meshd-access - x"])
def test_access_lines_of_nobody_are_lines_all_the_same(line: str) -> None:
    found = read(line)
    assert (found.level, found.workload, found.kind) == (logging.INFO, "", "access log")
