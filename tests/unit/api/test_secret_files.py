"""Names of secrets in files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.secret_files import SecretFiles, is_below, is_of_files, parse, path_problem

PATHS = st.text(st.sampled_from("a/~%7E25.:"), min_size=1).map(lambda text: "/" + text)


@given(PATHS, PATHS)
def test_a_name_says_the_files_whatever_they_are_called(one: str, other: str) -> None:
    for files in (
        SecretFiles(certificate=one, private_key=other),
        SecretFiles(authority=one),
        SecretFiles(authority=one, revoked=other),
    ):
        assert is_of_files(files.name)
        assert parse(files.name) == files


def test_names_are_those_of_istio() -> None:
    assert SecretFiles(certificate="/a.crt", private_key="/a.key").name == "file-cert:/a.crt~/a.key"
    assert SecretFiles(authority="system").name == "file-root:system"


@pytest.mark.parametrize("name", ["", "ROOTCA", "file-root:/a~/b~/c", "file-cert:", "file-root:%7"])
def test_any_other_name_is_none_of_files(name: str) -> None:
    found = parse(name)
    assert found is None or found.name == name


@pytest.mark.parametrize(
    "path", ["a.pem", "", "/a/../b", "/a\nb", "/a\x00", "/" + "a" * 1024, "~/a", "/\x1b[0m"]
)
def test_a_path_that_cannot_be_a_certificate_file_is_refused(path: str) -> None:
    assert path_problem(path)


def test_below_is_told_by_whole_parts_of_the_path() -> None:
    assert is_below("/etc/meshd/certs/a", ("/etc/meshd/certs",))
    assert is_below("/etc/meshd/certs//./a/b", ("/srv", "/etc/meshd/certs/"))
    assert is_below("/a", ("/",))
    for path in ("/etc/meshd/certs-of-others/a", "/etc/meshd/certs", "/etc/meshd/certs/../keys"):
        assert not is_below(path, ("/etc/meshd/certs",))
