"""Names of kinds and objects as users write them: ``vs reviews``, ``vs,dr``, ``all``. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import typer

from meshd.api import kinds
from meshd.api.base import Object
from meshd.api.decode import nearest

_ALL: Final = "all"


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """Objects of one kind; without names, all of them."""

    kind: type[Object]
    names: tuple[str, ...] = ()


def parse_references(words: Sequence[str]) -> tuple[Reference, ...]:
    """Raises typer.BadParameter: what is wrong with it is wrong usage."""
    if not words:
        raise typer.BadParameter("give a kind, e.g. get virtualservices")
    if any("/" in word for word in words):
        return tuple(_slashed(word) for word in words)
    names = tuple(words[1:])
    if words[0] == _ALL:
        if names:
            raise typer.BadParameter(f"{_ALL} stands for every kind and takes no name")
        return tuple(Reference(kind) for kind in kinds.STORED)
    return tuple(Reference(_kind(word), names) for word in words[0].split(","))


def qualified(kind: str) -> str:
    """Qualify a kind as kubectl does beside an object: ``virtualservice.networking.istio.io``."""
    group = next((known.GROUP for known in kinds.ALL if kind == known.KIND), "")
    return ".".join(part for part in (kind.lower(), group) if part)


def _slashed(word: str) -> Reference:
    kind, _, name = word.partition("/")
    if not kind or not name or "/" in name:
        raise typer.BadParameter(f'"{word}" is not KIND/NAME; do not mix that form with others')
    return Reference(_kind(kind), (name,))


def _kind(word: str) -> type[Object]:
    # kubectl also takes the group: virtualservices.networking.istio.io
    name, _, group = word.lower().partition(".")
    kind = kinds.BY_NAME.get(name)
    if kind is None or (group and group != kind.GROUP):
        raise typer.BadParameter(f'unknown kind "{word}"{nearest(name, kinds.BY_NAME)}')
    return kind
