"""Bookinfo's services by themselves, over the loopback interface."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from meshd.demo import bookinfo
from meshd.pods.images import read_image_map
from tests.ports import free_port
from tests.waiting import PATIENCE

HOME = Path(bookinfo.__file__).parent


@contextlib.contextmanager
def running(program: str, *arguments: str, **environment: str) -> Generator[int]:
    """A service in a process of its own; its port."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, program, *(arguments or (str(port),))],
        cwd=HOME / "apps",
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("::1", port)):
                    break
                assert process.poll() is None, f"{program} ended"
                assert time.monotonic() < deadline, f"{program} does not listen"
                time.sleep(0.02)
            yield port
        finally:
            process.kill()


def ask(
    port: int, path: str, method: str = "GET", body: str = "", **headers: str
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body or None, headers=named)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text, {name.lower(): value for name, value in response.getheaders()}


def ask_json(port: int, path: str) -> Any:
    status, text, _ = ask(port, path)
    assert status == 200, text
    return json.loads(text)


@pytest.fixture
def ratings() -> Iterator[int]:
    with running("ratings.py") as port:
        yield port


class Recorder:
    """A service that answers one thing, and keeps the headers that it was sent."""

    def __init__(self, status: int = 503, body: str = "") -> None:
        recorder = self
        self.headers: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                recorder.headers.append({k.lower(): v for k, v in self.headers.items()})
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = str(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_details_are_those_of_the_book() -> None:
    with running("details.py") as port:
        details = ask_json(port, "/details/0")
        assert (details["id"], details["author"], details["ISBN-10"]) == (
            0,
            "William Shakespeare",
            "1234567890",
        )
        assert ask(port, "/details/x")[0] == 400
        assert ask(port, "/nothing")[0] == 404
        assert ask(port, "/health", "POST")[0] == 405
        assert ask_json(port, "/health") == {"status": "Details is healthy"}


def test_ratings_are_kept_when_posted(ratings: int) -> None:
    assert ask_json(ratings, "/ratings/0") == {
        "id": 0,
        "ratings": {"Reviewer1": 5, "Reviewer2": 4},
    }
    assert ask(ratings, "/ratings/0", "POST", '{"Reviewer1": 1}')[0] == 200
    assert ask_json(ratings, "/ratings/0")["ratings"] == {"Reviewer1": 1}
    assert ask(ratings, "/ratings/0", "POST", "[1]")[0] == 400


@pytest.mark.parametrize("color", ["black", "red"])
def test_reviews_have_stars_of_their_versions_colour(ratings: int, color: str) -> None:
    with running(
        "reviews.py",
        ENABLE_RATINGS="true",
        STAR_COLOR=color,
        RATINGS_HOSTNAME="127.0.0.1",
        RATINGS_SERVICE_PORT=str(ratings),
        HOSTNAME="reviews-1",
    ) as port:
        found = ask_json(port, "/reviews/0")
    assert found["podname"] == "reviews-1"
    assert [review["rating"] for review in found["reviews"]] == [
        {"stars": 5, "color": color},
        {"stars": 4, "color": color},
    ]


def test_the_first_version_of_reviews_has_no_stars() -> None:
    with running("reviews.py") as port:
        reviews = ask_json(port, "/reviews/0")["reviews"]
    assert [review["reviewer"] for review in reviews] == ["Reviewer1", "Reviewer2"]
    assert not any("rating" in review for review in reviews)


def test_reviews_without_ratings_say_so_and_hand_the_callers_headers_on() -> None:
    with (
        Recorder() as recorder,
        running(
            "reviews.py",
            ENABLE_RATINGS="true",
            RATINGS_HOSTNAME="127.0.0.1",
            RATINGS_SERVICE_PORT=recorder.port,
        ) as port,
    ):
        headers = {"x_request_id": "r1", "end_user": "john", "traceparent": "00-1", "x_other": "no"}
        status, text, _ = ask(port, "/reviews/0", **headers)
    ratings = [review["rating"] for review in json.loads(text)["reviews"]]
    assert status == 200
    assert ratings == [{"error": "Ratings service is currently unavailable"}] * 2
    assert recorder.headers[0]["x-request-id"] == "r1"
    assert recorder.headers[0]["end-user"] == "john"
    assert recorder.headers[0]["traceparent"] == "00-1"
    assert "x-other" not in recorder.headers[0]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, '{"error": "down"}'),
        (200, '{"ratings": null}'),
        (200, '{"ratings": 5}'),
        (200, "[]"),
        (200, "<html>"),
        (302, ""),
        (400, '{"error": "bad"}'),
        (500, "{}"),
    ],
)
def test_reviews_answer_whatever_ratings_say(status: int, body: str) -> None:
    with (
        Recorder(status, body) as recorder,
        running(
            "reviews.py",
            ENABLE_RATINGS="true",
            RATINGS_HOSTNAME="127.0.0.1",
            RATINGS_SERVICE_PORT=recorder.port,
        ) as port,
    ):
        reviews = ask_json(port, "/reviews/0")["reviews"]
    unavailable = {"error": "Ratings service is currently unavailable"}
    assert [review["rating"] for review in reviews] == [unavailable] * 2


@pytest.mark.parametrize("body", ["[]", '{"reviews": 5}', '{"reviews": [5]}'])
def test_the_page_answers_whatever_reviews_say(body: str) -> None:
    with (
        Recorder(200, body) as recorder,
        running(
            "productpage.py",
            **{
                f"{service}_{part}": value
                for service in ("REVIEWS", "DETAILS")
                for part, value in (
                    ("HOSTNAME", "127.0.0.1"),
                    ("SERVICE_PORT", recorder.port),
                )
            },
        ) as port,
    ):
        assert ask(port, "/productpage")[0] in {200, 500}


def test_the_page_names_a_signed_in_user_to_the_services_and_nobody_else() -> None:
    with Recorder() as recorder:
        every = {
            f"{name}_{part}": value
            for name in ("DETAILS", "REVIEWS", "RATINGS")
            for part, value in (("HOSTNAME", "127.0.0.1"), ("SERVICE_PORT", recorder.port))
        }
        with running("productpage.py", **every) as port:
            status, _, headers = ask(port, "/login", "POST", "username=john&passwd=x")
            assert (status, headers["location"]) == (302, "/productpage")
            cookie = headers["set-cookie"].partition(";")[0]
            _, signed_in, _ = ask(port, "/productpage", cookie=cookie)
            assert "john (<a href" in signed_in
            assert {seen.get("end-user") for seen in recorder.headers} == {"john"}
            assert len(recorder.headers) == 3  # details once, reviews twice
            recorder.headers.clear()
            ask(port, "/productpage", end_user="mary")
            assert {seen.get("end-user") for seen in recorder.headers} == {None}
            assert ask(port, "/logout")[2]["set-cookie"].startswith("session=;")
            assert ask(port, "/login", "POST", "username=a%0d%0ab")[0] == 400


def test_the_page_stands_when_no_service_answers() -> None:
    refused = {f"{name}_HOSTNAME": "127.0.0.1" for name in ("DETAILS", "REVIEWS", "RATINGS")}
    with running(
        "productpage.py", **refused, DETAILS_SERVICE_PORT="1", REVIEWS_SERVICE_PORT="1"
    ) as port:
        status, text, _ = ask(port, "/productpage")
        assert status == 200
        assert "<title>Simple Bookstore App</title>" in text
        assert "Error fetching product reviews!" in text
        assert "Sorry, product reviews are currently unavailable for this book." in text
        assert ask(port, "/api/v1/products/0/reviews")[0] == 500
        assert ask(port, "/api/v1/products/7")[0] == 404
        assert ask(port, "/static/bookinfo.css")[2]["content-type"] == "text/css"
        assert ask(port, "/static/../productpage.py")[0] == 404
        assert ask(port, "/static/%2e%2e/productpage.py")[0] == 404


def test_httpbin_shows_what_it_was_sent_and_answers_as_asked() -> None:
    with running("httpbin.py") as port:
        assert ask_json(port, "/get?a=1")["args"] == {"a": "1"}
        status, text, _ = ask(port, "/anything/x", "PUT", '{"a": 1}', x_mine="yes")
        found = json.loads(text)
        assert (status, found["method"], found["json"]) == (200, "PUT", {"a": 1})
        assert found["headers"]["x-mine"] == "yes"
        assert ask(port, "/status/418")[0] == 418
        began = time.monotonic()
        assert ask(port, "/delay/0.3")[0] == 200
        assert time.monotonic() - began >= 0.3
        assert len(ask(port, "/bytes/2000")[1]) == 2000


def test_one_connection_carries_many_requests() -> None:
    with running("details.py") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.connect()
        first = connection.sock
        for _ in range(20):
            connection.request("GET", "/details/0")
            assert connection.getresponse().read()
            assert connection.sock is first
        connection.close()


def test_tcp_echo_answers_each_line_with_its_prefix() -> None:
    port = free_port()
    with running_echo(port) as address, socket.create_connection(address) as connection:
        connection.sendall(b"a\nb\n")
        file = connection.makefile("rb")
        assert [file.readline(), file.readline()] == [b"one a\n", b"one b\n"]
        file.close()


@contextlib.contextmanager
def running_echo(port: int) -> Generator[tuple[str, int]]:
    arguments = [sys.executable, "tcp_echo.py", str(port), "one"]
    with subprocess.Popen(arguments, cwd=HOME / "apps", stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert b"listening" in process.stdout.readline()
            yield "127.0.0.1", port
        finally:
            process.kill()


def test_load_counts_what_came_back() -> None:
    with running("httpbin.py") as port:
        done = subprocess.run(
            [
                sys.executable,
                "load.py",
                "-n",
                "20",
                "-c",
                "3",
                f"http://127.0.0.1:{port}/status/503",
            ],
            cwd=HOME / "apps",
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.startswith("Code 503 : 20 (100.0 %)\n")


def test_every_image_of_the_map_has_its_program() -> None:
    images = read_image_map(HOME / "images.yaml").images
    programs = [
        Path(image.directory, image.command[1])
        for image in images.values()
        if image.command[0] == "python3"
    ]
    assert len(programs) >= 8
    assert all(program.is_file() for program in programs)
