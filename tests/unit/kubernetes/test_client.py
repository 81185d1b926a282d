"""One request to the API server, and its answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshd.base.errors import InvalidInputError
from meshd.kubernetes import client, kubeconfig
from meshd.kubernetes.client import ApiError, Client
from tests.unit.kubernetes.api_server import ApiServer


def get(directory: Path, path: str, token: str = "let-me-in") -> bytes:  # noqa: S107
    async def ask() -> bytes:
        server = ApiServer(directory)
        await server.put("web", spec={"hostname": "x" * 1000})
        async with server.serving():
            return await Client(server.access(token)).get(path)

    return asyncio.run(ask())


def test_an_object_is_read_whole(tmp_path: Path) -> None:
    assert b'"hostname": "' + b"x" * 1000 in get(tmp_path, "/api/v1/namespaces/shop/pods/web")


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [("/api/v1/namespaces/shop/pods/none", "let-me-in", 404), ("/api/v1/pods", "wrong", 401)],
)
def test_a_refusal_has_the_servers_status_and_words(
    tmp_path: Path, path: str, token: str, status: int
) -> None:
    with pytest.raises(ApiError) as caught:
        get(tmp_path, path, token)
    assert caught.value.status == status
    assert ("Unauthorized" if status == 401 else "not found") in str(caught.value)


def test_a_server_that_is_not_the_one_of_the_authority_is_not_asked(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()

    async def ask() -> None:
        server, stranger = ApiServer(tmp_path), ApiServer(other)
        async with stranger.serving():
            server.port = stranger.port
            with pytest.raises(ApiError, match="certificate"):
                await Client(server.access()).get("/api/v1/pods")
        assert not stranger.asked

    asyncio.run(ask())


def test_nobody_at_home_is_no_answer(tmp_path: Path) -> None:
    server = ApiServer(tmp_path)
    server.port = 1
    with pytest.raises(ApiError) as caught:
        asyncio.run(Client(server.access()).get("/api/v1/pods"))
    assert caught.value.status == 0


def test_an_answer_without_an_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST", 100)
    with pytest.raises(ApiError, match="more than 100 bytes"):
        get(tmp_path, "/api/v1/namespaces/shop/pods/web")


def test_a_token_file_is_read_for_each_request(tmp_path: Path) -> None:
    server = ApiServer(tmp_path)
    access = server.access()
    (tmp_path / "token").write_text("first\n")
    text = (tmp_path / "kubeconfig").read_text().replace("token: let-me-in", "tokenFile: token")
    (tmp_path / "kubeconfig").write_text(text)
    access = kubeconfig.load(tmp_path / "kubeconfig")
    assert access.authorization() == "Bearer first"
    (tmp_path / "token").write_text("second")
    assert access.authorization() == "Bearer second"
    (tmp_path / "token").unlink()
    with pytest.raises(InvalidInputError, match="token: cannot be read"):
        access.authorization()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("current-context: it", "current-context: other", 'no context "other"'),
        ("cluster: it\n", "cluster: other\n", 'no cluster "other"'),
        ("https://", "http://", "is not https"),
        ("ca.pem", "none.pem", "cannot be used"),
        ("ca.pem", "key.pem", "cannot be used"),
        (
            "certificate-authority: ca.pem",
            "insecure-skip-tls-verify: true",
            "lets anybody be the API server",
        ),
        ("clusters:", "clusters: 7\nmore:", "clusters"),
        ("localhost:", "localhost:x", "cannot be used"),
    ],
)
def test_a_kubeconfig_that_does_not_serve_is_named_with_the_reason(
    tmp_path: Path, before: str, after: str, told: str
) -> None:
    ApiServer(tmp_path).access()
    path = tmp_path / "kubeconfig"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(InvalidInputError, match=told):
        kubeconfig.load(path)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="none: cannot be read"):
        kubeconfig.load(tmp_path / "none")
