"""What a value that comes from outside may be, as part of its type.

Every way on which a workload comes in (a node's registration, a server's resource, a record on
disk, a request on a socket) refuses the same things.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_QUALIFIED: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LOCALITY: Final = r"([A-Za-z0-9][-A-Za-z0-9_. ]*(/[-A-Za-z0-9_. ]*){0,2})?"
"""``region/zone/subzone``, or only its first parts."""
PATTERNS: Final[dict[str, str]] = {}
"""What texts that match a pattern are, in words."""


def _matching(pattern: str, words: str, longest: int | None = None) -> msgspec.Meta:
    whole = rf"\A{pattern}\Z"
    PATTERNS[whole] = words
    return msgspec.Meta(pattern=whole, max_length=longest)


Label = Annotated[str, _matching(_LABEL, "a DNS label (a-z, 0-9, -; at most 63)")]
"""RFC 1123, section 2.1."""
Name = Annotated[str, _matching(rf"{_LABEL}(\.{_LABEL})*", "a DNS name (a-z, 0-9, -, .)", 253)]
"""A DNS subdomain, as Kubernetes asks of names."""
Uid = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9_]([A-Za-z0-9_.:-]*[A-Za-z0-9_])?",
        "a uid (letters, digits, _ . : -, not at its ends)",
        317,
    ),
]
"""A namespace, a dot and a name; safe as a file name and on a terminal."""
PortName = Annotated[str, _matching(rf"({_QUALIFIED})?", "a port's name (letters, digits, - _ .)")]
PortNumber = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
"""0: any that is free, or one that is given later."""
LabelKey = Annotated[
    str,
    _matching(
        rf"({_LABEL}(\.{_LABEL})*/)?{_QUALIFIED}",
        "a label's name (letters, digits, - _ .; before a slash a DNS name)",
        317,
    ),
]
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"""
LabelValue = Annotated[
    str, _matching(rf"({_QUALIFIED}|)", "a label's value (at most 63 letters, digits, - _ .)", 63)
]
Labels = Annotated[dict[LabelKey, LabelValue], msgspec.Meta(max_length=256)]
Annotations = Annotated[
    dict[LabelKey, Annotated[str, msgspec.Meta(max_length=64 * 1024)]],
    msgspec.Meta(max_length=256),
]
Locality = Annotated[
    str,
    _matching(LOCALITY, "region/zone/subzone, of letters, digits, - _ . and blanks", 317),
]
NodeName = Annotated[
    str, _matching(r"[A-Za-z0-9_.:-]*", "a node's name (letters, digits, _ . : -)", 253)
]
Path = Annotated[str, _matching(r"[^\x00-\x1f\x7f]*", "a path without control characters", 4096)]
"""Empty: there is none."""
Hostname = Annotated[str, msgspec.Meta(pattern=rf"\A({_LABEL})?\Z")]
"""A DNS label, or nothing."""
