# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.exceptions import LumaConfigError
from airflow_provider_luma.validation import positive_seconds, shown, whole_number

NO_NUMBERS: list[Any] = [
    None,
    True,
    False,
    "5",
    b"5",
    [],
    {},
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    -(10**400),
    pytest.param(10**5000, id="5,000 digits"),
]


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -1, 86_401])
def test_what_is_no_positive_number_of_seconds_is_refused_by_name_and_value(value: object) -> None:
    with pytest.raises(
        LumaConfigError, match=r"^wait must be a positive number of seconds, at most 86400; got "
    ):
        positive_seconds("wait", value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, -0.001])
def test_what_is_no_duration_is_refused_by_name_and_value(value: object) -> None:
    with pytest.raises(
        LumaConfigError, match=r"^pause must be a number of seconds, 0 or more and at most .*; got "
    ):
        positive_seconds("pause", value, most=60, or_zero=True)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, 1.0, -1, 11])
def test_what_is_no_whole_number_is_refused_by_name_and_value(value: object) -> None:
    with pytest.raises(LumaConfigError, match=r"^count must be a whole number from 1 to 10; got "):
        whole_number("count", value, least=1, most=10)


def test_right_numbers_are_returned() -> None:
    assert positive_seconds("wait", 5) == 5.0
    assert isinstance(positive_seconds("wait", 5), float)
    assert positive_seconds("wait", 86_400) == 86_400
    assert positive_seconds("wait", 7 * 86_400, most=math.inf) == 7 * 86_400
    assert positive_seconds("pause", 0, or_zero=True) == 0
    assert whole_number("count", 10**6, least=0) == 10**6


@given(st.one_of(st.integers(), st.floats(), st.text(), st.just(10**6000)))
def test_a_value_of_any_size_is_shown_on_a_short_line(value: object) -> None:
    assert len(shown(value)) <= 81


def test_infinity_is_refused_whatever_the_bound() -> None:
    with pytest.raises(LumaConfigError):
        positive_seconds("wait", math.inf, most=math.inf)
