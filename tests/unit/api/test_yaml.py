from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.decode import decode_all
from meshd.api.yaml import (
    MAX_BYTES,
    MAX_DEPTH,
    Document,
    ManifestError,
    decode,
    read_documents,
    read_path,
    read_text,
    show_path,
)
from meshd.base.json_values import JsonObject, mapping_in


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int
    names: tuple[str, ...] = ()


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    inner: Inner | None = None
    listed: tuple[Inner, ...] = ()
    labels: dict[str, str] = {}
    by_port: dict[int, str] = {}


def one(text: str) -> Document:
    (document,) = read_documents(text, "f.yaml")
    return document


def refusal(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        read_documents(text, "f.yaml")
    return str(caught.value)


def test_each_value_knows_its_line() -> None:
    document = one("a: 1\nb:\n  c:\n  - x\n  - d: 2\n")
    assert document.value == {"a": 1, "b": {"c": ["x", {"d": 2}]}}
    assert document.line_of(("b", "c", 1, "d")) == 5
    assert document.line_of(("b", "c", 1, "missing")) == 5
    assert document.line_of(("nowhere",)) == 1


def test_empty_documents_are_left_out() -> None:
    documents = read_documents("---\n---\na: 1\n---\n# only a comment\n---\nb: 2\n...\n", "f.yaml")
    assert [(found.value, found.line) for found in documents] == [({"a": 1}, 3), ({"b": 2}, 7)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5", 5),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("0x10", 16),
        ("1.5", 1.5),
        ("~", None),
        ("true", True),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ("v1", "v1"),
        ("|-\n  two\n  lines", "two\nlines"),
    ],
)
def test_scalars_mean_what_people_mean(written: str, meant: Any) -> None:
    assert one(f"a: {written}\n").value == {"a": meant}


def test_aliases_and_merge_keys_bring_in_what_they_name() -> None:
    text = "x: &x {b: 1, c: 1}\ny: {<<: *x, b: 2}\nz: {<<: [*x, {c: 3, d: 4}]}\nw: [*x]\n"
    assert one(text).value == {
        "x": {"b": 1, "c": 1},
        "y": {"b": 2, "c": 1},
        "z": {"b": 1, "c": 1, "d": 4},
        "w": [{"b": 1, "c": 1}],
    }


def test_explicit_keys_take_precedence_over_merged_keys_even_if_they_come_first() -> None:
    written = mapping_in(one("x: &x {b: 1}\ny: {b: 2, <<: *x}\n").value)
    assert written["y"] == {"b": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: written twice"),
        ("x:\n  y: {a: 1, a: 2}\n", "f.yaml:2: x.y.a: written twice"),
        ("a: [1\nb: 2\n", "f.yaml:2: not YAML:"),
        ("a:\n\tb: 1\n", "f.yaml:2: not YAML: a tab stands where only spaces may"),
        ("a: *b\n", "f.yaml:1: not YAML: *b is defined nowhere before"),
        ("a: &x [*x]\n", "*x is defined nowhere before"),
        ("? [a]\n: b\n", "a key must be a plain text"),
        ("a: b\0c\n", "f.yaml:1: not YAML: "),
        ("a: \ud800\n", "f.yaml:1: not YAML: "),
        ("a: !foo x\n", "a: not YAML: !foo 'x' is not a value"),
        ("a: !!bool 7\n", "is not a value"),
        ("a: " + "9" * 5000 + "\n", "is not a value"),
        ("a:\n  <<: 3\n", "f.yaml:2: a: << takes a mapping"),
        ("a: !!python/object/apply:os.system ['x']\n", ""),
    ],
)
def test_bad_yaml_is_one_clear_line(text: str, message: str) -> None:
    if not message:  # a tag on a sequence is passed over, never obeyed
        assert one(text).value == {"a": ["x"]}
        return
    said = refusal(text)
    assert message in said
    assert "\n" not in said


def test_a_bomb_of_aliases_is_defused() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12)
    )
    assert "more than 500000 values" in refusal(text)


@pytest.mark.parametrize("opened", ["[", "{a: ", "- "])
def test_nesting_without_end_is_refused(opened: str) -> None:
    assert "nest" in refusal(opened * 300_000)
    assert f"nested more than {MAX_DEPTH} deep" in refusal(opened * (MAX_DEPTH + 2) + "x")


def test_a_text_over_the_limit_is_refused() -> None:
    assert "over the limit" in refusal("#" * (MAX_BYTES + 1))


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    with file.open("wb") as big:
        big.truncate(50 * 1024**3)  # sparse: reading it whole would exhaust the memory
    with pytest.raises(ManifestError, match=r"big\.yaml:1: .*over the limit"):
        read_text(file)


def test_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"a: 1\nb: \xe4\n")
    with pytest.raises(ManifestError, match=r"latin\.yaml:2: not UTF-8"):
        read_text(file)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert one(read_text(file)).value == {"a": 1}


def test_a_file_that_is_missing_or_a_directory_is_one_clear_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ManifestError, match="cannot be read"):
            read_text(path)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ManifestError):
        read_documents(text, "f.yaml")


@given(st.lists(st.sampled_from("{}[]:-,&*!|>'\"#%@` \n\tab1?<"), max_size=60).map("".join))
def test_any_mess_of_yaml_signs_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ManifestError):
        read_documents(text, "f.yaml")


def test_an_unknown_key_names_the_nearest_known() -> None:
    document = one("name: x\ninner:\n  prot: 1\n")
    with pytest.raises(ManifestError) as caught:
        decode(document, document.value, Outer)
    assert str(caught.value) == "f.yaml:3: inner.prot: unknown field (did you mean port?)"


def test_all_mistakes_of_a_value_are_found() -> None:
    value = one(
        "name: 5\n"
        "innner: {}\n"
        "inner: {port: x, names: [a, 1]}\n"
        "listed:\n- port: 1\n- {port: 2, nmaes: []}\n"
        "labels: {a: b, c: true}\n"
        "by_port: {1: a, x: b}\n"
    ).value
    decoded, mistakes = decode_all(value, Outer)
    assert decoded is None
    assert {(mistake.path, mistake.reason) for mistake in mistakes} == {
        (("name",), "expected a text, not a whole number; put it in quotes"),
        (("innner",), "unknown field (did you mean inner?)"),
        (("inner", "port"), "expected a whole number, not a text"),
        (("inner", "names", 1), "expected a text, not a whole number; put it in quotes"),
        (("listed", 1, "nmaes"), "unknown field (did you mean names?)"),
        (("labels", "c"), "expected a text, not true or false; put it in quotes"),
        (("by_port",), "expected a whole number as each key"),
    }


def test_a_missing_field_is_reported_and_all_others_are_still_checked() -> None:
    _, mistakes = decode_all({"listed": [{}, {"x": 1}], "labels": {"a": 1}}, Outer)
    assert [(mistake.path, mistake.reason) for mistake in mistakes] == [
        (("listed", 0, "port"), "is required"),
        (("listed", 1, "x"), "unknown field (known: names, port)"),
        (("listed", 1, "port"), "is required"),
        (("labels", "a"), "expected a text, not a whole number; put it in quotes"),
        (("name",), "is required"),
    ]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "inner", "port", "names", "listed", "labels", "by_port", "1"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_value_is_decoded_or_its_mistakes_told(value: Any) -> None:
    decoded, mistakes = decode_all(value, Outer)
    assert (decoded is None) == bool(mistakes)
    assert len({mistake.path for mistake in mistakes}) == len(mistakes)


@pytest.mark.parametrize("text", ["18446744073709551616", "-9223372036854775809", ".nan", "-.inf"])
def test_a_number_that_no_message_can_hold_is_refused_where_it_stands(text: str) -> None:
    with pytest.raises(ManifestError, match=r"f\.yaml:2: b"):
        read_documents(f"a: 1\nb: {text}\n", "f.yaml")


def test_a_mistake_among_many_values_is_found_by_looking_at_each_once() -> None:
    labels: JsonObject = {f"key-{number}": "value" for number in range(50_000)}
    right: JsonObject = {"name": "n", "labels": labels}
    wrong: JsonObject = {"name": "n", "labels": {**labels, "x": 5}}
    spent = [time.process_time()]
    for value, found in ((right, []), (wrong, [("labels", "x")])):
        assert [mistake.path for mistake in decode_all(value, Outer)[1]] == found
        spent.append(time.process_time())
    # To convert all of it again for each label took ten thousand times as long.
    assert spent[2] - spent[1] < 500 * (spent[1] - spent[0])


@pytest.mark.parametrize("path", [(), ("spec",), ("spec", "http", 10, "match", 0, "uri")])
def test_a_shown_path_is_read_back(path: tuple[str | int, ...]) -> None:
    assert read_path(show_path(path)) == path
