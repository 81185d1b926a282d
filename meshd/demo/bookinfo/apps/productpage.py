"""Bookinfo's product page, made of the answers of details, reviews and ratings about a book."""

from __future__ import annotations

import base64
import os
import re
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Final

import page
from web import Request, Response, Route, as_html, as_json, get, redirect, serve

PRODUCT: Final[dict[str, Any]] = {
    "id": 0,
    "title": "The Comedy of Errors",
    "descriptionHtml": page.SUMMARY,
}
TIMEOUT: Final = 3.0
"""Seconds that a service may take."""
ATTEMPTS: Final = 2
"""For the reviews. Six seconds in all: less than ratings are given, which the tutorial shows."""
_USER: Final = re.compile(r"[A-Za-z0-9@._-]{1,64}")
_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def _address(service: str) -> str:
    domain = os.environ.get("SERVICES_DOMAIN", "")
    host = os.environ.get(f"{service.upper()}_HOSTNAME", service) + (f".{domain}" if domain else "")
    return f"{host}:{os.environ.get(f'{service.upper()}_SERVICE_PORT', '9080')}"


def ask(request: Request, service: str, product: int, attempts: int = 1) -> tuple[int, Any]:
    """Return a service's status and answer; without an answer, what to show in its place."""
    headers = request.forwarded()
    if user := signed_in(request):
        headers["end-user"] = user
    status = 500
    for _ in range(attempts):
        try:
            status, found = get(_address(service), f"/{service}/{product}", headers, TIMEOUT)
        except (OSError, ValueError) as error:
            print(f"{service}: {error}", flush=True)
            continue
        if status == 200:
            return status, found
    status = status if status >= 400 else 500
    what = service if service != "details" else "product details"
    what = "product reviews" if service == "reviews" else what
    return status, {"error": f"Sorry, {what} are currently unavailable for this book."}


def signed_in(request: Request) -> str:
    """Return the user of the session cookie; empty if there is none."""
    try:
        cookie = SimpleCookie(request.headers.get("cookie", ""))
        text = cookie["session"].value if "session" in cookie else ""
        user = base64.urlsafe_b64decode(text).decode()
    except (CookieError, ValueError):
        return ""
    return user if _USER.fullmatch(user) else ""


def front(_request: Request) -> Response:
    return as_html(page.front())


def product_page(request: Request) -> Response:
    details = ask(request, "details", 0)
    reviews = ask(request, "reviews", 0, ATTEMPTS)
    return as_html(page.product(PRODUCT["title"], details, reviews, signed_in(request)))


def sign_in(request: Request) -> Response:
    user = request.form.get("username", "")
    if not _USER.fullmatch(user):
        return as_html(page.front("That is no user name."), 400)
    value = base64.urlsafe_b64encode(user.encode()).decode()
    cookie = ("Set-Cookie", f"session={value}; Path=/; HttpOnly; SameSite=Lax")
    return redirect("/productpage", cookie)


def sign_out(_request: Request) -> Response:
    cookie = ("Set-Cookie", "session=; Path=/; Max-Age=0")
    return redirect("/productpage", cookie)


def products(_request: Request) -> Response:
    return as_json([PRODUCT])


def product(request: Request, number: str) -> Response:
    if int(number) != PRODUCT["id"]:
        return as_json({"error": "product not found"}, 404)
    status, found = ask(request, "details", int(number))
    return as_json(found, status)


def part(request: Request, number: str, service: str) -> Response:
    status, found = ask(request, service, int(number), ATTEMPTS if service == "reviews" else 1)
    return as_json(found, status)


def static(_request: Request, name: str) -> Response:
    path = (_STATIC / name).resolve()
    if not (path.is_relative_to(_STATIC.resolve()) and path.is_file()):
        return as_json({"error": "not found"}, 404)
    return Response(200, path.read_bytes(), _TYPES.get(path.suffix, "application/octet-stream"))


def health(_request: Request) -> Response:
    return Response(200, b"Product page is healthy")


ROUTES: list[Route] = [
    ("GET|HEAD", r"/(?:index\.html)?", front),
    ("GET|HEAD", "/productpage", product_page),
    ("POST", "/login", sign_in),
    ("GET|POST", "/logout", sign_out),
    ("GET", "/api/v1/products", products),
    ("GET", r"/api/v1/products/(\d{1,9})", product),
    ("GET", r"/api/v1/products/(\d{1,9})/(reviews|ratings)", part),
    ("GET|HEAD", "/static/(.+)", static),
    ("GET", "/health", health),
]

if __name__ == "__main__":
    serve(ROUTES)
