"""Tells what an upstream receives of a request, or of its copy, and where a redirect leads, as the
proxy would. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import re2

from meshd.api.patterns import known_part, substitution_problem
from meshd.compile.explain.wanted import DEFAULT_PORTS
from meshd.compile.plan.routes import (
    Forward,
    HeaderChanges,
    Mirror,
    Redirect,
    RegexRewrite,
    Route,
    Target,
)
from meshd.matching.conditions import TextMatch
from meshd.matching.request import FORWARDED_PROTO, Request

Lines = tuple[tuple[str, str], ...]
"""Headers: names and values, line by line."""


def forwarded(route: Route, action: Forward, target: Target, request: Request) -> Request:
    """Return a request as an upstream receives it; ``request`` is normalized, ``action`` the
    route's."""
    path, mark, query = request.path.partition("?")
    if action.prefix_rewrite:
        path = _with_prefix(path, route.match.path, action.prefix_rewrite)
    elif action.regex_rewrite:
        path = _substituted(action.regex_rewrite, path)
    host = action.host or target.host or request.host  # the route's wins over its destination's
    headers = _changed(_changed(request.headers, target.changes), route.changes)
    return dataclasses.replace(request, host=host, path=path + mark + query, headers=headers)


def copied(sent: Request, copy: Mirror) -> Request:
    """Return a copy of what an upstream receives, as it arrives: its host says that it is one."""
    if copy.looked_up:
        return sent
    # As the proxy has it, which takes everything but one colon for a name.
    name, colon, port = (
        sent.host.partition(":") if sent.host.count(":") == 1 else (sent.host, "", "")
    )
    return sent.with_(host=f"{name}-shadow{colon}{port}", path=sent.path)


def told_changes(asked: Request, received: Request) -> str:
    """Say which headers of a request an upstream receives otherwise than they are asked."""
    kept = {name.lower() for name, _ in received.headers}
    gone = {name.lower() for name, _ in asked.headers} - kept
    new = [line for line in received.headers if line not in asked.headers]
    told = [*(f"{name}: {value}" for name, value in new), *(f"no {name}" for name in sorted(gone))]
    return ", ".join(told)


def _changed(lines: Lines, changes: HeaderChanges) -> Lines:
    """Return headers after changes, in the proxy's order: what is removed, what is set, what is
    added. An empty value changes nothing."""
    added = [one for one in changes.request_additions if one.value]
    replaced = {one.name.lower(): _literal(one.value) for one in added if not one.append}
    gone = {*replaced, *map(str.lower, changes.request_removals)}
    return (
        *(line for line in lines if line[0].lower() not in gone),
        *replaced.items(),
        *((one.name.lower(), _literal(one.value)) for one in added if one.append),
    )


def _literal(value: str) -> str:
    """Return a header's value as it is sent, but for what the proxy puts in itself."""
    return value.replace("%%", "%")


def location(action: Redirect, match: TextMatch, request: Request) -> str:
    """Return the URL of a redirect; ``request`` is normalized."""
    scheme = action.scheme or request.scheme
    port = f":{action.port}" if action.port else ""
    host = action.host or _without_old_port(request, scheme, port)
    path, mark, query = request.path.partition("?")
    if action.path:
        path = action.path
        if "?" in path:
            mark = query = ""
    elif action.prefix:
        path = _with_prefix(path, match, action.prefix)
    return f"{scheme}://{host}{port}{path}{mark}{query}"


def _with_prefix(path: str, match: TextMatch, prefix: str) -> str:
    """Return a path with what has matched replaced: all of it, but for a prefix."""
    return prefix + path[len(match.value) :] if match.kind == "prefix" else prefix


def _substituted(rewrite: RegexRewrite, path: str) -> str:
    """Return a path with each match replaced, but for empty ones right behind another: the proxy
    passes those over."""
    if substitution_problem(rewrite.pattern, rewrite.substitution):
        return path
    parts: list[str] = []
    done = 0
    for found in re2.finditer(rewrite.pattern, path):
        if found.start() == found.end() == done and parts:
            continue
        groups = [path[slice(*found.span(number))] for number in range(found.re.groups + 1)]
        parts += path[done : found.start()], _expanded(rewrite.substitution, groups)
        done = found.end()
    return "".join(parts) + path[done:]


def _expanded(substitution: str, groups: Sequence[str]) -> str:
    def text(part: re.Match[str]) -> str:
        return "\\" if part[1] == "\\" else groups[int(part[1])]

    return re.sub(r"\\([0-9\\])", text, known_part(substitution))


def _without_old_port(request: Request, scheme: str, port: str) -> str:
    """Return the request's host, without a port that another one, or another scheme, replaces."""
    host, colon, number = request.host.rpartition(":")
    if not colon or request.host.endswith("]"):
        return request.host
    before = next(iter(request.values(FORWARDED_PROTO)), request.scheme)
    is_old = scheme != before and number == str(DEFAULT_PORTS.get(before, ""))
    return host if port or is_old else request.host
