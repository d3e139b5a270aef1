# SPDX-License-Identifier: Apache-2.0
"""``make demo-ui`` as a person runs it: read the address and the login, look, press Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import requests

from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def test_it_prints_address_and_login_and_ctrl_c_ends_everything() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tools.demo_ui"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        printed = ""
        for line in demo.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        login = re.search(r"(http://127\.0\.0\.1:\d+) +user (\w+) +password (\w+)", printed)
        assert login is not None, printed
        address, user, password = login.groups()
        token = requests.post(
            f"{address}/auth/token", json={"username": user, "password": password}, timeout=PATIENCE
        ).json()["access_token"]
        runs = requests.get(
            f"{address}/api/v2/dags/~/dagRuns", headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE
        ).json()["dag_runs"]
        processes = psutil.Process(demo.pid).children(recursive=True)

        demo.send_signal(signal.SIGINT)

        assert demo.wait(PATIENCE) == 0
    assert {run["dag_id"] for run in runs} == {"example_luma_pipeline", "example_luma_wait"}
    assert len(processes) >= 4
    assert not [process for process in processes if process.is_running()]
