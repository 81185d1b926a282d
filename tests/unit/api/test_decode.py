"""What is said about values that are not of their type."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from meshd.api.base import Duration
from meshd.api.decode import Mistake, decode_all
from meshd.api.values import Label, PortNumber
from meshd.base.json_values import Json


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Range(msgspec.Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Everything(msgspec.Struct):
    port: PortNumber = 1
    part: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    name: Label = "a"
    short: Annotated[str, msgspec.Meta(max_length=3)] = ""
    mode: Literal["on", "off"] = "on"
    colour: Colour = Colour.RED
    wait: Duration = Duration(0)
    many: tuple[Range, ...] = ()


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("port", 0, "expected a whole number of at least 1 and at most 65535"),
        ("port", 1.5, "expected a whole number, not a number"),
        ("part", 2, "expected a number of at least 0 and at most 1"),
        ("part", "x", "expected a number, not a text"),
        ("name", "A", "expected a DNS label (a-z, 0-9, -; at most 63)"),
        ("short", "long", "expected at most 3 characters"),
        ("mode", "maybe", '"maybe" is not one of off, on'),
        ("mode", True, "expected a text, not true or false; put it in quotes"),
        ("colour", "green", '"green" is not one of red, blue'),
        ("wait", "soon", "'soon' is not a duration such as 1.5s, 100ms or 1h"),
        ("wait", None, "'None' is not a duration such as 1.5s, 100ms or 1h"),
    ],
)
def test_a_value_that_is_refused_is_explained(field: str, value: Any, reason: str) -> None:
    assert decode_all({field: value}, Everything)[1] == (Mistake((field,), reason),)


def test_what_a_struct_refuses_as_a_whole_is_said_where_it_stands_and_of_each() -> None:
    many: list[Json] = [
        {"low": 1, "high": 2},
        {"low": 2, "high": 1},
        {"low": 9, "high": 3},
        {"low": "x"},
    ]
    _, mistakes = decode_all({"many": many, "port": 0}, Everything)

    assert [(mistake.path, mistake.reason) for mistake in mistakes] == [
        (("many", 1), "low is above high"),
        (("many", 2), "low is above high"),
        (("many", 3, "low"), "expected a whole number, not a text"),
        (("many", 3, "high"), "is required"),
        (("port",), "expected a whole number of at least 1 and at most 65535"),
    ]
