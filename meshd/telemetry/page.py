"""The HTTP interface: /metrics, /healthz/ready, and the web page with its data."""

from __future__ import annotations

import asyncio
import importlib.resources

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from meshd.base.threads import in_thread
from meshd.settings import Paths, Settings
from meshd.telemetry import envoy_stats, metrics
from meshd.telemetry.facts import gather, unready
from meshd.telemetry.hosts import OwnHosts, own_names
from meshd.telemetry.processes import measure
from meshd.telemetry.suppressed import Journal, Tally

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PAGE_HEADERS = {
    # The page has its own style and script in it, and asks nobody but us.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


def make_app(settings: Settings, paths: Paths) -> Starlette:
    lost, tally, taking = Journal(), Tally(), asyncio.Lock()
    html = importlib.resources.files("meshd.telemetry").joinpath("page.html").read_text("utf-8")

    async def show_page(_: Request) -> Response:
        return Response(html, media_type="text/html", headers=_PAGE_HEADERS)

    async def show_state(_: Request) -> Response:
        facts = await gather(paths)
        costs = measure(process.pid for process in facts.processes if process.pid)
        value = {
            "node": settings.node_name,
            "ready": not unready(facts),
            "workloads": facts.workloads,
            "proxies": facts.proxies,
            "processes": [
                msgspec.structs.asdict(process)
                | ({"resident": cost.resident, "cpu": cost.cpu} if cost else {})
                for process in facts.processes
                for cost in [costs.get(process.pid)]
            ],
            "problems": facts.problems,
        }
        return Response(msgspec.json.encode(value), media_type="application/json")

    async def show_metrics(_: Request) -> Response:
        facts = await gather(paths)
        costs = measure(process.pid for process in facts.processes if process.pid)
        sockets = {path.stem: path for path in sorted(paths.admin_run.glob("*.sock"))}

        def render() -> bytes:
            tally.add(lost.entries())
            return metrics.render(facts, costs, settings.identity.trust_domain, tally.rows)

        async with taking:  # the journal is read once at a time
            own = await in_thread("rendering metrics", render)
        return Response(own + await envoy_stats.collect(sockets), media_type=_METRICS_TYPE)

    async def show_readiness(_: Request) -> Response:
        reason = unready(await gather(paths))
        return PlainTextResponse(f"{reason or 'ready'}\n", status_code=503 if reason else 200)

    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/api/state", show_state),
            Route("/metrics", show_metrics),
            Route("/healthz/ready", show_readiness),
        ],
        middleware=[
            Middleware(
                OwnHosts,
                own_names(settings.node_name, settings.telemetry.address, settings.telemetry.hosts),
            )
        ],
    )
