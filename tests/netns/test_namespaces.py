"""Pins: bind mounts of namespaces that outlive whoever made them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd.base.errors import InvalidInputError, NotReadyError
from meshd.capture.pods.namespaces import Pins, is_elsewhere
from meshd.capture.rules.inside import cookie_of
from meshd.model.workload import LONGEST_PINNED


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Pins]:
    made = Pins(tmp_path / "netns")
    yield made
    for uid in made.list_pins():
        made.unpin(uid)


def _inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_pin_is_the_namespace_and_outlives_its_source(network: Any, pins: Pins) -> None:
    source = network.workload.netns
    expected = _inode(source)
    pin = pins.pin("default.reviews", source)
    assert pin.inode == _inode(pin.path) == expected
    subprocess.run(["ip", "netns", "del", network.workload.name], check=True)
    assert _inode(pin.path) == expected
    assert pins.pin("default.reviews", source) == pin


def test_pinning_again_is_the_same_pin(network: Any, pins: Pins) -> None:
    first = pins.pin("default.reviews", network.workload.netns)
    assert pins.pin("default.reviews", network.workload.netns) == first
    assert _mounts(first.path) == 1


def test_what_the_path_leads_to_later_does_not_come_by_the_pin(network: Any, pins: Pins) -> None:
    first = pins.pin("default.reviews", network.workload.netns)
    assert not is_elsewhere(first, network.workload.netns)
    assert pins.pin("default.reviews", network.peer.netns) == first
    assert Pins(pins.directory).pin("default.reviews", network.peer.netns) == first
    assert is_elsewhere(first, network.peer.netns)


def test_one_that_is_registered_anew_with_another_namespace_is_pinned_anew(
    network: Any, pins: Pins
) -> None:
    first = pins.pin("default.reviews", network.workload.netns)
    cookie = cookie_of(network.peer.netns)
    second = pins.pin("default.reviews", network.peer.netns, cookie)
    assert second.inode == _inode(network.peer.netns) != first.inode
    assert _mounts(second.path) == 1
    assert pins.pin("default.reviews", network.workload.netns, cookie) == second


@pytest.mark.parametrize("known", [True, False])
def test_a_pin_that_is_lost_is_not_made_of_another_namespace(
    network: Any, pins: Pins, known: bool
) -> None:
    """With a cookie the next process knows that, too."""
    cookie = cookie_of(network.workload.netns) if known else 0
    lost = pins.pin("default.reviews", network.workload.netns, cookie)
    subprocess.run(["umount", lost.path], check=True)
    for some in (pins, Pins(pins.directory)) if known else (pins,):
        with pytest.raises(NotReadyError, match="another network namespace than the workload's"):
            some.pin("default.reviews", network.peer.netns, cookie)


def test_what_was_registered_counts_and_not_what_capture_finds_there(
    network: Any, pins: Pins, tmp_path: Path
) -> None:
    """As with /proc/PID/ns/net, whose number another process has by then."""
    source = tmp_path / "source"
    source.symlink_to(network.workload.netns)
    cookie = cookie_of(source)
    source.unlink()
    source.symlink_to(network.peer.netns)
    with pytest.raises(NotReadyError, match="another network namespace than the workload's"):
        pins.pin("default.reviews", source, cookie)
    assert pins.list_pins() == ()


def test_a_cookie_never_comes_again_though_the_path_and_the_inode_do(network: Any) -> None:
    name, seen = f"{network.workload.name}x", set[int]()
    for _ in range(3):
        subprocess.run(["ip", "netns", "add", name], check=True)
        seen.add(cookie_of(Path("/run/netns") / name))
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert len(seen) == 3
    assert 0 not in seen


def test_a_pin_that_somebody_takes_away_is_made_anew(network: Any, pins: Pins) -> None:
    lost = pins.pin("default.reviews", network.workload.netns)
    subprocess.run(["umount", lost.path], check=True)
    again = pins.pin("default.reviews", network.workload.netns)
    assert _inode(again.path) == again.inode == _inode(network.workload.netns)
    assert _mounts(again.path) == 1


@pytest.mark.parametrize("uid", ["shop.web:1", "_x", "n." + "a" * (LONGEST_PINNED - 2)])
def test_each_uid_that_a_workload_of_a_namespace_may_have_is_pinned(
    network: Any, pins: Pins, uid: str
) -> None:
    assert pins.find(uid) is None
    pin = pins.pin(uid, network.workload.netns)
    assert pins.find(uid) == pin
    assert pins.list_pins() == (uid,)


def test_unpinning_leaves_nothing_and_may_be_repeated(network: Any, pins: Pins) -> None:
    pin = pins.pin("default.reviews", network.workload.netns)
    for _ in range(2):
        pins.unpin("default.reviews")
        assert not pin.path.exists()
    assert pins.list_pins() == ()


def test_leftovers_are_found_finished_or_not(network: Any, pins: Pins) -> None:
    pin = pins.pin("default.reviews", network.workload.netns)
    unfinished = pin.path.with_name("default.ratings@0")
    unfinished.touch()
    later = Pins(pin.path.parent)
    assert later.list_pins() == ("default.ratings", "default.reviews")
    assert later.find("default.ratings") is None
    assert later.find("default.reviews") == pin
    assert later.pin("default.ratings", network.peer.netns).inode == _inode(network.peer.netns)


def test_a_source_that_was_never_there_is_one_clear_line(pins: Pins) -> None:
    with pytest.raises(NotReadyError, match=r"network namespace /run/netns/nowhere not found"):
        pins.pin("default.reviews", Path("/run/netns/nowhere"))
    assert pins.list_pins() == ()


def test_a_source_that_became_the_hosts_namespace_does_not_replace_the_pin(
    network: Any, pins: Pins
) -> None:
    """A path such as /proc/PID/ns/net, whose process ended and whose number came again."""
    pin = pins.pin("default.reviews", network.workload.netns)
    assert pins.pin("default.reviews", Path("/proc/self/ns/net")) == pin
    with pytest.raises(InvalidInputError, match="the host's own network namespace"):
        pins.pin("default.ratings", Path("/proc/self/ns/net"))


@pytest.mark.parametrize("uid", ["../up", "a/b", "", ".hidden", "x" * 300, "a\nb"])
def test_uids_that_are_no_file_names_are_refused(pins: Pins, uid: str) -> None:
    with pytest.raises(InvalidInputError, match="not usable as a file name"):
        pins.find(uid)


def _mounts(path: Path) -> int:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(line.split()[4] == str(path) for line in lines)
