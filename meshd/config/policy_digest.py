"""Tells whether a PeerAuthentication that cannot be taken is the one that is held. Pure.

What a server tells in place of a policy that it cannot tell carries the digest of the policy's
specification: an agent keeps the version that it holds only if that is the same. Otherwise it may
be more open than what was asked for.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from meshd.api.authorization_policy.dry_run import ANNOTATION, is_on_trial
from meshd.base.json_values import Json, JsonObject, mapping_at, text_in

NOT_IN_FORCE: Final = "notInForce"
"""The field of a specification that no version of ours takes: a server has closed the object."""
DIGEST: Final = "digestOfSpec"
"""The field beside it with the digest of the specification that is not told. Servers before 0.2
have none."""


def digest_of(policy: JsonObject) -> str:
    """Return the digest of a policy's specification: that of the policy itself, or that of the one
    that it is told in place of; empty if that is not known."""
    spec = mapping_at(policy, "spec")
    if NOT_IN_FORCE in spec:
        return text_in(spec.get(DIGEST))
    annotations = mapping_at(policy, "metadata", "annotations")
    on_trial = is_on_trial(text_in(annotations.get(ANNOTATION)))
    try:
        text = json.dumps(_canonical(spec), sort_keys=True, separators=(",", ":"))
    except RecursionError:  # of what is nested too deeply for any policy
        return ""
    # One that is not on trial any more is another one.
    return hashlib.blake2b(f"{text}{ANNOTATION * on_trial}".encode(), digest_size=16).hexdigest()


def is_superseded(held: JsonObject, refused: JsonObject) -> bool:
    """Return whether a policy that was refused is another one than the version that is held.

    Of a server that tells no digest, that is not known: the version is kept.
    """
    digest = digest_of(refused)
    return bool(digest) and digest != digest_of(held)


def _canonical(value: Json) -> Json:
    """Return a value as it is before and after it was a ``google.protobuf.Struct``, in which all
    numbers are doubles."""
    if isinstance(value, dict):
        return {key: _canonical(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_canonical(part) for part in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _double(value) + 0.0  # there is one zero only
    return value


def _double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # of an int
        return float("inf") if number > 0 else float("-inf")
