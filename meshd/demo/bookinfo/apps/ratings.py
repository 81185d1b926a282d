"""Bookinfo's ratings service: the stars of each reviewer."""

from __future__ import annotations

import json

from web import Request, Response, Route, as_json, serve

_ratings: dict[int, dict[str, int]] = {}
"""What was posted; it does not outlive the process."""


def ratings(_request: Request, product: str) -> Response:
    if not product.isdigit():
        return as_json({"error": "please provide numeric product ID"}, 400)
    given = _ratings.get(int(product), {"Reviewer1": 5, "Reviewer2": 4})
    return as_json({"id": int(product), "ratings": given})


def rate(request: Request, product: str) -> Response:
    try:
        given = {str(name): int(stars) for name, stars in json.loads(request.body).items()}
        _ratings[int(product)] = given
    except (ValueError, AttributeError, TypeError):
        return as_json({"error": "please provide valid ratings JSON"}, 400)
    return ratings(request, product)


def health(_request: Request) -> Response:
    return as_json({"status": "Ratings is healthy"})


ROUTES: list[Route] = [
    ("GET", "/ratings/([^/]+)", ratings),
    ("POST", "/ratings/([^/]+)", rate),
    ("GET", "/health", health),
]

if __name__ == "__main__":
    serve(ROUTES)
