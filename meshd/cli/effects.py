"""What a dry run foresees, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshd.wire import Detail, Effect, Foreseen

_MOST_NAMED: Final = 3
"""Clients of a kind that are named; of more, their number is told."""
_FINDINGS: Final = {
    "missing": ("finds {} again", "leads nowhere: {} is not there"),
    "unreached": ("is reached again", "is never reached: a route before it takes its requests"),
}
"""What is said of a fault that is mended, and of one that is new."""
_DEFAULT: Final = {"weight": "0"}
"""Facts of which no value means another one than the default."""


def lines(foreseen: Foreseen) -> Iterator[str]:
    """Yield a line for each effect, and what is to be known about all of them."""
    yield from map(line, foreseen.effects)
    if foreseen.more:
        yield f"and {foreseen.more} further effects"
    for namespace in foreseen.unpopulated:
        yield f"no workload runs in {namespace} yet: the lines above tell what one would see"
    if not foreseen.effects:
        yield "nothing would change for any workload in the mesh"


def line(effect: Effect) -> str:
    """Return an effect in a line."""
    what = _what(effect)
    if effect.kind in _FINDINGS:
        said = f"{what} {_FINDINGS[effect.kind][effect.change == 'added']}".format(
            effect.name.partition("|")[2]
        )
    elif effect.change == "changed":
        said = f"{what}: {', '.join(map(_detail, effect.details))}"
    else:
        verbs = ("appear", "go") if effect.kind == "connections" else ("appears", "goes")
        verb = verbs[effect.change != "added"]
        details = ", ".join(f"{one.fact}: {one.after}" for one in effect.details)
        said = f"{what} {verb}" + (f" ({details})" if details else "")
    parts = (" ".join(filter(None, (effect.object, effect.field))), effect.place)
    origin = ", ".join(filter(None, parts))
    return f"{said} ({origin})" if origin else said


def _what(effect: Effect) -> str:
    joined = {"route": "route of", "policy": "", "connections": "connections to", "port": "port"}
    kind = "" if effect.kind in _FINDINGS else joined.get(effect.kind, effect.kind)
    name = f"{kind} {effect.name.partition('|')[0]}".strip()
    told = [
        _clients("namespace", effect.namespaces, "in"),
        _clients("gateway", effect.gateways, "at"),
        _clients("workload", effect.workloads, "of"),
    ]
    return " ".join(filter(None, (name, *told)))


def _clients(kind: str, names: tuple[str, ...], preposition: str) -> str:
    if not names:
        return ""
    if len(names) > _MOST_NAMED:
        return f"{preposition} {len(names)} {kind}s"
    return f"{preposition} {kind}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _detail(detail: Detail) -> str:
    nothing = _DEFAULT.get(detail.fact.partition(" ")[0], "none")
    if not detail.before and detail.after == "added":
        return f"{detail.fact} appears"
    if not detail.after and detail.before == "present":
        return f"{detail.fact} goes"
    name = "" if detail.fact == "value" else f"{detail.fact} "
    return f"{name}{detail.before or nothing} → {detail.after or nothing}"
