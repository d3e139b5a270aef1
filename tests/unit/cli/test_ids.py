# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from typing import Any

import pytest

from airflow_provider_luma.cli.ids import read_ids
from airflow_provider_luma.exceptions import LumaConfigError


class TestReadIds:
    def test_the_order_stays_and_repeated_ones_count_once(self) -> None:
        assert read_ids(["b", "a", "b"]) == ["b", "a"]

    @pytest.mark.parametrize("text", ["c d\ne\n", '["c", "d", "e"]\n'])
    def test_a_dash_stands_for_standard_input(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

        assert read_ids(["a", "-", "f"]) == ["a", "c", "d", "e", "f"]

    def test_an_empty_standard_input_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n"))

        with pytest.raises(LumaConfigError, match="no ids on standard input"):
            read_ids(["-"])

    @pytest.mark.parametrize("wrong", ["../etc", "a b", "x" * 129, "é"])
    def test_what_is_no_id_is_named(self, wrong: str) -> None:
        with pytest.raises(LumaConfigError, match="not a Luma task id") as caught:
            read_ids(["a", wrong])
        assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("stdin", [None, io.TextIOWrapper(io.BytesIO(b"\xff\xfe\xff"), encoding="utf-8")])
def test_a_standard_input_that_cannot_be_read_is_named(stdin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", stdin)

    with pytest.raises(LumaConfigError, match="Standard input"):
        read_ids(["-"])
