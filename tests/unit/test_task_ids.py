# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.client.models import is_task_id
from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.task_ids import check_task_ids, parse_task_ids

UUID = "4665a07c-7641-4809-a133-10786201bb56"
IDS = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True), unique=True)

BAD = [
    None,
    5,
    1.5,
    True,
    b"t1",
    {},
    {"t1": 1},
    "",
    "a b",
    "a,b",
    "../x",
    "x" * 129,
    ["t1", None],
    ["t1", 5],
    ["t1", ""],
    [[5]],
    [[[[[["t1"]]]]]],
    [{"path": "x"}],
    {"id": 5},
    [{"id": "a b"}],
    [b"t1"],
    ["t1", "a/b"],
]
BAD_TEXTS = [
    "[",
    "[t1]",
    "[t1",
    "['t1'",
    '["t1", 5]',
    "[None]",
    "[{[]: 1}]",
    "[{1, [2]}]",
    "[1].sort()",
    "(5)",
    "[" * 100_000,
    "[\x00]",
    "[1e999]",
    "[" + "9" * 10_000 + "]",
]


class TestParseTaskIds:
    @pytest.mark.parametrize(
        ("value", "ids"),
        [
            ([], []),
            (["a"], ["a"]),
            (["b", "a", "b"], ["b", "a"]),
            (("a", "b"), ["a", "b"]),
            (iter(["a", "b"]), ["a", "b"]),
            (UUID, [UUID]),
            (f"  {UUID}\n", [UUID]),
            ("[]", []),
            ('["a", "b"]', ["a", "b"]),
            ("['a', 'b']", ["a", "b"]),
            ("('a', 'b')", ["a", "b"]),
            ("('a',)", ["a"]),
            (' \n["a"]', ["a"]),
            ([["a", "b"], ["b", "c"]], ["a", "b", "c"]),
            ([["a"], "b", [], ("c",)], ["a", "b", "c"]),
            ({"id": "a", "video_url": None}, ["a"]),
            ([{"id": "a", "video_url": "https://cdn.test/v"}, {"id": "b"}], ["a", "b"]),
            ([[{"id": "a"}], [{"id": "b"}]], ["a", "b"]),
            (iter([iter(["a"]), iter(["b"])]), ["a", "b"]),
            ('[["a"], [{"id": "b"}]]', ["a", "b"]),
            ('{"id": "a"}', ["a"]),
            ("{'id': 'a', 'width': None}", ["a"]),
            (SimpleNamespace(id="a"), ["a"]),
            ([SimpleNamespace(id="a")], ["a"]),
        ],
    )
    def test_a_list_one_id_and_the_text_of_a_list_are_right(self, value: Any, ids: list[str]) -> None:
        assert parse_task_ids(value) == ids

    @given(IDS)
    def test_the_text_of_a_json_or_python_list_is_that_list(self, ids: list[str]) -> None:
        for text in (json.dumps(ids), repr(ids), repr(tuple(ids))):
            assert parse_task_ids(text) == parse_task_ids(ids) == ids

    @pytest.mark.parametrize("value", [*BAD, *BAD_TEXTS], ids=lambda value: repr(value)[:30])
    def test_anything_else_is_refused_with_the_parameter_and_what_is_right(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match="these_ids") as caught:
            parse_task_ids(value, parameter="these_ids")
        assert "must be a list of ids, one id, or a template" in str(caught.value)

    @pytest.mark.parametrize("value", ["a b", ["t1", 5], None])
    def test_the_error_shows_the_value(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match="luma_task_ids") as caught:
            parse_task_ids(value)
        bad = value[1] if isinstance(value, list) else value
        assert repr(bad) in str(caught.value)

    @given(st.text() | st.from_regex(r"[\[(][\[\](){}'\",:0-9a-z *-]*", fullmatch=True))
    def test_any_text_is_ids_or_refused(self, text: str) -> None:
        try:
            ids = parse_task_ids(text)
        except LumaConfigError:
            return
        assert all(map(is_task_id, ids))


class TestCheckTaskIds:
    @pytest.mark.parametrize(
        "value",
        [
            [],
            ["a", "b"],
            ("a",),
            {"a"},
            UUID,
            '["a"]',
            "{{ ti.xcom_pull('x') }}",
            "{% if x %}a{% endif %}",
            ["{{ one }}", "a"],
            [object()],
            object(),
        ],
    )
    def test_what_is_right_or_not_known_yet_passes(self, value: Any) -> None:
        check_task_ids(value)

    @pytest.mark.parametrize(
        "value",
        [value for value in BAD if not isinstance(value, list) or len(value) > 1],
    )
    def test_what_cannot_be_right_is_refused_at_once(self, value: Any) -> None:
        with pytest.raises(LumaConfigError, match="these_ids"):
            check_task_ids(value, parameter="these_ids")

    def test_a_bad_id_beside_a_template_is_refused(self) -> None:
        with pytest.raises(LumaConfigError, match="'a b'"):
            check_task_ids(["{{ one }}", "a b"])


class TestNothing:
    @pytest.mark.parametrize("text", ["None", "null", " None "])
    def test_a_template_that_renders_to_nothing_is_named_as_such(self, text: str) -> None:
        with pytest.raises(LumaConfigError, match="returned nothing"):
            parse_task_ids(text)
