# SPDX-License-Identifier: Apache-2.0
"""Text from outside is clean, short and free of the key before anything logs, stores or prints it."""

from __future__ import annotations

import json
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.text import Cleaner, clean_text, shorten_list

KEY = "sk-Abc/def+123456"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mred\x1b[0m", "a[31mred[0m"),
        ("title\x1b]0;owned\x07", "title]0;owned"),
        ("c1 \x9b31m", "c1 31m"),
        ("user\u202egpj.exe", "usergpj.exe"),
        ("isolate \u2066x\u2069", "isolate x"),
        ("line\r\nbreak\u2028here", "line break here"),
        ("cut emoji \ud83d", "cut emoji "),
        ("zero\u200bwidth\ufeff", "zerowidth"),
    ],
)
def test_control_and_bidirectional_characters_are_removed(text: str, expected: str) -> None:
    assert clean_text(text) == expected


@pytest.mark.parametrize(
    "text", ["负载已饱和，请稍后再试", "می‌خواهم", "👩‍👩‍👧", "naïve café", "全角\u3000空格"]
)
def test_words_of_every_script_stay_as_they_are(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize(
    "spelling",
    [
        KEY,
        "".join(f"\\u{ord(char):04x}" for char in KEY),
        "".join(f"\\u{ord(char):04X}" for char in KEY),
        KEY.replace("/", "\\/"),
        json.dumps(KEY.replace("/", "\\/"))[1:-1],
        quote(KEY, safe=""),
        quote(quote(KEY, safe=""), safe=""),
        "".join(f"&#{ord(char)};" for char in KEY),
        "".join(f"&#x{ord(char):X};" for char in KEY),
        "".join(f"\\x{ord(char):02x}" for char in KEY),
        f"{KEY[:5]}\u200b{KEY[5:]}",
        f"{KEY[:5]}\x00{KEY[5:]}",
    ],
)
def test_the_key_is_masked_in_each_spelling(spelling: str) -> None:
    assert Cleaner(KEY)(f"bad key '{spelling}'.") == "bad key '***'."


def test_a_placeholder_key_is_not_masked_because_it_stands_in_ordinary_words() -> None:
    assert Cleaner("key")("a key is needed") == "a key is needed"


def test_a_long_text_is_cut() -> None:
    assert clean_text("x" * 501) == "x" * 500 + "…"
    assert clean_text("x" * 500) == "x" * 500
    assert clean_text("x" * 50_000_000, 10) == "x" * 10 + "…"


@pytest.mark.parametrize("before", range(1_950, 2_150, 7))
def test_no_part_of_a_key_is_left_where_a_long_text_is_cut(before: int) -> None:
    cleaned = Cleaner(KEY)("\u200b" * before + KEY + "\u200b" * 5_000)

    assert cleaned.rstrip("…") in ("", "***")


@given(st.text(), st.integers(1, 600))
def test_any_text_becomes_one_printable_line_of_bounded_length(text: str, limit: int) -> None:
    cleaned = Cleaner(KEY)(text, limit)

    assert len(cleaned) <= limit + 1
    assert not [char for char in cleaned if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
    assert not set(cleaned) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
    cleaned.encode()


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a, b"),
        ([str(n) for n in range(10)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ([str(n) for n in range(12)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
    ],
)
def test_a_long_list_is_named_in_part_and_counted(items: list[str], text: str) -> None:
    assert shorten_list(items) == text


def test_limit_and_separator_can_be_set() -> None:
    assert shorten_list(["a", "b", "c"], limit=2, separator="; ") == "a; b and 1 more"
