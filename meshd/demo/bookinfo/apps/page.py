"""The product page's HTML. It does not know where the parts come from."""

from __future__ import annotations

from html import escape
from typing import Any, Final

TITLE: Final = "Simple Bookstore App"
SUMMARY: Final = (
    '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">About the play</a>: '
    "<b>The Comedy of Errors</b> is one of <b>William Shakespeare's</b> first plays, and the "
    "shortest that he wrote. Two pairs of twins who were parted at birth come to the same town, "
    "and everybody takes each of them for the other."
)
_FRAME: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<title>{title}</title>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1.0">
<link rel="stylesheet" href="/static/bookinfo.css">
</head>
<body>
<nav class="navbar"><a class="navbar-brand" href="/">BookInfo Sample</a>{session}</nav>
{content}
</body>
</html>
"""
_SIGN_IN: Final = """\
<form class="session" method="post" action="/login">
<input name="username" placeholder="User Name" required> \
<input name="passwd" type="password" placeholder="Password"> \
<button type="submit">Sign in</button></form>"""
_SIGN_OUT: Final = """\
<span class="session">{user} (<a href="/logout">sign out</a>)</span>"""
_DETAILS: Final = (
    ("Type", "type"),
    ("Pages", "pages"),
    ("Publisher", "publisher"),
    ("Language", "language"),
    ("ISBN-10", "ISBN-10"),
    ("ISBN-13", "ISBN-13"),
)


def _framed(content: str, session: str = "") -> str:
    return _FRAME.format(title=TITLE, content=content, session=session)


def front(problem: str = "") -> str:
    """Return the entry page."""
    told = f'<p class="error">{escape(problem)}</p>' if problem else ""
    return _framed(
        f"<main>{told}<h3>Hello! This is a simple bookstore application.</h3>"
        '<p>It consists of four services: <a href="/productpage?u=normal">productpage</a>, '
        "details, reviews and ratings.</p>"
        '<p>Its API: <a href="/api/v1/products">/api/v1/products</a></p></main>'
    )


def product(title: str, details: tuple[int, Any], reviews: tuple[int, Any], user: str) -> str:
    """Return the page of one book; ``details`` and ``reviews`` are a status and its content."""
    session = _SIGN_OUT.format(user=escape(user)) if user else _SIGN_IN
    return _framed(
        f'<header><h3 class="text-center text-primary">{escape(title)}</h3>'
        f"<p>Summary: {SUMMARY}</p></header>"
        f'<main class="row"><section><h4>Book Details</h4>{_details(*details)}</section>'
        f"<section><h4>Book Reviews</h4>{_reviews(*reviews)}</section></main>",
        session,
    )


def _problem(what: str, found: Any) -> str:
    text = escape(str((found or {}).get("error", "")))
    return f'<h4 class="error">Error fetching product {what}!</h4><p>{text}</p>'


def _details(status: int, found: Any) -> str:
    if status != 200:
        return _problem("details", found)
    rows = "".join(f"<dt>{name}:</dt><dd>{escape(str(found[key]))}</dd>" for name, key in _DETAILS)
    return f"<dl>{rows}</dl>"


def _reviews(status: int, found: Any) -> str:
    if status != 200:
        return _problem("reviews", found)
    quotes = "".join(_review(review) for review in found["reviews"])
    pod, cluster = escape(str(found.get("podname"))), str(found.get("clustername"))
    served = f"<dt>Reviews served by:</dt><dd><u>{pod}</u></dd>"
    if cluster != "null":
        served += f"<dd>on cluster <u>{escape(cluster)}</u></dd>"
    return f'{quotes}<dl class="served">{served}</dl>'


def _review(review: Any) -> str:
    text, reviewer = escape(review["text"]), escape(review["reviewer"])
    return (
        f"<blockquote><p>{text}</p><small>{reviewer}</small>"
        f"{_stars(review.get('rating'))}</blockquote>"
    )


def _stars(rating: Any) -> str:
    """Return stars: version 1 of reviews has none; the others have their own colour."""
    if rating is None:
        return ""
    if "error" in rating:
        return f"<p><i>{escape(rating['error'])}</i></p>"
    full = min(max(int(rating["stars"]), 0), 5)
    stars = '<span class="glyphicon glyphicon-star">&#9733;</span>' * full
    stars += '<span class="glyphicon glyphicon-star-empty">&#9734;</span>' * (5 - full)
    return f'<font color="{escape(rating["color"])}">{stars}</font>'
