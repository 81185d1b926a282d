"""Path templates of AuthorizationPolicies: ``/users/{*}/files/{**}``. Pure."""

from __future__ import annotations

import re
from typing import Final

ONE: Final = "{*}"
"""One part of a path."""
REST: Final = "{**}"
"""All that follows."""


def template_regex(path: str) -> str:
    """Return the regular expression of a template; empty: the path is none."""
    if ONE not in path and REST not in path:
        return ""
    parts = re.split(r"(\{\*\*?\})", path)
    return "".join({ONE: "[^/]+", REST: ".*"}.get(part, re.escape(part)) for part in parts)


def template_problem(path: str) -> str:
    """Return why Istio would refuse a path; empty if it would not, or it is no template."""
    if not template_regex(path):
        return ""
    literal = path.replace(REST, "").replace(ONE, "")
    if any(sign in literal for sign in "*{}"):
        return f'"{path}" is a template, which has no wildcards but {ONE} and {REST}'
    if not path.startswith("/"):
        return f'"{path}" is a template, which begins with /'
    parts = path.split("/")
    if any(one in part and part != one for part in parts for one in (ONE, REST)):
        return f'"{path}": {ONE} and {REST} stand for whole parts between slashes'
    at = next((index for index, part in enumerate(parts) if part == REST), len(parts))
    if any(part in {ONE, REST} for part in parts[at + 1 :]):
        return f'"{path}": {REST} is the last of the wildcards'
    return ""
