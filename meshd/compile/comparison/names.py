"""Names that people use, for what the plan names as Envoy does."""

from __future__ import annotations

import functools

from meshd.compile.names import HBONE, LOCAL, OutboundCluster, parse_cluster
from meshd.matching.conditions import RouteMatch, TextMatch


@functools.lru_cache(maxsize=65536)
def of_upstream(name: str) -> str:
    """Return ``HOST:PORT``, with the subset if there is one; other names stay."""
    text = name.removesuffix(f";{HBONE}").removesuffix(f";{LOCAL}").removesuffix(";near")
    found = parse_cluster(text)
    if not isinstance(found, OutboundCluster):
        return text
    subset = f" subset {found.subset}" if found.subset else ""
    return f"{short(f'{found.host}:{found.port}')}{subset}"


def short(host: str) -> str:
    """Return ``NAME.NAMESPACE.svc:PORT`` without the domain of the cluster."""
    name, colon, port = host.rpartition(":")
    before, svc, _ = name.partition(".svc.")
    return f"{before}.svc{colon}{port}" if svc else host


def of_match(match: RouteMatch) -> str:
    """Return the conditions of a route; empty: it has none."""
    path = _text(match.path)
    said = [] if path == "prefix /" else [f"path {path}"]
    for header in match.headers:
        wanted = _text(header.text) if header.text else "present"
        said.append(f"header {header.name} {'not ' if header.unwanted else ''}{wanted}")
    for query in match.query:
        said.append(f"query {query.name} {_text(query.text) if query.text else 'present'}")
    for claim in match.claims:
        wanted = _text(claim.text) if claim.text else "present"
        said.append(f"claim {'.'.join(claim.names)} {'not ' if claim.unwanted else ''}{wanted}")
    return ", ".join(said)


def _text(match: TextMatch) -> str:
    return f"{match.kind} {match.value}{' in any case' if match.ignore_case else ''}"
