"""Logging of meshd's processes: to journald with structured fields, else one line on stderr.

Fields are attributes of the log record whose names begin with ``MESHD_``; ``event`` sets the usual
ones. What a message says never repeats what a field holds only for machines.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import IO, Any, Final

_PREFIX: Final = "MESHD_"
NATIVE: Final = "MESHD_JOURNAL"
"""Environment variable: set by the supervisor for roles, whose stderr it reads, when its own is
the journal."""
_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
"""syslog(3)'s numbers for levels from there up; anything less is 7."""


def setup(role: str, level: str = "info", stream: IO[str] | None = None) -> None:
    """Send what this process logs to the journal, or to ``stream`` (default: stderr)."""
    handler = (
        _Journal(role)
        if stream is None and goes_to_journal(os.environ)
        else _Lines(role, stream or sys.stderr)
    )
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def event(
    log: logging.Logger,
    level: int,
    name: str,
    message: str,
    *args: object,
    workload: str = "",
    config: str = "",
) -> None:
    """Log something that happened, under a name that people can search the journal for."""
    fields = {"MESHD_EVENT": name, "MESHD_WORKLOAD": workload, "MESHD_CONFIG": config}
    extra = {key: value for key, value in fields.items() if value}
    log.log(level, message, *args, extra=extra, stacklevel=2)


def goes_to_journal(environment: Mapping[str, str]) -> bool:
    """Whether stderr is the journal's own socket (systemd.exec(5), JOURNAL_STREAM)."""
    if environment.get(NATIVE):
        return True
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def priority(level: int) -> int:
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    return {key: str(value) for key, value in vars(record).items() if key.startswith(_PREFIX)}


class _Journal(logging.Handler):
    def __init__(self, role: str) -> None:
        super().__init__()
        from systemd import journal  # noqa: PLC0415 - only here is libsystemd needed

        self._send: Any = journal.send
        self._role = role

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(
                self.format(record),
                PRIORITY=str(priority(record.levelno)),
                SYSLOG_IDENTIFIER="meshd",
                LOGGER=record.name,
                CODE_FILE=record.pathname,
                CODE_LINE=record.lineno,
                CODE_FUNC=record.funcName,
                **({"MESHD_ROLE": self._role} | fields_of(record)),
            )
        except OSError:
            self.handleError(record)


class _Lines(logging.StreamHandler[IO[str]]):
    """``warning mesh: message (workload=default/a)``, a line each but for tracebacks."""

    def __init__(self, role: str, stream: IO[str]) -> None:
        super().__init__(stream)
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        fields = fields_of(record)
        role = fields.pop("MESHD_ROLE", self._role)
        fields.pop("MESHD_EVENT", None)
        told = " ".join(
            f"{key.removeprefix(_PREFIX).lower()}={value}" for key, value in fields.items()
        )
        line = f"{record.levelname.lower()} {role}: {super().format(record)}"
        return f"{line} ({told})" if told else line


def relay(role: str, line: str) -> None:
    """Pass on a line that another process wrote to stderr, as it is where people read it there."""
    if goes_to_journal(os.environ):
        logging.getLogger(__name__).warning("%s", line, extra={"MESHD_ROLE": role})
    else:
        print(line, file=sys.stderr, flush=True)
