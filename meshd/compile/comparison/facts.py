"""A value of the plan as facts, each with its name, so that two values can be told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshd.compile.comparison.names import of_upstream
from meshd.compile.plan.routes import Forward, Route, Target
from meshd.compile.plan.secrets import ServedAuthority, ServedCertificate

Facts = dict[str, str]
_LONGEST: Final = 60
_ALL: Final = 100
"""Weight of the only target of a route."""


def facts(value: object) -> Facts:
    """Return what differs from the defaults of the value's type."""
    return dict(_facts(value, ()))


def _facts(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    match value:
        case None | False | "" | ServedCertificate() | ServedAuthority():
            return  # of a certificate, no more may be told than that it is another one
        case Forward():
            yield from _of_forward(value, path)
        case Route():
            if value.origin:
                yield "object", str(value.origin.key)
            yield from _fields(value, path, leaving_out={"match", "name", "origin", "statistics"})
        case msgspec.Struct():
            yield from _fields(value, path, leaving_out={"origin", "index", "name", "set_at"})
        case tuple() if value and all(isinstance(one, str | int | float) for one in value):
            yield _name(path), ", ".join(map(_text, value))
        case tuple():
            for index, one in enumerate(value):
                yield from _facts(one, (*path, _label(one, index)))
        case Mapping():
            for key, one in value.items():
                yield from _facts(one, (*path, str(key)))
        case _:
            yield _name(path), _text(value)


def _fields(
    value: msgspec.Struct, path: tuple[str, ...], leaving_out: set[str]
) -> Iterator[tuple[str, str]]:
    for field in msgspec.structs.fields(value):
        found = getattr(value, field.name)
        if field.name in leaving_out or (
            field.default is not msgspec.NODEFAULT and found == field.default
        ):
            continue
        step = () if field.name == "action" else (field.name.replace("_", " "),)
        # A union's member is a fact by itself: its fields may all be defaults.
        if isinstance(found, msgspec.Struct) and (tag := found.__struct_config__.tag):
            yield _name((*path, *step)) or "action", str(tag).replace("_", " ")
        yield from _facts(found, (*path, *step))


def _of_forward(value: Forward, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the facts of a route to upstreams; one target has all the weight."""
    yield from _fields(value, path, leaving_out={"targets"})
    for target, label in targets(value):
        weight = _ALL if len(value.targets) == 1 else target.weight
        yield _name((*path, f"weight of {label}")), str(weight)
        yield from _fields(target, (*path, label), leaving_out={"upstream", "weight", "index"})


def targets(value: Forward) -> Iterator[tuple[Target, str]]:
    """Yield each target with its label: the subset, where no other target has the same."""
    names = [of_upstream(target.upstream) for target in value.targets]
    subsets = [name.partition(" subset ")[2] for name in names]
    for target, name, subset in zip(value.targets, names, subsets, strict=True):
        yield target, subset if subset and subsets.count(subset) == 1 else name


def _label(value: object, index: int) -> str:
    name = getattr(value, "upstream", "") or getattr(value, "name", "")
    return of_upstream(str(name)) if name else str(index + 1)


def _name(path: tuple[str, ...]) -> str:
    return " ".join(path)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    # Names of route tables end in the scope's.
    text = of_upstream(value).partition("@")[0] if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
