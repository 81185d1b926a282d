from __future__ import annotations

import asyncio
import errno
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from meshd.api.base import Key, Object
from meshd.api.read import read_objects
from meshd.base import change_log, disk
from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.config import applied
from meshd.config.store import Store
from meshd.wire import Change
from tests.unit import storing


def service(name: str, port: int = 80) -> str:
    head = f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
    return f"{head}spec: {{ports: [{{port: {port}}}]}}\n"


def objects(*texts: str) -> list[Object]:
    return [read.object for read in read_objects("---\n".join(texts), "-")]


def key(name: str) -> Key:
    return Key("Service", "default", name)


class Place:
    """A configuration directory and a state directory."""

    def __init__(self, root: Path) -> None:
        self.files = root / "config.d"
        self.state = root / "lib"
        self.files.mkdir()
        self.state.mkdir()
        self.clock = iter(f"2024-01-01T00:00:{second:02}Z" for second in range(60))

    def store(self) -> Store:
        return Store(self.files, self.state, lambda: next(self.clock))

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.files / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def results(changes: tuple[Change, ...]) -> list[tuple[str, str]]:
    return [(change.name, change.result) for change in changes]


def test_the_place_of_a_field_is_its_file_and_line(place: Place) -> None:
    text = service("a") + "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: b\n"
    place.write(
        "a.yaml", f"{text}spec:\n  ports:\n  - port: 80\n    name: a\n  - port: 81\n    name: b\n"
    )
    store = place.store()
    storing.put(store, objects(service("c")))
    file = f"{place.files}/a.yaml"
    assert store.place_of(key("a"), "") == f"{file}:1"
    assert store.place_of(key("b"), "spec.ports[1].name") == f"{file}:15"
    assert store.place_of(key("b"), "spec.ports[1].protocol") == f"{file}:14"
    assert store.place_of(key("c"), "spec.ports[0]") == ""
    assert store.place_of(key("d"), "spec") == ""


# ---- applied objects


def test_a_change_says_of_each_object_what_became_of_it(place: Place) -> None:
    store = place.store()
    assert results(storing.put(store, objects(service("a")))) == [("a", "created")]
    changes = storing.put(store, objects(service("a", 81), service("b")))
    assert results(changes) == [("a", "configured"), ("b", "created")]
    assert results(storing.put(store, objects(service("a", 81)))) == [("a", "unchanged")]
    assert results(storing.delete(store, [key("a")])) == [("a", "deleted")]
    assert set(store.objects) == {key("b")}


def test_the_revision_grows_with_changes_only(place: Place) -> None:
    store = place.store()
    storing.put(store, objects(service("a")))
    before = store.revision
    storing.put(store, objects(service("a")))
    assert store.revision == before
    storing.put(store, objects(service("a", 81)))
    assert store.revision == before + 1
    assert place.store().revision == before + 1


def test_a_dry_run_says_the_same_and_does_nothing(place: Place) -> None:
    store = place.store()
    called: list[int] = []
    store.subscribe(lambda: called.append(1))
    assert results(store.moment.put(objects(service("a"))).changes) == [("a", "created")]
    assert dict(store.objects) == {}
    assert called == []
    assert not (place.state / "applied.json").exists()


def test_applied_objects_are_there_after_a_restart(place: Place) -> None:
    store = place.store()
    storing.put(store, objects(service("a"), service("b")))
    store.keep_addresses({"a.default.svc.cluster.local": ("198.19.0.1",)})
    again = place.store()
    assert again.objects == store.objects
    assert again.addresses == {"a.default.svc.cluster.local": ("198.19.0.1",)}
    assert (place.state / "applied.json").stat().st_mode & 0o777 == 0o600


def test_addresses_that_cannot_be_written_are_in_force_and_written_when_they_can_be(
    place: Place,
) -> None:
    store = place.store()
    blocking = place.state / "applied.json"
    blocking.mkdir(parents=True)
    store.keep_addresses({"a": ("198.19.0.1",)})
    assert store.addresses == {"a": ("198.19.0.1",)}
    (finding,) = store.findings
    assert str(finding).startswith(f"{blocking}: cannot be written: ")
    told: list[int] = []
    store.subscribe(lambda: told.append(1))
    store.refresh()
    assert not told
    blocking.rmdir()
    store.refresh()
    assert (store.findings, told) == ((), [1])
    assert place.store().addresses == {"a": ("198.19.0.1",)}


def test_an_object_keeps_the_time_of_its_making(place: Place) -> None:
    store = place.store()
    storing.put(store, objects(service("a")))
    storing.put(store, objects(service("b")))
    storing.put(store, objects(service("a", 81)))
    made = {name: store.objects[key(name)].metadata.creation_timestamp for name in "ab"}
    assert made == {"a": "2024-01-01T00:00:00Z", "b": "2024-01-01T00:00:01Z"}


def test_deleting_is_all_or_nothing(place: Place) -> None:
    store = place.store()
    storing.put(store, objects(service("a")))
    with pytest.raises(InvalidInputError, match="Service default/b not found"):
        storing.delete(store, [key("a"), key("b")])
    assert set(store.objects) == {key("a")}
    assert set(place.store().objects) == {key("a")}


def test_a_mapping_that_was_handed_out_never_changes(place: Place) -> None:
    store = place.store()
    before = store.objects
    storing.put(store, objects(service("a")))
    assert dict(before) == {}


def test_subscribers_see_what_is_in_force(place: Place) -> None:
    store = place.store()
    seen: list[set[Key]] = []
    store.subscribe(lambda: seen.append(set(store.objects)))
    storing.put(store, objects(service("a")))
    place.write("b.yaml", service("b"))
    store.refresh()
    store.refresh()
    assert seen == [{key("a")}, {key("a"), key("b")}]


# ---- faults


def broken(step: str) -> Callable[..., Any]:
    def refuse(*_args: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device ({step})")

    return refuse


@pytest.mark.parametrize(
    ("is_appended", "step"),
    [
        (False, "os.fchmod"),
        (False, "os.write"),
        (False, "os.fsync"),
        (False, "pathlib.Path.replace"),
        (True, "os.write"),
        (True, "os.fsync"),
    ],
)
def test_a_disk_that_refuses_leaves_the_old_content(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str, is_appended: bool
) -> None:
    store = place.store()
    storing.put(store, objects(service("a")))
    if not is_appended:
        store = place.store()
    with monkeypatch.context() as patched:
        patched.setattr(step, broken(step))
        with pytest.raises(SystemRefusedError, match=r"applied\.json: cannot be written: No space"):
            storing.put(store, objects(service("a", 81), service("b")))
    assert set(store.objects) == {key("a")}
    assert place.store().objects == store.objects
    assert [path.name for path in place.state.iterdir() if path.name.startswith(".")] == []
    storing.put(store, objects(service("c")))
    assert place.store().objects == store.objects


_WRITERS = {applied.__file__, change_log.__file__, disk.__file__}


def _killed_at(line: int, act: Callable[[], object]) -> bool:
    """Run ``act`` in a child that kills itself at its n-th line of what writes the file.

    False when it had fewer lines, so that it ended by itself.
    """
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in _WRITERS:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        act()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("is_appended", [False, True])
def test_kill_9_at_any_line_leaves_the_old_or_the_new_content(
    place: Place, is_appended: bool
) -> None:
    storing.put(place.store(), objects(service("a")))
    old = {key("a")}
    new = {key("a"), key("b")}
    to_put = objects(service("b"))
    seen: list[set[Key]] = []
    killed = True
    for line in range(300):
        store = place.store()
        if is_appended:  # to what this process has written
            storing.put(store, objects(service("a", 82 + line)))
        killed = _killed_at(line, functools.partial(storing.put, store, to_put))
        after = place.store()
        assert after.findings == ()
        assert set(after.objects) in (old, new)
        assert [path for path in place.state.iterdir() if path.name.startswith(".")] == []
        seen.append(set(after.objects))
        if set(after.objects) == new:
            storing.delete(after, [key("b")])
        if not killed:
            break
    assert not killed
    assert len(seen) > 15
    assert seen[0] == old
    assert seen[-1] == new


def test_changes_are_read_as_they_were_stored(place: Place) -> None:
    """Objects of all kinds that are put and deleted in one process, with their addresses."""
    store = place.store()
    for number in range(12):
        names = [f"s{number}", f"t{number % 4}"]
        storing.put(store, objects(*(service(name, 80 + number) for name in names)))
        store.keep_addresses(dict.fromkeys(names, (f"198.19.0.{number}",)))
        if number % 3 == 0:
            storing.delete(store, [key(f"s{number}")])
        again = place.store()
        assert (again.objects, again.addresses) == (store.objects, store.addresses)
        assert again.revision == store.revision
    assert b"\n+" in (place.state / "applied.json").read_bytes()
    store.settle()
    assert b"\n+" not in (place.state / "applied.json").read_bytes()
    assert place.store().objects == store.objects


def test_what_a_former_version_could_not_read_stays_beside_changes(place: Place) -> None:
    path = place.state / "applied.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    unknown = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "v", "namespace": "default"},
        "spec": {"hosts": ["a"], "unknown": 1},
    }
    path.write_text(json.dumps({"revision": 1, "addresses": {}, "objects": [unknown]}))
    store = place.store()
    for port in (80, 81):
        storing.put(store, objects(service("a", port)))
    assert '"unknown": 1' in path.read_text()
    again = place.store()
    assert set(again.known) == {key("a"), Key("VirtualService", "default", "v")}
    storing.delete(store, [Key("VirtualService", "default", "v")])
    assert set(place.store().known) == {key("a")}


def test_a_damaged_change_closes_as_a_damaged_file_does(place: Place) -> None:
    store = place.store()
    for port in (80, 81, 82):
        storing.put(store, objects(service("a", port)))
    path = place.state / "applied.json"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"port":81', b'"port":99'))
    damaged = place.store()
    assert damaged.lost == (f"{path}.damaged-1",)
    assert damaged.objects == {}
    path.write_bytes(content[:-5])
    assert place.store().lost == ()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"objects": 5}', b"\0" * 4096]
)
def test_a_damaged_file_is_set_aside_with_one_clear_line(place: Place, content: bytes) -> None:
    place.write("f.yaml", service("f"))
    (place.state / "applied.json").write_bytes(content)
    store = place.store()
    (finding,) = store.findings
    assert "damaged" in str(finding)
    assert "\n" not in str(finding)
    assert (place.state / "applied.json.damaged-1").read_bytes() == content
    assert set(store.objects) == {key("f")}
    storing.put(store, objects(service("a")))
    assert set(place.store().objects) == {key("a"), key("f")}


def test_one_object_that_cannot_be_read_leaves_the_others_in_force(place: Place) -> None:
    storing.put(place.store(), objects(service("a"), service("b")))
    path = place.state / "applied.json"
    path.write_text(path.read_text().replace('"name": "b"', '"name": 5'))
    store = place.store()
    assert set(store.objects) == {key("a")}
    assert len(store.findings) == 2
    assert '"name": 5' in (place.state / "applied.json.damaged-1").read_text()


# ---- files


def test_files_are_read_and_read_again_when_they_change(place: Place) -> None:
    place.write("a.yaml", service("a"))
    place.write("ignored.txt", "not yaml: [")
    place.write(".hidden.yaml", "not yaml: [")
    store = place.store()
    assert set(store.objects) == {key("a")}
    assert store.findings == ()
    assert not store.refresh()
    place.write("a.yaml", service("a") + "---\n" + service("a2"))
    place.write("b.yml", service("b"))
    assert store.refresh()
    assert set(store.objects) == {key("a"), key("a2"), key("b")}
    (place.files / "a.yaml").unlink()
    assert store.refresh()
    assert set(store.objects) == {key("b")}


@pytest.mark.parametrize(
    "bad",
    [
        b"a: [",
        b"\xff\xff",
        b"a: \0",
        b"kind: Nothing\napiVersion: v1\n",
        b"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 0}]}\n",
    ],
)
def test_a_bad_file_keeps_its_last_good_content_and_troubles_no_other(
    place: Place, bad: bytes
) -> None:
    place.write("a.yaml", service("a"))
    place.write("b.yaml", service("b"))
    store = place.store()
    place.write("a.yaml", bad)
    place.write("b.yaml", service("b2"))
    assert store.refresh()
    assert set(store.objects) == {key("a"), key("b2")}
    (finding,) = store.findings
    assert finding.file == str(place.files / "a.yaml")
    assert finding.severity == "error"
    again = place.store()
    assert again.objects == store.objects
    assert again.findings == store.findings
    place.write("a.yaml", service("a3"))
    assert again.refresh()
    assert again.findings == ()
    assert set(again.objects) == {key("a3"), key("b2")}


def test_a_bad_file_that_was_never_good_has_no_objects(place: Place) -> None:
    place.write("a.yaml", "a: [")
    store = place.store()
    assert dict(store.objects) == {}
    assert len(store.findings) == 1


@pytest.mark.parametrize("content", [service("a"), "- not an object", b"\xff"])
def test_a_file_whose_name_is_not_utf_8_can_be_told_about(
    place: Place, content: str | bytes
) -> None:
    place.write(os.fsdecode("café.yaml".encode("latin-1")), content)
    store = place.store()
    said = [store.file_of(key("a")), *map(str, store.findings)]
    assert r"caf\xe9.yaml:1" in "\n".join(said).encode().decode()


def test_a_file_that_was_removed_does_not_come_back(place: Place) -> None:
    path = place.write("a.yaml", service("a"))
    store = place.store()
    path.unlink()
    store.refresh()
    place.write("a.yaml", "a: [")
    assert dict(place.store().objects) == {}


def test_an_object_in_two_files_is_that_of_the_first(place: Place) -> None:
    place.write("a.yaml", service("a", 1))
    place.write("b.yaml", service("a", 2) + "---\n" + service("b"))
    store = place.store()
    assert set(store.objects) == {key("a"), key("b")}
    (finding,) = store.findings
    assert str(finding) == (
        f"{place.files}/b.yaml:1: Service default/a: is ignored: {place.files}/a.yaml:1 "
        "has it already; remove one"
    )
    assert store.file_of(key("a")) == f"{place.files}/a.yaml:1"


def test_an_object_of_a_file_cannot_be_changed_by_applying(place: Place) -> None:
    place.write("a.yaml", "# mine\n" + service("a"))
    store = place.store()
    for act in (
        lambda: storing.put(store, objects(service("a", 9))),
        lambda: storing.delete(store, [key("a")]),
    ):
        with pytest.raises(InvalidInputError, match=r"is in the file .*a\.yaml:2; change it there"):
            act()


def test_a_file_hides_what_was_applied_and_says_so(place: Place) -> None:
    store = place.store()
    storing.put(store, objects(service("a", 1)))
    place.write("a.yaml", service("a", 2))
    store.refresh()
    assert store.objects[key("a")] == objects(service("a", 2))[0]
    assert [finding.severity for finding in store.findings] == ["warning"]
    (place.files / "a.yaml").unlink()
    store.refresh()
    assert set(store.objects) == {key("a")}
    assert store.findings == ()


def test_a_directory_that_is_not_there_is_empty_and_one_that_comes_is_read(place: Place) -> None:
    place.files.rmdir()
    store = place.store()
    assert dict(store.objects) == {}
    assert store.findings == ()
    place.files.mkdir()
    place.write("a.yaml", service("a"))
    assert store.refresh()
    assert set(store.objects) == {key("a")}


def test_a_huge_file_is_refused_by_its_size(place: Place) -> None:
    place.write("b.yaml", service("b"))
    with (place.files / "a.yaml").open("wb") as file:
        file.truncate(50 * 1024**2)
    store = place.store()
    assert set(store.objects) == {key("b")}
    assert "over the limit" in str(store.findings[0])


def test_a_link_to_nowhere_and_a_directory_are_reported(place: Place) -> None:
    (place.files / "link.yaml").symlink_to("nowhere")
    (place.files / "dir.yaml").mkdir()
    store = place.store()
    assert [Path(finding.file).name for finding in store.findings] == ["dir.yaml", "link.yaml"]


def test_watching_notices_a_change_by_itself(place: Place) -> None:
    async def scenario() -> None:
        store = place.store()
        changed = asyncio.Event()
        store.subscribe(changed.set)
        watching = asyncio.create_task(store.watch(0.01))
        place.write("a.yaml", service("a"))
        async with asyncio.timeout(60):
            await changed.wait()
        watching.cancel()
        assert set(store.objects) == {key("a")}

    asyncio.run(scenario())


def test_an_unreachable_rule_in_a_file_is_a_finding(place: Place) -> None:
    head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec:\n"
    to = "route: [{destination: {host: a}}]"
    place.write(
        "root.yaml", f"{head % 'a'}  hosts: [a]\n  http: [{{delegate: {{name: d}}}}, {{{to}}}]"
    )
    assert place.store().findings == ()
    place.write("delegate.yaml", f"{head % 'd'}  http: [{{{to}}}]")
    (finding,) = place.store().findings
    assert (Path(finding.file).name, finding.severity) == ("root.yaml", "warning")
    assert finding.message.startswith("is never reached: http[0] of VirtualService default/d takes")


def test_files_that_cannot_be_listed_at_a_start_are_in_force_as_they_were(place: Place) -> None:
    place.write("a.yaml", service("a"))
    place.store()
    hidden = place.files.rename(place.files.with_name("hidden"))
    place.files.write_text("in the way")
    store = place.store()
    assert set(store.objects) == {key("a")}
    assert [one.message for one in store.findings] == ["cannot be listed: Not a directory"]
    assert not store.lost
    place.files.unlink()
    hidden.rename(place.files)
    place.write("a.yaml", service("b"))
    assert store.refresh()
    assert set(store.objects) == {key("b")}
    assert not store.findings


def test_files_of_which_no_copies_can_be_listed_either_are_lost(place: Place) -> None:
    for path in (place.files, place.state / "config.d"):
        if path.exists():
            path.rmdir()
        path.write_text("in the way")
    store = place.store()
    assert store.lost == (str(place.state / "config.d"),)
    assert len(store.findings) == 2
