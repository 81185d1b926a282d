"""Bookinfo's reviews service. Version 1 has no stars, version 2 black ones, version 3 red ones.

The environment sets the version: ENABLE_RATINGS and STAR_COLOR.
"""

from __future__ import annotations

import os
from typing import Any, Final

from web import Request, Response, Route, as_json, get, serve

STARS: Final = os.environ.get("ENABLE_RATINGS", "false").lower() == "true"
COLOR: Final = os.environ.get("STAR_COLOR", "black")
RATINGS: Final = (
    f"{os.environ.get('RATINGS_HOSTNAME', 'ratings')}:"
    f"{os.environ.get('RATINGS_SERVICE_PORT', '9080')}"
)
TIMEOUT: Final = 10.0 if COLOR == "black" else 2.5
"""Seconds that the ratings may take. The tutorial's fault injection finds out about the first."""

TEXTS: Final = {
    "Reviewer1": "Two pairs of twins, one day, no end of mix-ups: I laughed out loud on the train.",
    "Reviewer2": "Light and quick. Those who look for depth should begin with another play.",
}


def reviews(request: Request, product: str) -> Response:
    if not product.isdigit():
        return as_json({"error": "please provide numeric product ID"}, 400)
    given = _ratings(request, product) if STARS else None
    return as_json(
        {
            "id": product,
            "podname": os.environ.get("HOSTNAME", ""),
            "clustername": os.environ.get("CLUSTER_NAME", "null"),
            "reviews": [_review(name, text, given) for name, text in TEXTS.items()],
        }
    )


def _ratings(request: Request, product: str) -> dict[str, Any]:
    """Return stars by reviewer; nothing if there is no valid answer."""
    headers = request.forwarded("end-user")
    try:
        status, found = get(RATINGS, f"/ratings/{product}", headers, TIMEOUT)
    except (OSError, ValueError) as error:
        print(f"ratings: {error}", flush=True)
        return {}
    given = found.get("ratings") if status == 200 and isinstance(found, dict) else None
    if isinstance(given, dict):
        return given
    print(f"ratings: status {status}, {found}", flush=True)
    return {}


def _review(name: str, text: str, given: dict[str, Any] | None) -> dict[str, Any]:
    review: dict[str, Any] = {"reviewer": name, "text": text}
    if given is None:
        return review
    if name in given:
        return review | {"rating": {"stars": given[name], "color": COLOR}}
    return review | {"rating": {"error": "Ratings service is currently unavailable"}}


def health(_request: Request) -> Response:
    return as_json({"status": "Reviews is healthy"})


ROUTES: list[Route] = [("GET", "/reviews/([^/]+)", reviews), ("GET", "/health", health)]

if __name__ == "__main__":
    serve(ROUTES)
