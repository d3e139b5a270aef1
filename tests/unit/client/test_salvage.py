# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.client.salvage import (
    ILLEGIBLE,
    ArrayCutter,
    array_elements,
    first_document,
    loose_json,
    object_members,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


class TestArrayElements:
    @given(value=st.lists(JSON, max_size=4), indent=st.sampled_from([None, 2]))
    def test_a_whole_array_comes_apart_into_its_elements(self, value: list[Any], indent: int | None) -> None:
        document = json.dumps(value, indent=indent).encode()
        assert [json.loads(element) for element in array_elements(document)] == value

    def test_commas_brackets_and_quotes_inside_texts_separate_nothing(self) -> None:
        value = ["a,b", "]", '"', "\\", '\\",[', {"}": "{"}]
        assert [json.loads(e) for e in array_elements(json.dumps(value).encode())] == value

    def test_what_stands_behind_the_array_is_ignored(self) -> None:
        assert list(array_elements(b'[1, {"a": [2]}] [3]')) == [b"1", b'{"a": [2]}']

    @pytest.mark.parametrize(
        ("document", "elements"),
        [
            (b"[", []),
            (b"[]", []),
            (b"[  ", []),
            (b"[1,,2]", [b"1", b"2"]),
            (b'[{"a": 1}, {"a":', [b'{"a": 1}', b'{"a":']),
            (b'[1, "a, b', [b"1", b'"a, b']),
            (b'[1, "a\\', [b"1", b'"a\\']),
            (b'[\xff, "\xfe"]', [b"\xff", b'"\xfe"']),
        ],
    )
    def test_a_damaged_array_gives_what_is_there(self, document: bytes, elements: list[bytes]) -> None:
        assert list(array_elements(document)) == elements

    def test_nesting_of_any_depth_stays_inside_its_element(self) -> None:
        deep = b"[" * 200_000 + b"]" * 200_000
        assert list(array_elements(b"[1," + deep + b",2]")) == [b"1", deep, b"2"]

    @pytest.mark.parametrize("text", [b'\\"' * 100_000, b"\\" * 200_001, b'"' * 200_001, b"{" * 200_000])
    def test_no_document_makes_the_scan_go_back(self, text: bytes) -> None:
        # A scan that started again at each quote would take hours here.
        for _ in array_elements(b'["' + text):
            pass


class TestObjectMembers:
    @given(
        value=st.dictionaries(st.text("abc_", max_size=5), JSON, max_size=4),
        indent=st.sampled_from([None, 2]),
    )
    def test_a_whole_object_comes_apart_into_its_members(
        self, value: dict[str, Any], indent: int | None
    ) -> None:
        members = object_members(json.dumps(value, indent=indent).encode())
        assert {name.decode(): json.loads(text) for name, text in members.items()} == value

    def test_a_broken_value_stays_with_its_name(self) -> None:
        assert object_members(b'{"id": "a", "x": 0x1f, "y": {"z": \xff}}') == {
            b"id": b'"a"',
            b"x": b"0x1f",
            b"y": b'{"z": \xff}',
        }

    def test_a_member_that_breaks_off_is_kept_as_far_as_it_goes(self) -> None:
        assert object_members(b'{"id": "a", "state": "comp') == {b"id": b'"a"', b"state": b'"comp'}

    @pytest.mark.parametrize(
        ("document", "members"),
        [(b"{1: 2}", {}), (b'{"a": 1, b: 2, "c": 3}', {b"a": b"1", b"c": b"3"}), (b"{[]}", {})],
    )
    def test_a_member_without_a_name_is_left_out(self, document: bytes, members: dict[bytes, bytes]) -> None:
        assert object_members(document) == members


class TestArrayCutter:
    @given(
        value=st.lists(st.dictionaries(st.sampled_from("abc"), JSON, max_size=3) | JSON, max_size=8),
        size=st.integers(1, 60),
        indent=st.sampled_from([None, 2]),
        accept=st.booleans(),
    )
    def test_the_chunks_and_the_elements_of_those_that_are_no_json_are_the_array(
        self, value: list[Any], size: int, indent: int | None, accept: bool
    ) -> None:
        cutter, found = ArrayCutter(json.dumps(value, indent=indent).encode(), size=size), []
        while not cutter.done:
            chunk = cutter.chunk()
            try:
                assert accept
                found += json.loads(chunk)
                cutter.accept()
            except (ValueError, AssertionError):
                found += [json.loads(element) for element in cutter.elements()]
        assert found == value


class TestLooseJson:
    @given(JSON)
    def test_json_is_what_it_is(self, value: Any) -> None:
        assert loose_json(json.dumps(value).encode()) == value

    def test_what_is_not_json_is_dropped_alone(self) -> None:
        deep = b"[" * 100_000
        text = b'{"a": {"b": 0x1, "c": [2, NaN, %b], "d": 1e999}, "e": "\xff\\ud83d", "f": 4' % deep
        found = loose_json(text)
        assert isinstance(found, dict)
        assert found["a"]["b"] is ILLEGIBLE


class TestFirstDocument:
    @given(value=JSON.filter(lambda value: isinstance(value, list | dict)), behind=st.binary())
    def test_what_is_glued_behind_is_cut_off(self, value: Any, behind: bytes) -> None:
        document = json.dumps(value).encode()
        assert first_document(document + behind) == document

    @pytest.mark.parametrize("text", [b"", b"{", b'[{"a": 1}', b'{"a": "}'])
    def test_a_document_without_an_end_is_returned_as_it_is(self, text: bytes) -> None:
        assert first_document(text) == text
