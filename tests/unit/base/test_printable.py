"""What others have written does nothing to a terminal or a log."""

from __future__ import annotations

import io
import logging

from hypothesis import given
from hypothesis import strategies as st

from meshd.base import journal
from meshd.base.printable import printable
from meshd.cli.output import Table, plain_lines

_HOSTILE = "mesh.\x1b]0;x\x07\nerror supervisor: FAKE\u202e\x9b31m"


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    assert printable(text, keep="").isprintable()


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_a_table_is_as_many_lines_as_it_has_rows() -> None:
    lines = plain_lines(Table(("NAME",), ((_HOSTILE,), ("b",))))
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_a_message_is_one_line_of_the_log() -> None:
    stream = io.StringIO()
    journal.setup("mesh", stream=stream)
    log = logging.getLogger("meshd.test")
    log.warning("workload %s", _HOSTILE, extra={"MESHD_WORKLOAD": _HOSTILE})
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().removesuffix("\n").isprintable()


def test_a_byte_that_is_no_text_is_shown_as_a_byte() -> None:
    assert printable("caf\udce9") == r"caf\xe9"
