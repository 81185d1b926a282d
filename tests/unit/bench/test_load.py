"""What load generators print is understood, and what is not theirs is refused."""

from __future__ import annotations

import pytest

from tests.bench import load

WRK = """\
Running 1s test @ http://127.0.0.1:8080/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   150.00us  90.00us   3.00ms   90.00%
  Latency Distribution
     50%  120.00us
     75%    1.10ms
     90%    2.00ms
     99%    1.50s
  20000 requests in 2.00s, 3.00MB read
Requests/sec:  10000.00
Transfer/sec:      1.50MB
"""
TROUBLE = """\
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 5000
Requests/sec:"""
H2LOAD = """\
finished in 2.00s, 1000.50 req/s, 50.00KB/s
requests: 2000 total, 2000 started, 2000 done, 1999 succeeded, 1 failed, 0 errored, 0 timeout
"""


def test_wrk_gives_rate_and_quantiles_in_seconds() -> None:
    found = load.parse_wrk(WRK)

    assert (found.rate, found.p99, found.failed) == (10000, 1.5, 0)
    assert found.p50 == pytest.approx(120e-6)


def test_refused_requests_do_not_count_into_the_rate() -> None:
    found = load.parse_wrk(WRK.replace("Requests/sec:", TROUBLE))

    assert found.rate == pytest.approx(7500)
    assert found.failed == 5000 + 10


def test_h2load_takes_latencies_out_of_its_log() -> None:
    log = "".join(f"1\t200\t{number * 1000}\n" for number in range(1, 101))

    found = load.parse_h2load(H2LOAD, log)

    assert (found.rate, found.failed) == (1000.5, 1)
    assert found.p50 == pytest.approx(0.051)
    assert found.p99 == pytest.approx(0.1)


def test_h2load_answers_that_are_refusals_do_not_count_into_the_rate() -> None:
    found = load.parse_h2load(H2LOAD, "1\t200\t1000\n1\t503\t10\n")

    assert (found.rate, found.p50) == (pytest.approx(500.25), pytest.approx(0.001))


@pytest.mark.parametrize("text", ["", "unable to connect to 198.18.0.1:80"])
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not what a load generator prints"):
        load.parse_wrk(text)
    with pytest.raises(ValueError, match="not what a load generator prints"):
        load.parse_h2load(text, "")


def test_a_new_connection_for_each_request_is_asked_for_by_a_header() -> None:
    assert "Connection: close" in load.wrk("http://x/", "x", 1, keep_alive=False)
    assert "Connection: close" not in load.wrk("http://x/", "x", 1)


def test_a_grpc_call_is_a_request_with_a_framed_message() -> None:
    command = load.grpc(load.h2load("http://x/", "x", 1, "log"), "body")

    assert command[-1] == "http://x/bench.Hello/Say"
    assert command[command.index("-d") + 1] == "body"
    assert load.GRPC_MESSAGE[0] == 0
    assert int.from_bytes(load.GRPC_MESSAGE[1:5]) == len(load.GRPC_MESSAGE) - 5
