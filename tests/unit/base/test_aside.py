"""Copies of unusable files: each content once, and not without end."""

from __future__ import annotations

from pathlib import Path

from meshd.base.aside import MOST, copies, move_aside, set_aside


def test_the_same_content_is_copied_once(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for content in ("one", "two", "one", "two"):
        path.write_text(content)
        set_aside(path)
    assert [one.read_text() for one in copies(path)] == ["one", "two"]
    assert path.exists()
    assert all(one.stat().st_mode & 0o777 == 0o600 for one in copies(path))


def test_the_first_copy_and_the_newest_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for number in range(1, 31):
        path.write_text(f"damaged in way {number}")
        move_aside(path)
    left = [one.read_text().rpartition(" ")[2] for one in copies(path)]
    assert left == ["1", *(str(number) for number in range(32 - MOST, 31))]
    assert not path.exists()


def test_files_that_cannot_be_read_are_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for _ in range(2 * MOST):
        path.symlink_to("nowhere")
        move_aside(path)
    assert len(copies(path)) == MOST


def test_copies_of_other_files_are_left_alone(tmp_path: Path) -> None:
    others = [
        tmp_path / name for name in ("state.damaged-x", "state2.damaged-1", "astate.damaged-1")
    ]
    for other in others:
        other.write_text("another's")
    path = tmp_path / "state"
    for number in range(2 * MOST):
        path.write_text(str(number))
        move_aside(path)
    assert all(other.exists() for other in others)
