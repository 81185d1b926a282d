"""Bookinfo's details service: the imprint of a book."""

from __future__ import annotations

from web import Request, Response, Route, as_json, serve

BOOK = {
    "author": "William Shakespeare",
    "year": 1595,
    "type": "paperback",
    "pages": 200,
    "publisher": "PublisherA",
    "language": "English",
    "ISBN-10": "1234567890",
    "ISBN-13": "123-1234567890",
}


def details(_request: Request, product: str) -> Response:
    if not product.isdigit():
        return as_json({"error": "please provide numeric product id"}, 400)
    return as_json({"id": int(product), **BOOK})


def health(_request: Request) -> Response:
    return as_json({"status": "Details is healthy"})


ROUTES: list[Route] = [("GET", "/details/([^/]+)", details), ("GET", "/health", health)]

if __name__ == "__main__":
    serve(ROUTES)
