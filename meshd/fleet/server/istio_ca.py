"""The certificate API that nodes and server speak: ``istio.v1.auth.IstioCertificateService``.

After https://github.com/istio/api/blob/master/security/v1alpha1/ca.proto. Both ends prove
themselves by TLS.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import grpc
import grpc.aio
from cryptography import x509
from google.protobuf.message import DecodeError

from meshd import wire
from meshd.base.credentials import UNREADABLE
from meshd.base.errors import InvalidInputError, MeshdError
from meshd.fleet.joining.node import parse_node
from meshd.fleet.server.caller import Caller
from meshd.protos.istio_ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from meshd.wire.joining import Peer

SERVICE: Final = "istio.v1.auth.IstioCertificateService"
METHOD: Final = f"/{SERVICE}/CreateCertificate"
_MOST_BYTES: Final = 64 * 1024
"""Of a request, which has one CSR and little else."""


def peer_of(certificate: bytes, trust_domain: str) -> Peer:
    """Return the node that a certificate is for. ``certificate``: in DER, verified by TLS.

    Raises InvalidInputError when it is no node's of this mesh.
    """
    try:
        leaf = x509.load_der_x509_certificate(certificate)
    except UNREADABLE:
        raise InvalidInputError("your certificate cannot be read") from None
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, *UNREADABLE):
        uris = []
    found = parse_node(uris[0]) if len(uris) == 1 else None
    if found is None:
        raise InvalidInputError("this is for nodes, and your certificate is not a node's")
    if found[0] != trust_domain:
        raise InvalidInputError(f"this mesh is {trust_domain}, not {found[0]}")
    return Peer(found[1], f"{leaf.serial_number:x}", leaf.not_valid_after_utc.timestamp())


def decode(message: bytes) -> IstioCertificateRequest:
    """Decode a request. Raises InvalidInputError, also for one that is larger than requests are."""
    if len(message) > _MOST_BYTES:
        raise InvalidInputError(
            f"the request has {len(message)} bytes; {_MOST_BYTES} are allowed: ask for one"
            " certificate with each request"
        )
    try:
        return IstioCertificateRequest.FromString(message)
    except DecodeError:
        raise InvalidInputError("not a request for a certificate") from None


_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, IstioCertificateResponse]"
Sign = Callable[[Peer, bytes, float], Awaitable[wire.Certified]]
"""For whom, CSR in PEM, life time in seconds. Raises MeshdError."""


def handler(sign: Sign, peer: Callable[[Caller], Peer]) -> grpc.GenericRpcHandler:
    """Return the gRPC handler of a server.

    ``peer``: the node at the other end of a call's context; raises InvalidInputError if there is
    none.
    """

    async def create(message: bytes, context: _Context) -> IstioCertificateResponse:
        try:
            asking, request = peer(context), decode(message)
            if request.validity_duration < 0:
                raise InvalidInputError("validity_duration: a certificate lasts 0 seconds or more")
            certified = await sign(asking, request.csr.encode(), float(request.validity_duration))
        except InvalidInputError as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except MeshdError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        else:
            return IstioCertificateResponse(
                cert_chain=[*split(certified.chain), certified.roots.decode()]
            )

    method: grpc.RpcMethodHandler[bytes, IstioCertificateResponse]
    method = grpc.unary_unary_rpc_method_handler(
        create, response_serializer=IstioCertificateResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(SERVICE, {"CreateCertificate": method})


def split(chain: bytes) -> list[str]:
    """Split a PEM text into its certificates."""
    end = "-----END CERTIFICATE-----\n"
    return [part + end for part in chain.decode().split(end) if part.strip()]
