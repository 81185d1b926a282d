"""The messages that processes exchange, and their codec. No I/O: that is ``channel``.

There is a module for each conversation, whose first line names the sender and the receiver. This
one has all messages.
"""

from __future__ import annotations

from meshd.wire.answers import (
    Done,
    Failed,
)
from meshd.wire.certificates import (
    Allow,
    Certificates,
    CertificateState,
    CheckedFiles,
    CheckFiles,
    FileState,
)
from meshd.wire.children import (
    Children,
    ChildStates,
    Probed,
    ReloadNames,
    ReplacePool,
    RestartRoles,
    RoleStatus,
    RunProbe,
)
from meshd.wire.codec import (
    HEADER_SIZE,
    MAX_FRAME,
    AnyMessage,
    body_size,
    decode,
    encode,
)
from meshd.wire.configuring import (
    Apply,
    Change,
    Changed,
    DeleteNamed,
    Get,
    Objects,
    Rejected,
)
from meshd.wire.joining import (
    Admit,
    Admitted,
    Certified,
    Certify,
    Enlist,
    Peer,
)
from meshd.wire.looking import (
    Explain,
    Explanation,
    ProxyConfig,
    Step,
)
from meshd.wire.message import (
    Message,
)
from meshd.wire.nodes import (
    BindNode,
    ListNodes,
    MemberState,
    MemberStates,
    RemoveNode,
)
from meshd.wire.placing import (
    Observed,
    Place,
)
from meshd.wire.pods import (
    ListPods,
    Pods,
    RunPods,
)
from meshd.wire.registering import (
    Register,
    Unregister,
)
from meshd.wire.sharing import (
    Follow,
    Nodes,
    NodeStatus,
    NodeStatuses,
    Shared,
)
from meshd.wire.status import (
    ControlStatus,
    ProxyStatus,
    Status,
    Statuses,
    WorkloadStatus,
)
from meshd.wire.tokens import (
    CreateToken,
    DeleteToken,
    ListTokens,
    TokenCreated,
    TokenState,
    TokenStates,
)

__all__ = [
    "HEADER_SIZE",
    "MAX_FRAME",
    "Admit",
    "Admitted",
    "Allow",
    "AnyMessage",
    "Apply",
    "BindNode",
    "CertificateState",
    "Certificates",
    "Certified",
    "Certify",
    "Change",
    "Changed",
    "CheckFiles",
    "CheckedFiles",
    "ChildStates",
    "Children",
    "ControlStatus",
    "CreateToken",
    "DeleteNamed",
    "DeleteToken",
    "Done",
    "Enlist",
    "Explain",
    "Explanation",
    "Failed",
    "FileState",
    "Follow",
    "Get",
    "ListNodes",
    "ListPods",
    "ListTokens",
    "MemberState",
    "MemberStates",
    "Message",
    "NodeStatus",
    "NodeStatuses",
    "Nodes",
    "Objects",
    "Observed",
    "Peer",
    "Place",
    "Pods",
    "Probed",
    "ProxyConfig",
    "ProxyStatus",
    "Register",
    "Rejected",
    "ReloadNames",
    "RemoveNode",
    "ReplacePool",
    "RestartRoles",
    "RoleStatus",
    "RunPods",
    "RunProbe",
    "Shared",
    "Status",
    "Statuses",
    "Step",
    "TokenCreated",
    "TokenState",
    "TokenStates",
    "Unregister",
    "WorkloadStatus",
    "body_size",
    "decode",
    "encode",
]
