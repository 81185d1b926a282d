"""The resolver as a child: what it is started with, and when it is another one's."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.resolver.command import NAME, NAMES, WILDCARDS_NAME, arguments
from meshd.resolver.files import NOBODY, WILDCARDS
from meshd.settings import MeshSettings, Paths, Settings
from meshd.supervisor.child import Child, Event, State, step
from meshd.supervisor.home import Home
from meshd.supervisor.process import command_line, identify
from meshd.supervisor.record import Entry, is_ours
from meshd.supervisor.resolver import Resolver

SETTINGS = Settings(mesh=MeshSettings(dns_port=5353))
OTHERS = Settings(mesh=MeshSettings(dns_port=5354))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    paths = Paths(tmp_path / "etc", tmp_path / "lib", tmp_path / "run")
    paths.resolver_run.mkdir(parents=True)
    return Home(paths)


@pytest.fixture(params=sorted(NAMES))
def running(request: pytest.FixtureRequest, home: Home) -> Iterator[Entry]:
    """No dnsmasq, but something that is called as it is."""
    words = arguments(request.param, SETTINGS.mesh, home.paths.resolver_run)
    with subprocess.Popen(["sh", "-c", "read x", "sh", *words], stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while command_line(process.pid)[-2:-1] != words[-1:]:
            assert time.monotonic() < deadline
        identity = identify(process.pid)
        assert identity
        yield Entry(request.param, identity, time.time(), False)
        process.kill()


def resolver(home: Home) -> Resolver:
    return Resolver(home.paths.resolver_run, "")


def test_a_resolver_runs_as_nobody_without_capabilities(home: Home) -> None:
    command = resolver(home).command(NAME, SETTINGS)
    setpriv = command[: command.index("--")]
    assert {"--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"} <= {*setpriv}
    assert "--no-new-privs" in setpriv


def test_a_resolver_has_a_scope_where_proxies_have_one(home: Home) -> None:
    command = Resolver(home.paths.resolver_run, "x.slice").command(NAME, SETTINGS)
    assert command[:3] == ("env", "--ignore-signal=HUP", "systemd-run")
    assert "--slice=x.slice" in command


def test_new_wildcards_need_a_new_process(home: Home) -> None:
    one = resolver(home)
    one.command(WILDCARDS_NAME, SETTINGS)
    assert not one.is_outdated(WILDCARDS_NAME)
    path = home.paths.resolver_run / WILDCARDS
    path.write_text("local=/*.a.test/\n")
    assert one.is_outdated(WILDCARDS_NAME)
    one.command(NAME, SETTINGS)
    assert one.is_outdated(WILDCARDS_NAME)
    one.command(WILDCARDS_NAME, SETTINGS)
    assert not one.is_outdated(WILDCARDS_NAME)


def test_nobody_outside_needs_a_new_process_and_so_does_somebody(home: Home) -> None:
    one = resolver(home)
    path = home.paths.resolver_run / NOBODY
    for present in (True, False):
        for name in NAMES:
            one.command(name, SETTINGS)
        assert not one.is_outdated(NAME)
        path.touch() if present else path.unlink()
        assert one.is_outdated(NAME)
        assert not one.is_outdated(WILDCARDS_NAME)
    assert "--no-resolv" not in one.command(NAME, SETTINGS)
    path.touch()
    assert "--no-resolv" in one.command(NAME, SETTINGS)


def test_one_that_runs_is_kept(home: Home, running: Entry) -> None:
    assert is_ours(running, home)
    assert resolver(home).to_adopt(running.name, [running], SETTINGS) == running


def test_one_of_other_settings_is_not_kept(home: Home, running: Entry) -> None:
    assert resolver(home).to_adopt(running.name, [running], OTHERS) is None


def test_one_of_another_home_is_a_strangers(
    home: Home, running: Entry, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("other")
    assert not is_ours(running, Home(Paths(root, root, root)))


def test_one_that_is_kept_may_not_know_the_newest_wildcards(home: Home, running: Entry) -> None:
    path = home.paths.resolver_run / WILDCARDS
    path.write_text("local=/*.a.test/\n")
    for when, outdated in ((running.since - 9, False), (running.since + 9, True)):
        os.utime(path, (when, when))
        one = resolver(home)
        assert one.to_adopt(running.name, [running], SETTINGS)
        if running.name == WILDCARDS_NAME:
            assert one.is_outdated(WILDCARDS_NAME) is outdated


def test_a_resolver_is_restarted_soon_however_often_it_failed() -> None:
    """glibc asks twice, five seconds apart: a longer pause would make names unknown."""
    policy = Resolver.policy
    assert policy.restarts.pause(1000) <= 1
    following = step(Child(State.RUNNING, 1000), Event.EXITED, policy, lived=policy.settled)
    assert following
    assert following.timer == policy.restarts.first
