"""The record of the workloads on this node, on disk in the run directory.

It outlives the process that keeps it, and not a reboot: network namespaces do not either.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from meshd.discovery.enrolment import Life
from meshd.errors import InvalidInputError, SystemRefusedError
from meshd.model.workload import Workload

_decode_error = (msgspec.DecodeError, UnicodeDecodeError)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is registered, and how far each is. Either may know a uid that the other does not."""

    registered: dict[str, Workload] = {}
    lives: dict[str, Life] = {}


def load(path: Path) -> Record:
    """An empty record if there is no file. Raises InvalidInputError when it is not readable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return Record()
    except (OSError, *_decode_error) as error:
        raise InvalidInputError(
            f"{path}: not a record of workloads, so none is known: register them again ({error})"
        ) from None


def save(path: Path, record: Record) -> None:
    """Replaces the file at once or not at all. Raises SystemRefusedError."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(record))
        new.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise SystemRefusedError(f"{path}: cannot be written: {error.strerror}") from None
