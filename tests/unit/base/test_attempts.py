"""A record that processes die of is left out at the third death in a row, and said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from meshd.base.attempts import Attempts


class Life:
    """Processes one after the other with one file. Each ends without a word."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0

    def start(self) -> Attempts:
        self.now += 1
        return Attempts(self.path, lambda: self.now)

    def die_of(self, *names: str, fingerprint: str = "1", times: int = 1) -> None:
        for _ in range(times):
            self.start().begin({name: (fingerprint, {"name": name}) for name in names})


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "attempts.json")


def test_a_record_that_was_put_in_force_is_no_suspect(life: Life) -> None:
    for _ in range(5):
        started = life.start()
        started.begin({"a": ("1", None)})
        started.done()
    assert not life.start().knows("a")
    assert not life.path.exists()


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_the_third_death_in_a_row_leaves_it_out(life: Life, deaths: int) -> None:
    life.die_of("a", times=deaths)
    started = life.start()
    assert started.knows("a")
    assert bool(started.why_left_out("a", "1")) == (deaths == 3)
    assert len(started.problems) == (deaths == 3)


def test_it_is_said_and_kept_and_the_way_back_is_named(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    life.die_of("a", times=3)
    (problem,) = life.start().problems
    assert problem.startswith("a is left out: ")
    assert str(life.path) in problem
    assert problem in caplog.text
    assert '"content":{"name":"a"}' in life.path.read_text()


def test_another_content_is_tried(life: Life) -> None:
    life.die_of("a", times=3)
    started = life.start()
    assert not started.why_left_out("a", "2")
    started.begin({"a": ("2", None)})
    started.done({"a"})
    assert not life.start().problems


def test_after_an_hour_it_is_tried_once(life: Life) -> None:
    life.die_of("a", times=3)
    life.start()
    life.now += 3601
    assert not life.start().why_left_out("a", "1")


def test_deaths_long_ago_do_not_count(life: Life) -> None:
    life.die_of("a", times=2)
    life.start()
    life.now += 601
    life.die_of("a", times=2)
    assert not life.start().problems


def test_it_stays_left_out_whatever_else_happens(life: Life) -> None:
    life.die_of("a", times=3)
    life.die_of("b")
    started = life.start()
    started.begin({"c": ("1", None)})
    started.done()
    assert life.start().why_left_out("a", "1")


@pytest.mark.parametrize("many", [2, 3, 17, 100])
@pytest.mark.parametrize("at_fault", [{0}, {16}, {5, 11}, {0, 16}, set[int]()])
def test_of_several_that_processes_die_with_those_at_fault_are_left_out_in_the_end(
    life: Life, many: int, at_fault: set[int]
) -> None:
    names = [f"r{number:03}" for number in range(many)]
    killers = {names[number * (many - 1) // 16] for number in at_fault}
    life.die_of(*names, times=3)
    out: set[str] = set()
    for _ in range(40):
        started = life.start()
        out = {name for name in names if started.why_left_out(name, "1")}
        tried = {name for name in names if started.knows(name, "1")} - out
        started.begin(dict.fromkeys(tried, ("1", None)))
        if killers & tried:
            continue  # it dies
        started.done()
        if not started.is_narrowing:
            break
        assert any("set aside" in problem for problem in started.problems)
        started.narrow()
    assert killers <= out
    assert len(out) <= max(len(killers), 1)
    assert not any("set aside" in problem for problem in life.start().problems)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"a": 1}'])
def test_a_damaged_file_leaves_nothing_out(life: Life, content: bytes) -> None:
    life.path.write_bytes(content)
    assert not life.start().problems


def test_a_file_that_cannot_be_written_stops_nobody(life: Life) -> None:
    life.path.with_name(".attempts.json.new").mkdir()
    life.die_of("a")
    assert not life.start().knows("a")


def test_of_those_that_die_together_what_came_last_is_left_out_first(life: Life) -> None:
    for deaths in range(4):
        started = life.start()
        assert not started.problems, deaths
        started.begin({"old": ("1", None)})
        life.now += 0.1
        started.begin({"new": ("1", None)})
        if deaths == 2:
            break
    started = life.start()
    assert started.why_left_out("new", "1")
    assert not started.why_left_out("old", "1")
    started.begin({"old": ("1", None)})
    assert life.start().why_left_out("old", "1")


def test_a_record_that_waits_is_no_suspect_and_known_at_the_next_start(life: Life) -> None:
    for _ in range(5):
        started = life.start()
        started.begin({"a": ("1", None), "b": ("1", None)})
        started.rest({"a"})
        assert {name for name, _ in started.working} == {"b"}
    started = life.start()
    assert not started.why_left_out("a", "1")
    assert started.knows("a", "1")
    assert not started.knows("a", "2")
    assert started.why_left_out("b", "1")
    started.rest(())
    assert {name for name, _ in started.working} == {"a"}
    started.done({"a"})
    assert not life.start().knows("a")


def test_a_process_that_dies_at_its_start_of_nothing_known_may_die_of_anything(life: Life) -> None:
    life.start().start()
    started = life.start()
    assert started.suspects("a")
    assert not started.knows("a")
    started.start()
    started.begin({"a": ("1", None)})
    started = life.start()  # it is known what this one died of
    assert started.suspects("a", "1")
    assert not started.suspects("b")


def test_a_process_that_has_started_well_is_not_remembered(life: Life) -> None:
    for _ in range(4):
        started = life.start()
        started.start()
        started.done()
        assert not life.start().suspects("a")
    assert not life.path.exists()


def test_starts_that_never_go_well_are_given_up_also_if_each_takes_a_minute(life: Life) -> None:
    for _ in range(24):
        assert not life.start().gives_up
        life.start().start()
        life.now += 60
    assert life.start().gives_up


def test_a_start_is_never_left_out(life: Life) -> None:
    for _ in range(6):
        started = life.start()
        assert not started.problems
        started.start()


_CHANGES: dict[str, Callable[[Attempts], object]] = {
    "begin": lambda attempts: attempts.begin({"new": ("f", None)}),
    "done": lambda attempts: attempts.done({"former"}),
    "rest": lambda attempts: attempts.rest({"former"}),
    "keep_only": lambda attempts: attempts.keep_only(lambda name: name != "former"),
    "start_anew": lambda attempts: attempts.start_anew(),
    "end": lambda attempts: attempts.end(),
}


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_a_change_is_kept_that_comes_while_another_thread_makes_one(
    tmp_path: Path, change: Callable[[Attempts], object]
) -> None:
    threads: list[threading.Thread] = []

    def clock() -> float:
        if watched:
            threads.append(threading.Thread(target=change, args=(attempts,)))
            threads[0].start()
            threads[0].join(0.05)  # it ends in this time only if it does not wait for its turn
            watched.clear()
        return 1000.0

    watched: list[bool] = []
    attempts = Attempts(tmp_path / "attempts.json", clock)
    attempts.start()
    attempts.begin({"former": ("f", None)})
    expected = Attempts(tmp_path / "expected.json", clock)
    expected.start()
    expected.begin({"former": ("f", None)})
    watched.append(True)
    attempts.begin({"other": ("f", None)})
    threads[0].join()
    expected.begin({"other": ("f", None)})
    change(expected)
    read = [(tmp_path / name) for name in ("attempts.json", "expected.json")]
    assert read[0].exists() == read[1].exists()
    if read[0].exists():
        assert read[0].read_bytes() == read[1].read_bytes()


def test_a_note_costs_what_it_is_long_and_not_what_is_noted_already(life: Life) -> None:
    attempts = life.start()
    attempts.begin({f"many-{number}": ("f", {"a": number}) for number in range(1000)})
    inode, size = life.path.stat().st_ino, life.path.stat().st_size
    attempts.begin({"one": ("f", {"a": 1})})
    assert life.path.stat().st_ino == inode
    assert life.path.stat().st_size < size + 300
    attempts.done({"many-0"})
    again = Attempts(life.path, lambda: life.now)
    assert again.knows("one", "f")
    assert again.knows("many-1", "f")
    assert not again.knows("many-0")


def test_a_process_that_ends_as_told_notes_nothing_more(life: Life) -> None:
    attempts = life.start()
    attempts.begin({"a": ("f", None)})
    attempts.end()
    attempts.begin({"b": ("f", None)})
    assert not life.path.exists()
