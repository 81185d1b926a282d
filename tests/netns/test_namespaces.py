"""Pins: bind mounts of namespaces that outlive whoever made them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd.capture.namespaces import Pins
from meshd.errors import InvalidInputError, NotReadyError


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


def test_another_namespace_under_the_same_uid_is_pinned_anew(network: Any, pins: Pins) -> None:
    first = pins.pin("default.reviews", network.workload.netns)
    second = pins.pin("default.reviews", network.peer.netns)
    assert second.inode == _inode(network.peer.netns) != first.inode
    assert _mounts(second.path) == 1


def test_a_pin_that_somebody_takes_away_is_made_anew(network: Any, pins: Pins) -> None:
    lost = pins.pin("default.reviews", network.workload.netns)
    subprocess.run(["umount", lost.path], check=True)
    again = pins.pin("default.reviews", network.workload.netns)
    assert _inode(again.path) == again.inode == _inode(network.workload.netns)
    assert _mounts(again.path) == 1


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
    with pytest.raises(NotReadyError, match=r"network namespace /run/netns/nowhere is not there"):
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
