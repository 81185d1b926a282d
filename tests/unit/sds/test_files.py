"""Whatever a name leads to, reading it neither waits nor opens what is no regular file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from meshd.base.errors import InvalidInputError
from meshd.sds.files import LARGEST, read_any, read_below


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    directory = tmp_path / "certs"
    directory.mkdir()
    return directory


def refusal(path: Path | str, *directories: Path) -> str:
    with pytest.raises(InvalidInputError) as raised:
        read_below(str(path), tuple(map(str, directories)))
    return str(raised.value)


def test_a_regular_file_is_read(certs: Path) -> None:
    (certs / "sub").mkdir()
    (certs / "sub" / "a.pem").write_bytes(b"a" * LARGEST)
    assert read_below(f"{certs}/sub/a.pem", (str(certs),)) == b"a" * LARGEST


def test_links_are_followed_inside_the_directories_only(certs: Path, tmp_path: Path) -> None:
    """As Kubernetes mounts Secrets, and certbot keeps certificates."""
    (certs / "..2026").mkdir()
    (certs / "..2026" / "tls.crt").write_bytes(b"one")
    (certs / "..data").symlink_to("..2026")
    (certs / "tls.crt").symlink_to("..data/tls.crt")
    assert read_below(f"{certs}/tls.crt", (str(certs),)) == b"one"

    secret = tmp_path / "secret"
    secret.write_bytes(b"not for proxies")
    for name, target in (("out", secret), ("up", Path("../secret")), ("around", Path("/dev/zero"))):
        (certs / name).symlink_to(target)
        assert "leads to" in refusal(certs / name, certs)
    (certs / "elsewhere").symlink_to(tmp_path)
    assert "leads to" in refusal(certs / "elsewhere" / "secret", certs)


def test_the_directory_itself_may_be_a_link(certs: Path, tmp_path: Path) -> None:
    (certs / "a").write_bytes(b"a")
    link = tmp_path / "link"
    link.symlink_to(certs)
    assert read_below(f"{link}/a", (str(link),)) == b"a"


def test_a_file_outside_the_directory_is_not_looked_for(certs: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"x")
    missing = tmp_path / "missing"
    said = refusal(there, certs)
    assert said.replace("there", "missing") == refusal(missing, certs)
    assert "certificate_directories" in said


def test_only_regular_files_are_opened(certs: Path) -> None:
    os.mkfifo(certs / "pipe")
    (certs / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(certs / "socket"))
        assert "a socket" in refusal(certs / "socket", certs)
    assert "a pipe" in refusal(certs / "pipe", certs)
    assert "a directory" in refusal(certs / "directory", certs)
    assert "a device" in refusal("/dev/zero", Path("/dev"))
    with pytest.raises(InvalidInputError, match="a pipe"):
        read_any((str(certs / "none"), str(certs / "pipe")))


def test_a_large_file_is_refused_before_it_is_read(certs: Path) -> None:
    large = certs / "large"
    with large.open("wb") as file:
        file.truncate(800 * 1024 * 1024)
    assert "larger than" in refusal(large, certs)


def test_a_file_that_says_it_is_empty_is_not_read_beyond_the_limit() -> None:
    """As those of /proc do."""
    assert "larger than" in refusal("/proc/kallsyms", Path("/proc"))


def test_a_missing_file_is_named(certs: Path) -> None:
    assert refusal(certs / "a", certs) == f"{certs}/a: No such file or directory"
    with pytest.raises(InvalidInputError, match="there is none of /a/b, /c"):
        read_any(("/a/b", "/c"))
