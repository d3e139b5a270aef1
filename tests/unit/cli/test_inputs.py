# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest

from airflow_provider_luma.cli.inputs import find_relay, read_ids
from airflow_provider_luma.exceptions import LumaConfigError

KEY = "sk-a-key-of-this-test"


class TestReadIds:
    def test_order_is_kept_and_duplicates_are_dropped(self) -> None:
        assert read_ids(["b", "a", "b"]) == ["b", "a"]

    @pytest.mark.parametrize("text", ["c d\ne\n", '["c", "d", "e"]\n'])
    def test_a_dash_reads_standard_input(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

        assert read_ids(["a", "-", "f"]) == ["a", "c", "d", "e", "f"]

    def test_an_empty_standard_input_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n"))

        with pytest.raises(LumaConfigError, match="no ids on standard input"):
            read_ids(["-"])

    @pytest.mark.parametrize("wrong", ["../etc", "a b", "x" * 129, "é"])
    def test_an_invalid_id_is_named(self, wrong: str) -> None:
        with pytest.raises(LumaConfigError, match="not a Luma task id") as caught:
            read_ids(["a", wrong])
        assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("stdin", [None, io.TextIOWrapper(io.BytesIO(b"\xff\xfe\xff"), encoding="utf-8")])
def test_a_standard_input_that_cannot_be_read_is_named(stdin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", stdin)

    with pytest.raises(LumaConfigError, match="Standard input"):
        read_ids(["-"])


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUMA_API_KEY", raising=False)
    monkeypatch.delenv("LUMA_BASE_URL", raising=False)


class TestFindRelay:
    def test_the_environment_variables_define_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LUMA_API_KEY", KEY)
        monkeypatch.setenv("LUMA_BASE_URL", "relay.test/prefix/")

        settings, source = find_relay(None)

        assert (settings.base_url, settings.api_key) == ("https://relay.test/prefix", KEY)
        assert source == "environment variable LUMA_API_KEY"

    def test_a_key_alone_means_the_default_relay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LUMA_API_KEY", KEY)

        assert find_relay(None).settings.base_url == "https://xuedingmao.online"

    def test_an_address_without_a_key_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LUMA_BASE_URL", "https://relay.test")

        with pytest.raises(LumaConfigError, match="LUMA_BASE_URL is set, but LUMA_API_KEY isn't"):
            find_relay(None)

    @pytest.mark.parametrize(
        ("name", "value", "named"),
        [("LUMA_API_KEY", "sk-my key", "API key"), ("LUMA_BASE_URL", "http://my relay", "my relay")],
    )
    def test_unusable_variables_are_named(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str
    ) -> None:
        monkeypatch.setenv("LUMA_API_KEY", KEY)
        monkeypatch.setenv(name, value)

        with pytest.raises(LumaConfigError, match=f"LUMA_API_KEY and LUMA_BASE_URL: .*{named}") as caught:
            find_relay(None)
        assert "sk-my" not in str(caught.value)

    def test_a_given_connection_overrides_the_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LUMA_API_KEY", "sk-another")
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_MINE", f'{{"conn_type": "luma", "password": "{KEY}"}}')

        settings, source = find_relay("luma_mine")

        assert settings.api_key == KEY
        assert source == "connection luma_mine"

    def test_without_variables_the_default_connection_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", f'{{"conn_type": "luma", "password": "{KEY}"}}')

        assert find_relay(None).source == "connection luma_default"

    def test_an_undefined_connection_says_how_to_define_it(self) -> None:
        with pytest.raises(LumaConfigError, match=r"'luma_nowhere'.*airflow connections add.*LUMA_API_KEY"):
            find_relay("luma_nowhere")

    def test_the_environment_variables_need_no_import_of_airflow(self) -> None:
        code = """
import os, sys
os.environ["LUMA_API_KEY"] = "sk-key"
from airflow_provider_luma.cli.inputs import find_relay
find_relay(None)
print(sorted(name for name in sys.modules if name.partition(".")[0] == "airflow"))
"""
        finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert finished.stdout.strip() == "[]"
