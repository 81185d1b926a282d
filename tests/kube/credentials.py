"""What the processes of a cluster trust each other by: one authority, and static tokens."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.pem import DAY, certificate_pem, key_pem, new_key, rsa_key


class Credentials:
    """Files below a directory, and the token of each user."""

    def __init__(self, directory: Path, names: Sequence[str], addresses: Sequence[str]) -> None:
        """``names`` and ``addresses`` are those of the API server."""
        directory.mkdir(parents=True)
        self._directory = directory
        self._key = new_key()
        self.ca = self._write("ca.pem", certificate_pem(self._key, "cluster", ca=True))
        self.server = self._issue("server", names=names, addresses=addresses)
        self.client = self._issue("client", organization="system:masters")
        accounts = rsa_key()
        self.accounts_key = self._write("accounts.key", key_pem(accounts))
        self._tokens: dict[str, tuple[str, tuple[str, ...]]] = {}

    @property
    def tokens(self) -> str:
        """Return the file of all tokens, as --token-auth-file takes it."""
        lines = (
            f'{token},{user},{user},"{",".join(groups)}"'
            for user, (token, groups) in self._tokens.items()
        )
        return self._write("tokens.csv", "\n".join(lines).encode())

    def token(self, user: str, *groups: str) -> str:
        """Return the token of a user, who is new the first time."""
        return self._tokens.setdefault(user, (secrets.token_hex(16), groups))[0]

    def kubeconfig(self, server: str, user: str, *groups: str) -> str:
        text = self.kubeconfig_text(server, self.token(user, *groups))
        return self._write(f"{user.rpartition(':')[2]}.kubeconfig", text.encode())

    def kubeconfig_text(self, server: str, token: str) -> str:
        return f"""\
apiVersion: v1
kind: Config
clusters: [{{name: it, cluster: {{server: "{server}", certificate-authority: {self.ca}}}}}]
users: [{{name: it, user: {{token: {token}}}}}]
contexts: [{{name: it, context: {{cluster: it, user: it}}}}]
current-context: it
"""

    def _issue(
        self,
        name: str,
        *,
        organization: str = "",
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> tuple[str, str]:
        """Return the paths of a certificate and its key."""
        key, now = new_key(), datetime.datetime.now(datetime.UTC)
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if organization:
            parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        authority = x509.load_pem_x509_certificate(Path(self.ca).read_bytes())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(parts))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        known = [
            *map(x509.DNSName, names),
            *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses),
        ]
        if known:
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM)
        return self._write(f"{name}.pem", pem), self._write(f"{name}.key", key_pem(key))

    def _write(self, name: str, content: bytes) -> str:
        path = self._directory / name
        path.write_bytes(content)
        return str(path)
