"""The part of httpbin that the tutorial uses: it shows what it was sent, and fails on demand."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import Any, Final

from web import Request, Response, Route, as_json, serve

_MOST: Final = 10.0
"""Seconds that it delays at most."""


def _headers(request: Request) -> dict[str, str]:
    """Return the headers; several of one name are joined, as the protocol allows."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _seen(request: Request) -> dict[str, Any]:
    host = request.headers.get("host", "")
    return {
        "args": {name: values[0] for name, values in request.query.items()},
        "headers": _headers(request),
        "origin": request.client,
        "url": f"http://{host}{request.path}",
    }


def show(request: Request) -> Response:
    return as_json(_seen(request))


def headers(request: Request) -> Response:
    return as_json({"headers": _headers(request)})


def address(request: Request) -> Response:
    return as_json({"origin": request.client})


def agent(request: Request) -> Response:
    return as_json({"user-agent": request.headers.get("user-agent")})


def identifier(_request: Request) -> Response:
    return as_json({"uuid": str(uuid.uuid4())})


def anything(request: Request, _rest: str | None = None) -> Response:
    text = request.body.decode(errors="replace")
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    form = request.form if "urlencoded" in request.headers.get("content-type", "") else {}
    more = {"method": request.method, "data": text, "form": form, "json": value}
    return as_json(_seen(request) | more | {"hostname": os.environ.get("HOSTNAME", "")})


def status(_request: Request, code: str) -> Response:
    return Response(int(code)) if 200 <= int(code) <= 599 else as_json({"error": "no status"}, 400)


def delay(request: Request, seconds: str) -> Response:
    time.sleep(min(float(seconds), _MOST))
    return anything(request)


def plenty(_request: Request, count: str) -> Response:
    return Response(200, b"*" * min(int(count), 1024 * 1024), "application/octet-stream")


ROUTES: list[Route] = [
    ("GET|HEAD", "/", show),
    ("GET|HEAD", "/get", show),
    ("POST", "/post", anything),
    ("PUT", "/put", anything),
    ("PATCH", "/patch", anything),
    ("DELETE", "/delete", anything),
    ("GET|POST|PUT|PATCH|DELETE", "/anything(/.*)?", anything),
    ("GET|HEAD", "/headers", headers),
    ("GET", "/ip", address),
    ("GET", "/user-agent", agent),
    ("GET", "/uuid", identifier),
    ("GET|POST|PUT|DELETE", r"/status/(\d{3})", status),
    ("GET|POST|PUT|DELETE", r"/delay/(\d{1,3}(?:\.\d+)?)", delay),
    ("GET", r"/bytes/(\d{1,7})", plenty),
]

if __name__ == "__main__":
    serve(ROUTES, 8000)
