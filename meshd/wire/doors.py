"""What each process may be asked: it takes the requests of its conversations, and no others."""

from __future__ import annotations

from typing import Final

from msgspec.msgpack import Decoder

from meshd.wire import (
    certificates,
    children,
    cluster,
    configuring,
    ending,
    enrolling,
    joining,
    locating,
    looking,
    nodes,
    placing,
    pods,
    registering,
    sharing,
    status,
    tokens,
    unit_changes,
)

ToSupervisor = (
    children.Children
    | children.RestartRoles
    | children.ReloadNames
    | children.ReplacePool
    | children.RunProbe
    | children.FetchKeys
)
ToCapture = placing.Place | unit_changes.UnitRequest | ending.ConnectionRequest
ToAuthority = (
    tokens.CreateToken
    | tokens.ListTokens
    | tokens.DeleteToken
    | nodes.ListNodes
    | nodes.RemoveNode
    | nodes.BindNode
    | joining.Admit
    | joining.Enlist
    | joining.Certify
)
"""The identity role of a server, about other nodes."""
AboutSecrets = certificates.CheckFiles | ToAuthority
ToIdentity = certificates.Allow | AboutSecrets
ToMesh = (
    registering.Register
    | registering.Unregister
    | cluster.Objects
    | cluster.Slices
    | cluster.Trouble
    | enrolling.Enroll
    | enrolling.EnrollAgain
    | enrolling.Unenroll
    | enrolling.Await
    | configuring.Apply
    | configuring.DeleteNamed
    | configuring.Get
    | status.Status
    | looking.ProxyConfig
    | looking.Explain
    | looking.AboutWorkload
)
ToMeshOfServer = sharing.Follow | ToMesh
ToServer = sharing.Nodes | nodes.RemoveNode | nodes.BindNode
ToTestbed = pods.ListPods | pods.RunPods

SUPERVISOR: Final[Decoder[ToSupervisor]] = Decoder(ToSupervisor)
LOCATING: Final[Decoder[locating.Locate]] = Decoder(locating.Locate)
CAPTURE: Final[Decoder[ToCapture]] = Decoder(ToCapture)
IDENTITY: Final[Decoder[ToIdentity]] = Decoder(ToIdentity)
MESH: Final[Decoder[ToMesh]] = Decoder(ToMesh)
MESH_OF_SERVER: Final[Decoder[ToMeshOfServer]] = Decoder(ToMeshOfServer)
SERVER: Final[Decoder[ToServer]] = Decoder(ToServer)
TESTBED: Final[Decoder[ToTestbed]] = Decoder(ToTestbed)
