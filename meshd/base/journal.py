"""Logging of meshd's processes: to journald with structured fields, else one line on stderr.

Fields are attributes of the log record whose names begin with ``MESHD_``; ``event`` sets the usual
ones. A message never repeats what a field holds only for machines.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import IO, Any, Final

from meshd.base.budget import INTERVAL, USUAL, Budget, Limits, Lost
from meshd.base.printable import printable

_PREFIX: Final = "MESHD_"
NATIVE: Final = "MESHD_JOURNAL"
"""Environment variable: set by the supervisor for roles, whose stderr it reads, when its own is
the journal."""
ADMITTED: Final = "budget_admitted"
"""Attribute of a record that ``admits`` was asked about."""
_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
"""syslog(3)'s numbers for levels from there up; anything less is 7."""


def setup(
    role: str,
    level: str = "info",
    stream: IO[str] | None = None,
    limits: Limits = USUAL,
) -> None:
    """Send what this process logs to the journal, or to ``stream`` (default: stderr).

    ``limits`` holds for each workload, and for each process.
    """
    handler = (
        _Journal(role)
        if stream is None and goes_to_journal(os.environ)
        else _Lines(role, stream or sys.stderr)
    )
    handler.setFormatter(_OneLine("%(message)s"))
    handler.addFilter(_is_worth_it)
    global _spending  # noqa: PLW0603 - as there is one root logger
    _spending = _Spending(handler, role, limits)
    handler.addFilter(_spending)
    # What libraries tell of their insides helps nobody with meshd.
    logging.basicConfig(level=_least_of_libraries(level), handlers=[handler], force=True)
    logging.getLogger("meshd").setLevel(level.upper())


def _least_of_libraries(level: str) -> int:
    return max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])


def _is_worth_it(record: logging.LogRecord) -> bool:
    """Return whether to log a record; gRPC complains of each stream that is open when we stop."""
    kind = record.exc_info[0] if record.exc_info else None
    cancelled = kind is not None and kind.__name__ == "CancelledError"
    stopping = record.getMessage().endswith("due to server stop.")
    return not (record.name.startswith("grpc") and (cancelled or stopping))


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
    """Return whether stderr is the journal's own socket (systemd.exec(5), JOURNAL_STREAM)."""
    if environment.get(NATIVE):
        return True
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def priority(level: int) -> int:
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def identifier(role: str) -> str:
    """Return a line's identifier, since one process writes for several.

    rsyslog ends the program's name at the slash.
    """
    return "meshd" if role == "supervisor" else f"meshd/{role}"


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    return {key: str(value) for key, value in vars(record).items() if key.startswith(_PREFIX)}


class _OneLine(logging.Formatter):
    """Formats a message as one line, whatever it contains; a traceback, which is ours, has
    several."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        return printable(super().formatMessage(record))


class _Spending(logging.Filter):
    """Passes on what the budget has room for, and reports the rest at the end of intervals."""

    def __init__(self, handler: logging.Handler, role: str, limits: Limits) -> None:
        super().__init__()
        self._handler = handler
        self._role = role
        self._budget = Budget(limits, time.monotonic())
        self._due: Any = None
        atexit.register(self._tell, at_once=True)

    def filter(self, record: logging.LogRecord) -> bool:
        fields = vars(record)
        if ADMITTED in fields:
            return True
        role, workload = fields.get("MESHD_ROLE", self._role), fields.get("MESHD_WORKLOAD", "")
        return self.admits(role, workload, record.getMessage(), "")

    def admits(self, role: str, workload: str, line: str, kind: str) -> bool:
        source = f"{role} {workload}" if workload else role
        admitted = self._budget.admits(source, line, time.monotonic(), kind)
        if not admitted and self._due is None:
            self._tell_later()
        return admitted

    def _tell_later(self) -> None:
        """Report sources that no longer write, where there is a loop to do so."""
        if asyncio := sys.modules.get("asyncio"):
            with contextlib.suppress(RuntimeError):
                self._due = asyncio.get_running_loop().call_later(INTERVAL, self._tell)
        if self._due is None:
            self._tell()

    def _tell(self, *, at_once: bool = False) -> None:
        self._due = None
        for report in self._budget.reports(time.monotonic(), at_once=at_once):
            role, _, workload = report.source.partition(" ")
            for lost in report.lost:
                self._handler.emit(_record_of(lost, role, workload))


def _record_of(lost: Lost, role: str, workload: str) -> logging.LogRecord:
    what = "repeated" if lost.repeated else "not written, over the log budget,"
    text = f"{what} {lost.lines} times: {lost.template}"
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (), None, "_tell")
    fields = {
        "MESHD_ROLE": role,
        "MESHD_WORKLOAD": workload,
        "MESHD_EVENT": "repeated" if lost.repeated else "suppressed",
        "MESHD_LINES": str(lost.lines),
        "MESHD_TEMPLATE": lost.template,
    }
    vars(record).update({key: value for key, value in fields.items() if value})
    return record


_spending: _Spending | None = None


def admits(role: str, workload: str, line: str, kind: str) -> bool:
    """Return whether the budget has room for a line; otherwise the line is counted as of its kind.

    This is for a caller with so many lines that a record of each would cost too much.
    """
    return _spending is None or _spending.admits(role, workload, line, kind)


class _Journal(logging.Handler):
    def __init__(self, role: str) -> None:
        super().__init__()
        from systemd import journal  # noqa: PLC0415 - only here is libsystemd needed

        self._send: Any = journal.send
        self._role = role

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"MESHD_ROLE": self._role} | fields_of(record)
        try:
            self._send(
                self.format(record),
                PRIORITY=str(priority(record.levelno)),
                SYSLOG_IDENTIFIER=identifier(fields["MESHD_ROLE"]),
                LOGGER=record.name,
                CODE_FILE=record.pathname,
                CODE_LINE=record.lineno,
                CODE_FUNC=record.funcName,
                **fields,
            )
        except OSError:
            # As in a child that has closed what it does not need: the supervisor reads our stderr.
            print(self.format(record), file=sys.stderr, flush=True)


class _Lines(logging.StreamHandler[IO[str]]):
    """Formats ``warning mesh: message (workload=default/a)``, a line each but for tracebacks."""

    def __init__(self, role: str, stream: IO[str]) -> None:
        super().__init__(stream)
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        fields = fields_of(record)
        role = fields.pop("MESHD_ROLE", self._role)
        for machine_only in ("MESHD_EVENT", "MESHD_LINES", "MESHD_TEMPLATE"):
            fields.pop(machine_only, None)
        told = " ".join(
            f"{key.removeprefix(_PREFIX).lower()}={printable(value)}"
            for key, value in fields.items()
        )
        line = f"{record.levelname.lower()} {role}: {super().format(record)}"
        return f"{line} ({told})" if told else line


def relay(role: str, line: str) -> None:
    """Pass on a line that another process wrote to stderr, as it is where people read it there."""
    if goes_to_journal(os.environ):
        logging.getLogger(__name__).warning("%s", line, extra={"MESHD_ROLE": role})
    else:
        print(printable(line), file=sys.stderr, flush=True)
