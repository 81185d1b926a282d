"""Where the API server is, and who we are to it, from a kubeconfig.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from meshd.api.yaml import decode, read_documents
from meshd.base.errors import InvalidInputError


class _Dashed(msgspec.Struct, frozen=True, rename="kebab"):
    """Kubeconfigs write their fields with dashes. Unknown fields are ignored."""


class _Cluster(_Dashed, frozen=True):
    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""


class _User(_Dashed, frozen=True):
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    client_certificate: str = ""
    client_key: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""


class _Context(_Dashed, frozen=True):
    cluster: str
    user: str = ""


class _NamedCluster(_Dashed, frozen=True):
    name: str
    cluster: _Cluster


class _NamedUser(_Dashed, frozen=True):
    name: str
    user: _User = _User()


class _NamedContext(_Dashed, frozen=True):
    name: str
    context: _Context


class _Config(_Dashed, frozen=True):
    clusters: tuple[_NamedCluster, ...] = ()
    users: tuple[_NamedUser, ...] = ()
    contexts: tuple[_NamedContext, ...] = ()
    current_context: str = ""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to ask the API server."""

    host: str
    port: int
    tls: ssl.SSLContext
    server_name: str
    token: str = ""
    token_file: str = ""
    """It is read for each request: kubelet replaces it."""

    def authorization(self) -> str:
        """Return the header's value; empty: a certificate says who we are. Raises
        InvalidInputError."""
        token = self.token
        if self.token_file:
            try:
                token = Path(self.token_file).read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                raise InvalidInputError(f"{self.token_file}: cannot be read: {error}") from None
        return f"Bearer {token}" if token else ""


def load(path: Path) -> Access:
    """Raises InvalidInputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from None
    documents = read_documents(text, str(path))
    if len(documents) != 1:
        raise InvalidInputError(f"{path}: a kubeconfig is one document")
    config = decode(documents[0], documents[0].value, _Config)
    context = _named(config.contexts, config.current_context, path, "context").context
    cluster = _named(config.clusters, context.cluster, path, "cluster").cluster
    user = _named(config.users, context.user, path, "user").user if context.user else _User()
    return _access(path, cluster, user)


_N = TypeVar("_N", _NamedCluster, _NamedUser, _NamedContext)


def _named(items: tuple[_N, ...], name: str, path: Path, what: str) -> _N:
    found = next((one for one in items if one.name == name), None)
    if found is None:
        raise InvalidInputError(f'{path}: there is no {what} "{name}"')
    return found


def _access(path: Path, cluster: _Cluster, user: _User) -> Access:
    server = urlsplit(cluster.server)
    if server.scheme != "https" or not server.hostname:
        raise InvalidInputError(f"{path}: server {cluster.server!r} is not https://HOST[:PORT]")
    beside = path.parent
    try:
        port = server.port or 443
        tls = _trusting(cluster, beside)
        _identify(tls, user, beside)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: cannot be used: {error}") from None
    return Access(
        host=server.hostname,
        port=port,
        tls=tls,
        server_name=cluster.tls_server_name or server.hostname,
        token=user.token,
        token_file=str(beside / user.token_file) if user.token_file else "",
    )


def _trusting(cluster: _Cluster, beside: Path) -> ssl.SSLContext:
    """Raises OSError and ValueError."""
    if cluster.insecure_skip_tls_verify:
        raise ValueError("insecure-skip-tls-verify lets anybody be the API server; name its CA")
    if cluster.certificate_authority_data:
        data = base64.b64decode(cluster.certificate_authority_data).decode("ascii")
        return ssl.create_default_context(cadata=data)
    if cluster.certificate_authority:
        file = beside / cluster.certificate_authority
        return ssl.create_default_context(cafile=str(file))
    return ssl.create_default_context()


def _identify(tls: ssl.SSLContext, user: _User, beside: Path) -> None:
    """Raises OSError and ValueError."""
    if user.client_certificate_data:
        # The library takes files only; this one is nobody else's, and goes at once.
        with tempfile.NamedTemporaryFile() as file:
            for part in (user.client_certificate_data, user.client_key_data):
                file.write(base64.b64decode(part) + b"\n")
            file.flush()
            tls.load_cert_chain(file.name)
    elif user.client_certificate:
        key = str(beside / user.client_key) if user.client_key else None
        tls.load_cert_chain(str(beside / user.client_certificate), key)
