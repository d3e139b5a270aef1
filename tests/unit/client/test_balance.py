# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.client.balance import Balance, decode_balance
from airflow_provider_luma.exceptions import (
    LumaApiError,
    LumaError,
    LumaQuotaError,
    LumaResponseError,
)

SUBSCRIPTION = b'{"object": "billing_subscription", "hard_limit_usd": 20.5, "has_payment_method": true}'
USAGE = b'{"object": "list", "total_usage": 766}'


class TestDecodeBalance:
    def test_usage_is_reported_in_cents_and_counts_against_the_limit(self) -> None:
        balance = decode_balance(SUBSCRIPTION, USAGE)

        assert balance == Balance(used_usd=7.66, limit_usd=20.5)
        assert balance.remaining_usd == 12.84

    def test_a_hundred_million_means_without_limit(self) -> None:
        balance = decode_balance(b'{"hard_limit_usd": 100000000}', USAGE)

        assert balance == Balance(used_usd=7.66, limit_usd=None)
        assert balance.remaining_usd is None

    def test_an_overdrawn_key_has_less_than_nothing(self) -> None:
        assert decode_balance(b'{"hard_limit_usd": 5}', USAGE).remaining_usd == -2.66

    def test_an_error_behind_a_success_status_is_an_error(self) -> None:
        refusal = {"error": {"message": "该令牌额度已用尽", "type": "new_api_error", "code": ""}}

        with pytest.raises(LumaQuotaError, match="该令牌额度已用尽"):
            decode_balance(json.dumps(refusal).encode(), USAGE)
        with pytest.raises(LumaApiError, match="boom"):
            decode_balance(SUBSCRIPTION, b'{"error": {"message": "boom"}}')

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"<html>Welcome</html>",
            b"[]",
            b"{}",
            b'{"hard_limit_usd": "much"}',
            b'{"hard_limit_usd": null}',
        ],
    )
    def test_an_answer_without_a_balance_says_so(self, answer: bytes) -> None:
        with pytest.raises(LumaResponseError, match="about the balance can't be understood"):
            decode_balance(answer, USAGE)

    @given(st.binary(max_size=300), st.binary(max_size=300))
    def test_no_answer_raises_anything_but_a_luma_error(self, subscription: bytes, usage: bytes) -> None:
        for answers in ((subscription, usage), (SUBSCRIPTION, usage)):
            with suppress(LumaError):
                decode_balance(*answers)
