"""Lines on stderr, fields for the journal."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator

import pytest

from meshd.base import journal


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    journal.setup("mesh", "info", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def test_an_event_is_one_line_with_what_it_is_about(lines: io.StringIO) -> None:
    journal.event(
        *(logging.getLogger("meshd.a"), logging.WARNING, "captured", "%s is captured", "default/a"),
        workload="default.a",
    )
    assert lines.getvalue() == "warning mesh: default/a is captured (workload=default.a)\n"


def test_lines_below_the_level_are_not_written(lines: io.StringIO) -> None:
    logging.getLogger("meshd.a").debug("hidden")
    assert lines.getvalue() == ""


def test_another_process_is_named_in_its_place(lines: io.StringIO) -> None:
    logging.getLogger("meshd.a").info("hello", extra={"MESHD_ROLE": "proxy-0"})
    assert lines.getvalue() == "info proxy-0: hello\n"


def test_lines_over_the_budget_are_not_written_and_told_at_the_end(lines: io.StringIO) -> None:
    for number in range(300):
        logging.getLogger("meshd.a").info("line %d", number, extra={"MESHD_WORKLOAD": "a"})
    written = lines.getvalue().count("\n")
    assert 200 <= written < 300, "a few more may be due when it takes long"
    spending = logging.getLogger().handlers[0].filters[-1]
    spending._tell(at_once=True)  # type: ignore[union-attr]
    assert lines.getvalue().splitlines()[-1] == (
        f"warning mesh: not written, over the log budget, {300 - written} times: line …"
        " (workload=a)"
    )


def test_debug_messages_of_libraries_are_not_written() -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    journal.setup("mesh", "debug", stream)
    logging.getLogger("library").info("insides")
    logging.getLogger("library").warning("trouble")
    logging.getLogger("meshd.a").debug("ours")
    root.handlers[:] = before
    root.setLevel(level)
    assert stream.getvalue() == "warning mesh: trouble\ndebug mesh: ours\n"


def test_fields_are_those_that_are_ours() -> None:
    record = logging.LogRecord("a", logging.INFO, "f", 1, "m", (), None)
    record.MESHD_EVENT = "captured"
    record.other = "x"
    assert journal.fields_of(record) == {"MESHD_EVENT": "captured"}


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
    ],
)
def test_levels_are_syslogs_priorities(level: int, number: int) -> None:
    assert journal.priority(level) == number


def test_stderr_is_the_journal_only_if_it_is_that_very_socket() -> None:
    status = os.fstat(2)
    assert journal.goes_to_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    assert not journal.goes_to_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
    assert not journal.goes_to_journal({})
    assert journal.goes_to_journal({journal.NATIVE: "1"})
