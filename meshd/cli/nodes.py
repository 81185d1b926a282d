"""The lines of ``meshctl status`` about other nodes: an agent's server, a server's agents. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from meshd import wire
from meshd.base.moments import age
from meshd.cli.output import Table, yes_no


def tables(answer: wire.Statuses, now: float) -> Iterator[Table]:
    if control := answer.control:
        yield Table(
            ("SERVER", "CONNECTED", "SINCE", "FIRST CERTIFICATE EXPIRES", "ENDS"),
            (
                (
                    control.server,
                    yes_no(control.connected),
                    _since(control.since, now),
                    control.ends_first,
                    control.ends_at or "",
                ),
            ),
        )
    if answer.nodes:
        yield Table(
            ("NODE", "CONNECTED", "SINCE", "WORKLOADS", "SYNCED", "REFUSED"),
            tuple(
                (
                    node.name,
                    yes_no(node.connected),
                    _since(node.since, now),
                    str(node.workloads),
                    yes_no(node.synced),
                    node.rejected[-1] if node.rejected else "",
                )
                for node in answer.nodes
            ),
        )


def troubles(answer: wire.Statuses, now: float) -> Iterator[str]:
    """Yield a line for each problem."""
    if control := answer.control:
        if not control.connected:
            stale = (
                f"its last configuration, {age(now - control.since)} old, is in force"
                if control.since
                else "its last configuration, from before this process started, is in force"
            )
            yield f"server {control.server}: not connected: {stale}: {control.problem}"
        elif control.problem:
            yield f"server {control.server}: {control.problem}"
        for reason in control.kept_out:
            yield f"server {control.server}: rejected workload {reason}"
        for reason in control.rejected:
            yield f"server {control.server}: refused: {reason}"
    for node in answer.nodes:
        if not node.connected:
            yield f"node {node.name}: not connected since {_since(node.since, now)}"
        if node.conflict:
            yield f"node {node.name}: {node.conflict}"
        for reason in node.rejected:
            yield f"node {node.name}: refused: {reason}"
        for reason in node.kept_out:
            yield f"node {node.name}: rejected: workload {reason}"


def _since(moment: float, now: float) -> str:
    return age(now - moment) if moment else ""
