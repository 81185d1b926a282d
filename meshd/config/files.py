"""The directory of configuration files: read-only for meshd, read again where a file changed.

Reading thousands of objects takes seconds, so that a thread may do it: its result is frozen.

A bad file never takes the others down: its last good content stays in force, over restarts too (a
copy is kept), and its errors are reported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshd.analysis import validate
from meshd.api.base import Key
from meshd.api.finding import Finding
from meshd.api.read import Read, read_sources
from meshd.api.yaml import ManifestError, read_text
from meshd.base.disk import replace
from meshd.base.errors import SystemRefusedError
from meshd.base.printable import printable
from meshd.config import unusable as unusable_objects
from meshd.config.unusable import Unusable

_CORRECT: Final = "correct the file"
_Stamp = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    stamp: _Stamp
    """What stat(2) says; equal stamps are equal content."""
    reads: tuple[Read, ...] = ()
    findings: tuple[Finding, ...] = ()
    unusable: tuple[Unusable, ...] = ()
    """What cannot be in force any more of the last good content."""
    lost: str = ""
    """The path of the last good content if it cannot be read any more. Empty: nothing is lost."""
    source: str = ""
    """The path of the file, fit to be shown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """The content of the directory at one moment."""

    files: Mapping[str, _File]
    trouble: tuple[Finding, ...]
    """Why the directory cannot be listed."""
    reads: Mapping[Key, Read]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, files: Mapping[str, _File], trouble: tuple[Finding, ...]) -> Content:
        reads: dict[Key, Read] = {}
        findings = [*trouble]
        for file in files.values():
            findings += file.findings
            findings += [one.finding(file.source, _CORRECT) for one in file.unusable if one.key]
            for read in file.reads:
                first = reads.setdefault(read.object.key, read)
                if first is not read:
                    message = f"is ignored: {first.place} has it already; remove one"
                    findings.append(read.finding((), message))
        findings += validate.check_reachable(reads.values())
        return cls(files, trouble, reads, tuple(findings))

    @property
    def unusable(self) -> dict[Key, Unusable]:
        """Return what cannot be in force any more of the last good contents."""
        every = (one for file in self.files.values() for one in file.unusable)
        return {key: one for one in every if (key := one.key)}

    @property
    def lost(self) -> tuple[str, ...]:
        return tuple(file.lost for file in self.files.values() if file.lost)


class ConfigDirectory:
    """The files of one directory, and their content as it was taken last."""

    def __init__(self, directory: Path, kept: Path) -> None:
        """Read nothing yet; ``kept`` is our directory for copies of files when they were last
        good."""
        self._directory = directory
        self._kept = kept
        self.content = Content.of({}, ())

    def look(self) -> Content | None:
        """Read the files that have changed since the content was taken; None: nothing is
        different. This may be called in a thread, one at a time."""
        known = self.content
        files, trouble = self._scan(known.files)
        if (files, trouble) == (known.files, known.trouble):
            return None
        return Content.of(files, trouble)

    def _scan(self, known: Mapping[str, _File]) -> tuple[Mapping[str, _File], tuple[Finding, ...]]:
        """Return the files, and why they cannot be listed."""
        try:
            names = _manifests_in(self._directory)
        except FileNotFoundError:
            names = []
        except OSError as error:
            reason = f"cannot be listed: {error.strerror}"
            return known or self._last_good_files(), (Finding(str(self._directory), 1, reason),)
        self._forget(known.keys() - set(names))
        return {name: self._look_at(name, known.get(name)) for name in names}, ()

    def _last_good_files(self) -> dict[str, _File]:
        """Return all files as they were last good, for a start at which none can be listed."""
        unseen = (0, 0, 0, 0)
        try:
            names = _manifests_in(self._kept)
        except FileNotFoundError:
            return {}
        except OSError:
            return {"": _File(unseen, lost=str(self._kept))}
        return {name: self._last_good(name, None, unseen, ()) for name in names}

    def _forget(self, names: set[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):  # at worst it comes back as last good content
                (self._kept / name).unlink()

    def _look_at(self, name: str, known: _File | None) -> _File:
        path = self._directory / name
        said = printable(str(path))
        stamp = _stamp(path)
        if known and known.stamp == stamp:
            return known
        try:
            text = read_text(path)
        except ManifestError as error:
            return self._last_good(name, known, stamp, (Finding(said, 1, error.reason),))
        if _stamp(path) != stamp:
            # Somebody is writing it right now: the next look will find it whole.
            return known or _File((0, 0, 0, 0))
        reads, findings = _checked(said, text)
        if any(finding.severity == "error" for finding in findings):
            return self._last_good(name, known, stamp, findings)
        return _File(stamp, reads, (*findings, *self._keep(name, text)))

    def _last_good(
        self, name: str, known: _File | None, stamp: _Stamp, findings: tuple[Finding, ...]
    ) -> _File:
        if known:
            return dataclasses.replace(known, stamp=stamp, findings=findings)
        kept = self._kept / name
        if not os.path.lexists(kept):
            return _File(stamp, (), findings)  # it was never good
        try:
            text = read_text(kept)
        except ManifestError:
            return _File(stamp, (), findings, lost=str(kept))
        said = printable(str(self._directory / name))
        reading = read_sources([(said, text)])
        reads, _ = validate.stored_kinds(reading.objects)
        left, unusable = unusable_objects.kept(reads, reading)
        are_known = not any(one.is_lost for one in unusable)
        is_whole = text and (reading.unread or not reading.errors) and are_known
        lost = "" if is_whole else str(kept)
        return _File(stamp, left, findings, unusable, lost, said)

    def _keep(self, name: str, text: str) -> tuple[Finding, ...]:
        copy = self._kept / name
        content = text.encode()
        try:
            if not copy.exists() or copy.read_bytes() != content:
                replace(copy, content)
        except (OSError, SystemRefusedError) as error:
            reason = f"no copy for bad times can be kept: {error}"
            return (Finding(str(copy), 1, reason, severity="warning"),)
        return ()


def _manifests_in(directory: Path) -> list[str]:
    """Return the names of a directory's manifests. Raises OSError."""
    return sorted(
        entry.name
        for entry in os.scandir(directory)
        if entry.name.endswith((".yaml", ".yml")) and not entry.name.startswith(".")
    )


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def _checked(source: str, text: str) -> tuple[tuple[Read, ...], tuple[Finding, ...]]:
    reading = read_sources([(source, text)])
    reads, passed_over = validate.stored_kinds(reading.objects)
    findings = (
        *reading.findings,
        *passed_over,
        *validate.check_damaged(reading.damaged),
        *validate.check_fields(reads),
    )
    return reads, findings
