# SPDX-License-Identifier: Apache-2.0
"""A delay that a server asks for is never sooner than the user's own and never later than an hour."""

from __future__ import annotations

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.delays import MAX_DELAY, delay_before_retry, parse_retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("007", 7.0),
        ("3601", MAX_DELAY),
        ("9" * 5_000, MAX_DELAY),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_DELAY),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_seconds_and_dates_are_read_and_bounded(value: str, seconds: float) -> None:
    assert parse_retry_after(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "-1",
        "1.5",
        "٧",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Fri, 99 Foo 2015",
        "1e3",
        "inf",
        "nan",
    ],
)
def test_what_is_illegible_asks_for_nothing(value: str | None) -> None:
    assert parse_retry_after(value) is None


def test_a_date_shortly_ahead_is_a_delay_from_now() -> None:
    delay = parse_retry_after(email.utils.formatdate(time.time() + 1_000, usegmt=True))

    assert delay is not None
    assert 0 < delay <= 1_000


@given(st.text())
def test_any_header_is_bounded(value: str) -> None:
    delay = parse_retry_after(value)

    assert delay is None or 0 <= delay <= MAX_DELAY


@pytest.mark.parametrize(
    ("asked", "own", "delay"),
    [(None, 300, 300), (10, 300, 300), (900, 300, 900), (1e9, 300, MAX_DELAY), (1e9, 7200, 7200)],
)
def test_the_users_own_delay_is_never_undercut(asked: float | None, own: float, delay: float) -> None:
    assert delay_before_retry(asked, own=own) == delay
