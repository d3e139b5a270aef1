# SPDX-License-Identifier: Apache-2.0
"""Commands in this process, and the sandbox that they use."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from airflow_provider_luma import __main__
from airflow_provider_luma.sandbox import LumaSandbox

API_KEY = "sk-a-key-of-this-test"
PROMPT = "a paper boat at dawn"


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Luma = Callable[..., Result]


@pytest.fixture
def sandbox(dialect: str) -> Iterator[LumaSandbox]:
    with LumaSandbox(
        dialect=dialect, api_key=API_KEY, pending_seconds=0, processing_seconds=0, balance_usd=5
    ) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _point_at_the_sandbox(sandbox: LumaSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMA_API_KEY", API_KEY)
    monkeypatch.setenv("LUMA_BASE_URL", sandbox.base_url)


@pytest.fixture
def luma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Luma:
    """Run a command in this process until it exits."""

    def luma(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as caught:
            __main__.main(arguments)
        result = Result(int(caught.value.code or 0), *capsys.readouterr())
        assert "Traceback" not in result.err
        assert API_KEY not in result.out + result.err
        return result

    return luma
