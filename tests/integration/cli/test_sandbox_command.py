# SPDX-License-Identifier: Apache-2.0
"""``sandbox`` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support.patience import PATIENCE


class TestSandbox:
    def test_it_serves_with_the_given_options(self, monkeypatch: pytest.MonkeyPatch) -> None:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "airflow_provider_luma", "sandbox"),
                *("--port", "0", "--json", "--api-key", "sk-of-the-sandbox", "--dialect", "envelope"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            environment = {
                **os.environ,
                "LUMA_API_KEY": "sk-of-the-sandbox",
                "LUMA_BASE_URL": ready["base_url"],
            }
            checked = subprocess.run(
                [sys.executable, "-m", "airflow_provider_luma", "check", "--json"],
                capture_output=True,
                check=True,
                env=environment,
            )
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)

        assert json.loads(ready["airflow_connection"])["host"] == ready["base_url"]
        assert json.loads(checked.stdout)["base_url"] == ready["base_url"]
        assert process.returncode == 0
