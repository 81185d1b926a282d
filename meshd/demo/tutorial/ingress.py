"""Step (b): a Gateway admits the requests that its routes name, and no others."""

from __future__ import annotations

from typing import Final

from meshd.demo.tutorial.enrollment import SAMPLE
from meshd.demo.tutorial.tutorial import Tutorial

_SIGN_IN: Final = "-d username=john -d passwd= "
_ASKED: Final = (
    ("exact", "/productpage", "", "200"),
    ("exact", "/login", _SIGN_IN, "302"),
    ("exact", "/logout", "", "302"),
    ("prefix", "/static/bookinfo.css", "", "200"),
    ("prefix", "/api/v1/products", "", "200"),
    ("prefix", "/api/v1/products/0/ratings", "", "200"),
)
_REFUSED: Final = ("/", "/productpage/more", "/details/0", "/reviews/0", "/health")


def let_in(tutorial: Tutorial) -> None:
    answer = tutorial.run(f"{_ask()} http://$GATEWAY/productpage")
    tutorial.expect("without a Gateway there is no way in", "200" not in answer.output)
    tutorial.done(f"meshctl apply --wait -f {SAMPLE}/networking/bookinfo-gateway.yaml")
    for kind, path, options, status in _ASKED:
        answer = tutorial.run(f"{_ask(options)} http://$GATEWAY{path}", shown=False)
        tutorial.expect(
            f"{path} is let in ({kind}): {status}", answer.output == status, answer.output
        )
    for path in _REFUSED:
        answer = tutorial.run(f"{_ask()} http://$GATEWAY{path}", shown=False)
        tutorial.expect(f"{path} is not: 404", answer.output == "404", answer.output)


def _ask(options: str = "") -> str:
    return f"curl -sS -o /dev/null -w '%{{http_code}}' {options}".rstrip()
