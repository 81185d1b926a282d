"""What is attached, whatever order a runtime detaches it in."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meshd.cni.sandboxes import Sandboxes, load, save, vanished
from meshd.model.workload import Workload


def workload(name: str, netns: str = "/run/netns/x") -> Workload:
    return Workload(uid=f"shop.{name}", name=name, namespace="shop", netns=netns)


def test_a_workload_leaves_with_its_last_sandbox() -> None:
    known = Sandboxes().with_one("a", workload("web"))
    assert known.without(["a"]).leaving == ("shop.web",)
    assert known.without(["unknown"]).leaving == ()


def test_a_sandbox_that_is_detached_after_its_successor_came_ends_nothing() -> None:
    known = (
        Sandboxes().with_one("old", workload("web", "/1")).with_one("new", workload("web", "/2"))
    )
    after = known.without(["old"])
    assert after.leaving == ()
    assert after.newest["shop.web"].netns == "/2"


def test_the_newest_sandbox_is_a_workloads_own() -> None:
    known = Sandboxes().with_one("z", workload("web", "/1")).with_one("a", workload("web", "/2"))
    assert known.newest["shop.web"].netns == "/2"


def test_a_workload_that_comes_back_does_not_leave() -> None:
    known = Sandboxes().with_one("a", workload("web")).without(["a"])
    assert known.with_one("b", workload("web")).leaving == ()
    assert known.left("shop.web").leaving == ()


_EVENTS = st.lists(
    st.tuples(st.booleans(), st.sampled_from("abcd"), st.sampled_from(("web", "db"))), max_size=20
)


@given(_EVENTS)
def test_a_workload_is_attached_or_leaves_or_was_never_there(
    events: list[tuple[bool, str, str]],
) -> None:
    known, seen = Sandboxes(), set[str]()
    for is_add, container, name in events:
        if is_add:
            known = known.with_one(container, workload(name))
            seen.add(f"shop.{name}")
        else:
            known = known.without([container])
        assert known.newest.keys() | set(known.leaving) == seen
        assert not known.newest.keys() & set(known.leaving)


def test_the_record_is_read_as_it_was_written_and_an_unusable_one_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "attached.json"
    assert load(path) == Sandboxes()
    known = Sandboxes().with_one("a", workload("web")).with_one("b", workload("db")).without(["a"])
    save(path, known)
    assert load(path) == known
    path.write_text('{"attached": 1}')
    assert load(path) == Sandboxes()


def test_containers_without_a_namespace_are_gone(tmp_path: Path) -> None:
    known = Sandboxes().with_one("here", workload("web", str(tmp_path)))
    known = known.with_one("gone", workload("db", str(tmp_path / "none")))
    assert list(vanished(known)) == ["gone"]
