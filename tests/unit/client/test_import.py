# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CORE = ("client", "client.settings", "client.artifacts", "task_ids", "waiting.progress", "exceptions")


@pytest.mark.parametrize("module", CORE)
def test_what_dag_files_import_brings_neither_requests_nor_airflow(module: str) -> None:
    code = f"import airflow_provider_luma.{module}, sys, json; print(json.dumps(sorted(sys.modules)))"
    root = Path(__file__).parents[3]
    finished = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)
    imported = set(json.loads(finished.stdout))
    assert f"airflow_provider_luma.{module}" in imported
    assert not imported & {"requests", "urllib3", "airflow", "asyncio", "ssl"}
