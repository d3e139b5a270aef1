# SPDX-License-Identifier: Apache-2.0
"""``check`` over real HTTP."""

from __future__ import annotations

import pytest

from airflow_provider_luma.cli.definition import Exit
from airflow_provider_luma.sandbox import LumaSandbox, faults
from tests.integration.cli.conftest import API_KEY, Luma


class TestCheck:
    @pytest.mark.parametrize("dialect", ["bare", "envelope"], indirect=True)
    def test_it_shows_url_latency_and_balance_and_submits_nothing(
        self, luma: Luma, sandbox: LumaSandbox
    ) -> None:
        code, out, _ = luma("check")

        assert code == Exit.OK
        assert sandbox.base_url in out
        assert "environment variable LUMA_API_KEY" in out
        assert " ms" in out
        assert "5.00 of 5.00 USD" in out
        assert sandbox.generations == []

    def test_as_json(self, luma: Luma, sandbox: LumaSandbox) -> None:
        result = luma("check", "--json")

        assert result.code == Exit.OK
        assert result.json.pop("latency_seconds") >= 0
        assert result.json | {"latency_seconds": 0} == {
            "base_url": sandbox.base_url,
            "source": "environment variable LUMA_API_KEY",
            "latency_seconds": 0,
            "balance": {"limit_usd": 5.0, "used_usd": 0.0, "remaining_usd": 5.0},
        }

    def test_a_relay_without_a_balance_passes(self, luma: Luma, sandbox: LumaSandbox) -> None:
        sandbox.fail_when("billing", faults.ok_html())

        result = luma("check")

        assert result.code == Exit.OK
        assert "not reported" in result.out
        assert luma("check", "--json").json["balance"] is None

    @pytest.mark.parametrize("dialect", ["bare", "envelope"], indirect=True)
    def test_a_key_without_limit(self, luma: Luma, monkeypatch: pytest.MonkeyPatch, dialect: str) -> None:
        with LumaSandbox(dialect=dialect, api_key=API_KEY) as unlimited:
            monkeypatch.setenv("LUMA_BASE_URL", unlimited.base_url)

            assert "unlimited (0.00 USD used)" in luma("check").out

    def test_a_wrong_key_is_an_error_after_a_single_call(
        self, luma: Luma, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LUMA_API_KEY", "sk-another-key")

        code, out, err = luma("check")

        assert code == Exit.ERROR
        assert out == ""
        assert "refuses the API key" in err
        assert "sk-another-key" not in err
        assert sandbox.count("batch") == 1

    def test_a_wrong_host_is_an_error_object_with_json(
        self, luma: Luma, sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LUMA_BASE_URL", f"{sandbox.base_url}/elsewhere")

        result = luma("check", "--json")

        assert result.code == Exit.ERROR
        assert result.json["error"]["type"] == "LumaEndpointError"
        assert result.json["error"]["status"] == 404

    def test_an_invalid_variable_is_wrong_usage(self, luma: Luma, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LUMA_BASE_URL", "ftp://relay.test")

        code, _, err = luma("check")

        assert code == Exit.USAGE
        assert "LUMA_BASE_URL" in err
