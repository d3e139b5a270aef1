# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_luma.sandbox.settings import Settings


def test_everything_has_a_default() -> None:
    assert Settings.of({}) == Settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pending_seconds": -1}, r"pending_seconds must be .*got -1"),
        ({"dialect": "klingon"}, r"dialect must be .*got 'klingon'"),
        ({"prefix": "x"}, r"prefix must be .*got 'x'"),
        ({"prefix": "/x/"}, r"prefix must be .*got '/x/'"),
        ({"api_key": ""}, r"api_key must be .*got ''"),
        ({"submit_status": 202}, r"submit_status must be .*got 202"),
        ({"video_bytes": 10}, "video_bytes must be .*got 10.*at least"),
        ({"link_uses": 0}, r"link_uses must be .*got 0"),
        ({"latency_seconds": "1"}, r"latency_seconds must be .*got '1'"),
        ({"speed": 3}, "Unknown setting speed; .*api_key"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it_and_its_value(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.of(values)


def test_text_is_taken_for_numbers_where_it_comes_from_a_command_line() -> None:
    settings = Settings.of(
        {"pending_seconds": "0.5", "submit_status": "201", "balance_usd": "3"}, strict=False
    )
    assert (settings.pending_seconds, settings.submit_status, settings.balance_usd) == (0.5, 201, 3.0)
