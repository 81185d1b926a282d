"""Decides which objects are in force: of those applied, in files, or told by a server. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from meshd.api.base import Key, Object
from meshd.api.finding import Finding
from meshd.config import applied, withheld
from meshd.config.applied import Applied
from meshd.config.files import Content
from meshd.config.unusable import Unusable
from meshd.config.unusable import closed as closed_of
from meshd.config.withheld import Closed, Replacement

_CORRECT: Final = "correct the object, or delete it"
_APPLY: Final = "apply it again or delete it"
_UNTIL_TOLD: Final = "this ends when the server answers, and has lost nothing itself"


@dataclasses.dataclass(frozen=True, slots=True)
class Followed:
    """The objects of a server, in place of all objects that were ever applied here."""

    objects: Mapping[Key, Object]
    closed: Collection[Closed] = ()
    """The replacements of objects that could not be taken."""
    lost: tuple[str, ...] = ()
    """Paths of content that was received before and cannot be read."""
    unread: Collection[Key] = ()
    """All objects that could not be taken."""


def _nothing(_: Object) -> str:
    return ""


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """All that may be in force, and what is not to be."""

    path: str
    """The file of what was applied."""
    files: Content
    applied: Applied
    followed: Followed | None = None
    of_cluster: Followed | None = None
    """The objects of a cluster, where none of the same name is stored or in a file."""
    why_withheld: Callable[[Object], str] | None = None
    """Returns why an object is withheld, or an empty text."""
    why_given_up: Callable[[Object], str] = _nothing
    """The same for their replacements. Where one of those is withheld, everything counts as lost
    that the object may have closed."""
    why_nothing: str = ""
    """Why nothing is in force; empty: that is not so."""

    @property
    def stored(self) -> Mapping[Key, Object]:
        """Return the objects that are in no file of the administrator."""
        return self.applied.objects if self.followed is None else self.followed.objects


@dataclasses.dataclass(frozen=True, slots=True)
class Merged:
    """What is in force, and what becomes of all else."""

    objects: Mapping[Key, Object]
    """All objects in force. A change makes a new mapping; this one stays as it is."""
    whole: Mapping[Key, Object]
    """All that is stored, in force or not."""
    unusable: Mapping[Key, Unusable]
    """What is stored or in files, and cannot be in force any more."""
    known: Collection[Key]
    """The keys of all objects that are stored or in files, in force or not, readable or not."""
    closed: Collection[Closed]
    """The replacements of objects that have hosts and are not in force."""
    given_up: Collection[Object]
    """The replacements that are not in force either."""
    lost: tuple[str, ...]
    """Paths of content that was in force and cannot be read, and objects without a replacement in
    force."""
    is_content_lost: bool
    standing: tuple[Object, ...]
    """All replacements of objects that are in force."""


def merged(sources: Sources) -> Merged:
    """Return what is in force."""
    reads, followed = sources.files.reads, sources.followed
    in_files = sources.files.unusable
    stored = sources.stored
    if in_files:  # which hide what was applied, too
        stored = {key: one for key, one in stored.items() if key not in in_files}
    unusable = {**(sources.applied.unusable if followed is None else {}), **in_files}
    of_files = {key: read.object for key, read in reads.items()}
    beside = sources.of_cluster or Followed({})
    whole = {**beside.objects, **stored, **of_files}
    why = sources.why_withheld
    objects: Mapping[Key, Object] = withheld.without(whole, why) if why else whole
    closed = (
        *(withheld.closed(whole, objects) if why else ()),
        *closed_of(unusable.values()),
        *(followed.closed if followed else ()),
        *beside.closed,
    )
    standing = (
        *(one for one in objects.values() if isinstance(one, Replacement)),
        *(one for one in closed if one.key not in objects),
    )
    given_up = tuple(one for one in standing if sources.why_given_up(one))
    if keys := {one.key for one in given_up}:
        objects = {key: one for key, one in objects.items() if key not in keys}
        standing = tuple(one for one in standing if one.key not in keys)
    own = (sources.applied.lost,) if sources.applied.lost else ()
    content = (*sources.files.lost, *(followed.lost if followed else own), *beside.lost)
    known = {*whole, *(followed.unread if followed else ()), *beside.unread, *unusable}
    return _unless_nothing(
        Merged(
            objects,
            whole,
            unusable,
            known,
            tuple(one for one in standing if not isinstance(one, Replacement)),
            given_up,
            (*content, *(str(one.key) for one in given_up)),
            bool(content),
            standing,
        ),
        sources.why_nothing,
    )


def _unless_nothing(found: Merged, why: str) -> Merged:
    """Return the same, or nothing in force if there is a reason."""
    if not why:
        return found
    return dataclasses.replace(found, objects={}, closed=(), given_up=(), lost=(why,), standing=())


def findings(
    sources: Sources, found: Merged, of_loading: Collection[Finding]
) -> tuple[Finding, ...]:
    """Return what is wrong with the configuration; ``of_loading`` is about what was applied."""
    reads, stored = sources.files.reads, sources.stored
    hidden = (
        read.finding((), "an applied object of this name is hidden by this file", "warning")
        for key, read in reads.items()
        if key in stored and key not in sources.files.unusable
    )
    return (
        *of_loading,
        *_about_lost(sources, found, is_told=bool(of_loading)),
        *_about_unusable(sources),
        *sources.files.findings,
        *hidden,
    )


def _about_lost(sources: Sources, found: Merged, *, is_told: bool) -> Iterator[Finding]:
    """Yield findings about content that cannot be read; ``is_told``: but for what was applied."""
    given_up = {str(one.key) for one in found.given_up}
    for key in sorted(given_up):
        reason = (
            f"{key} is not in force, nor is its closed replacement, because processes of meshd"
            f" died with both. {applied.LOST}, but for those that it may have been about;"
            f" {_CORRECT}"
        )
        yield Finding("", 0, reason)
    remedy = applied.UNTIL_REPLACED if sources.followed is None else _UNTIL_TOLD
    if sources.why_nothing:
        yield Finding("", 0, f"{sources.why_nothing}. {applied.LOST}")
        return
    for path in (path for path in found.lost if path not in given_up):
        if path != sources.applied.lost or not is_told:
            reason = f"was in force and cannot be read. {applied.LOST}; {remedy}"
            yield Finding(path, 1, reason)


def _about_unusable(sources: Sources) -> Iterator[Finding]:
    """Yield findings about stored objects that cannot be used."""
    if sources.followed is None:
        for one in sources.applied.unusable.values():
            yield one.finding(sources.path, _APPLY)
