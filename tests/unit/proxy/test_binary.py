"""Which Envoy is taken, and what is said about one that will not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.errors import InvalidInputError
from meshd.proxy import binary
from meshd.settings import ProxySettings


def program(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho 'envoy  version: 0ab/{version}/Clean/RELEASE/BoringSSL'\n")
    path.chmod(0o755)
    return path


def test_the_packages_own_is_found_without_importing_it() -> None:
    found = binary.find(ProxySettings())
    assert found.name == "envoy"
    binary.check_version(found)


@pytest.mark.parametrize("version", ["1.40.0", "1.41.2", "2.0.0"])
def test_a_newer_envoy_is_accepted(tmp_path: Path, version: str) -> None:
    binary.check_version(program(tmp_path / "envoy", version))


@pytest.mark.parametrize("version", ["1.39.9", "0.99.0"])
def test_an_older_envoy_is_refused(tmp_path: Path, version: str) -> None:
    path = program(tmp_path / "envoy", version)
    with pytest.raises(InvalidInputError, match=f"{path} is Envoy .* older than 1.40; install"):
        binary.check_version(path)


def test_one_that_is_not_executable_is_named(tmp_path: Path) -> None:
    path = tmp_path / "envoy"
    path.touch(0o644)
    with pytest.raises(InvalidInputError, match=f"proxy.binary: {path} is not executable"):
        binary.find(ProxySettings(binary=str(path)))


def test_a_directory_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is not executable"):
        binary.find(ProxySettings(binary=str(tmp_path)))


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="bin/envoy is not an absolute path"):
        binary.find(ProxySettings(binary="bin/envoy"))
